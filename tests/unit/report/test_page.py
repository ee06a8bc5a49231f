import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cascaded_dllm.report.content import report
from cascaded_dllm.report.page import page
from cascaded_dllm.report.reading import read_results
from tests.unit.report import made_up

VOID = {"meta"}
# SVG's, which a browser closes itself.
CLOSED = {"path", "rect"}


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, its text, its tables and the texts of stages."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stages: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if "data-stage" in dict(attrs):
            self.stages.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in CLOSED
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "dd" in self._open and "article" in self._open:
            self.stages[-1] += data
        if self._open[-1:] in (["th"], ["td"]):
            self.rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def row(self, *begin: str) -> list[str]:
        """The only row that begins so."""
        [found] = [row for row in self.rows if row[: len(begin)] == list(begin)]
        return found


def parsed(folder, values) -> Page:
    return Page(page(report(made_up.read(folder, values))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return parsed(tmp_path_factory.mktemp("study"), made_up.study())


HOSTILE = st.text() | st.sampled_from(
    [
        "</p><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'-->]]></style></title>",
        "&lt;&amp;&#0;&#x80;&nbsp",
        "\r\n\x00\x0b\x1b[31m\x7f\x85\u2028\u202e",
        "$title ${verdict} $$",
        "\n\nlines",
        "\ud800",
    ]
)


def hostile(text: str, name: str):
    """A study in which everything that comes from outside is `text` or `name`."""
    arms = [made_up.arm("", seed, [3.0, 2.0], layout=1.0, description=text) for seed in (0, 1)]
    arms.append(made_up.arm("2", 0, [6.0], description=text))
    arms.append(made_up.diverged("3", 0, text or "x"))
    for arm in arms:
        # Named afterwards, since the numbers of an arm follow from its name.
        arm["arm"] = name + arm["arm"]
        arm["settings"] = {name: text}
        arm["texts"] = [[{"stage": 1, "text": text, "pieces": [[text, 1], [text, 2]]}], [{"stage": 2, "text": text, "pieces": []}]]  # fmt: skip  # noqa: E501
        for run in arm["runs"]:
            run["folder"] = text
        for sampling in arm["sampling"]:
            sampling |= {"name": f"{name} {sampling['name']}", "options": {name: text}, "figures": {f"f{name}": 1.0}}
    return made_up.results(
        arms,
        name=name,
        study={name: text},
        command=text,
        versions={name: text},
        device=text,
        data={"path": text, f"p{name}": [text]},
        reference={"figures": {f"f{name}": 2.0}},
        definitions={name: text},
    )


def visible(text: str) -> str:
    """What of a text can be shown: a page cannot hold the character 0, and no file half a surrogate pair."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\N{SYMBOL FOR NULL}")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def harmless_tags(scratch):
    return parsed(scratch, hostile("a", "b")).tags


@pytest.mark.slow
@settings(max_examples=30)
@given(HOSTILE, HOSTILE)
@example("</span>", "</title>")
@example("</text></svg>", "</desc>")
def test_nothing_on_the_page_is_taken_for_more_than_text(scratch, harmless_tags, text, name):
    found = parsed(scratch, hostile(text, name))
    assert found.tags == harmless_tags
    assert found.stages == [visible(text) * 2] * 3 + [visible(text)] * 3
    assert visible(name) in found.text


@pytest.mark.parametrize(
    ("seeds", "has_errors", "told"),
    [
        (2, True, ["over texts and seeds", "over seeds alone where none is known over texts"]),
        (1, True, ["over texts alone where there is one seed"]),
        (2, False, ["over seeds alone where none is known over texts"]),
        (1, False, []),
    ],
)
def test_tables_of_figures_say_which_scatter_their_errors_hold(tmp_path, seeds, has_errors, told):
    arms = [made_up.arm("a", seed, [3.0, 2.0]) for seed in range(seeds)]
    for arm in arms:
        for sampling in arm["sampling"]:
            sampling |= {"figures": {"x": 1.0, "num_texts": 9.0}, "errors": {"x": 0.25} if has_errors else {}}
    found = parsed(tmp_path, made_up.results(arms, reference={"figures": {"x": 2.0}, "errors": {"x": 0.5}}))
    [caption] = re.findall("Figures of texts, part 1 of 1, mean over seeds[^.]*[.]", found.text)
    expected = " ± standard error " + "; ".join(told) if told else ""
    assert caption == f"Figures of texts, part 1 of 1, mean over seeds{expected}."
    assert found.row("real text")[2] == "2.00 ± 0.50"
    # Two seeds of texts that scatter by 0.25 each.
    x = {(2, True): "1.00 ± 0.18", (1, True): "1.00 ± 0.25"}.get((seeds, has_errors), "1")
    costs, figures = (row for row in found.rows if row[:2] == ["a", "first_hitting"])
    assert len(costs) == 6
    assert figures[2] == x


def test_a_page_needs_nothing_else(whole):
    """It may name addresses, and loads none: no script, no picture, no font, no link but to itself."""
    assert not {"script", "img", "link", "iframe", "object", "embed", "use", "image", "base", "form"} & set(whole.tags)
    for tag, attributes in whole.elements:
        for name, value in attributes.items():
            assert not re.match(r"src|action|xlink|on", name), (tag, name)
            assert name != "href" or (value or "").startswith("#")
            assert "url(" not in (value or "") or re.fullmatch(r"url\(#h\d+\)", value or "")
    policies = [a["content"] for tag, a in whole.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_every_link_and_every_name_of_a_chart_leads_somewhere(whole):
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in whole.elements:
        if tag == "a":
            assert (attributes["href"] or "")[1:] in ids
        if tag == "svg" and attributes.get("role") == "img":
            assert {*(attributes["aria-labelledby"] or "").split()} <= set(ids)
        if tag == "rect" and "fill" in attributes:
            assert (attributes["fill"] or "")[5:-1] in ids
    drawn = [a for tag, a in whole.elements if tag == "svg" and "aria-hidden" not in a]
    # Bars and all stages together, bounds and losses of 4 arms, and 4 figures against 2 costs.
    assert len(drawn) == 2 + 4 + 4 + 2 * 4
    assert all(attributes["role"] == "img" for attributes in drawn)


def test_style_sheet_has_every_class(whole, tmp_path):
    text = page(report(made_up.read(tmp_path, made_up.study())))
    sheet = text[text.index("<style>") : text.index("</style>")]
    used = {name for _, attributes in whole.elements for name in (attributes.get("class") or "").split()}
    layout_only = {"swatch", "entry", "tick", "row", "name", "note", "end", "wlast"}
    missing = {name for name in used if f".{name}" not in sheet}
    assert missing == set()
    assert layout_only <= used


def test_tables_have_the_numbers_with_their_errors(whole):
    assert whole.row("placed", "3 of 3")[2:5] == ["30.09 ± 0.31", "± 0.054", "± 0.31"]
    assert whole.row("placed", "3 of 3")[5] == "0.003"
    assert whole.row("placed, learning rate 3e-3", "1 of 2")[3] == "one seed"
    assert whole.row("placed", "cascade")[2:] == ["-1.15 ± 0.12", "-9.3", "3", "± 0.12, paired", "lower"]
    assert whole.row("placed", "flat")[5:] == ["± 0.44, not paired", "lower"]
    assert whole.row("cascade", "flat")[6] == "no difference that is seen"
    lost = ["placed, learning rate 3e-3", "1", "diverged", "the loss was not finite at step 120 of stage 2"]
    assert whole.row(*lost) == lost
    assert whole.row("placed", "396k")[2:] == ["1.2k", "5M", "1.2T", "118"]
    assert whole.row("placed", "2", "8.847 ± 0.014")[4] == "2.1"
    assert ["real text", "-", "-", "6.20 ± 0.10", "3.02", "-"] in whole.rows


def test_the_costs_say_that_layout_networks_are_not_among_the_calls(whole):
    """A placed stage draws its places in as many calls of another network as it is given tokens."""
    assert "Network calls leave out those of layout networks, which draw the places of placed stages" in whole.text


def test_what_is_needed_to_repeat_it_is_there(whole):
    for text in (
        "cdllm study run tiny-stories --out runs/tiny-stories",
        "sha256:6a1f0c3be2",
        "2.13.0",
        '"token_forwards": 5000000',
        '"lr": 0.0003',
        "runs/tiny-stories/placed/2/stage3",
    ):
        assert text in whole.text


def test_texts_stand_side_by_side_in_the_colours_of_their_stages(whole):
    classes = [attributes.get("class") for tag, attributes in whole.elements if tag == "span"]
    assert {"token s1", "token s2", "token", "key s1", "key s2", "key"} <= set(classes)
    # Three texts of three arms with three stages and of one with a single stage, which has no colour.
    assert len(whole.stages) == 3 * (1 + 3 * 3)
    assert whole.stages[0].startswith("Mia was a brave little fox .")
    assert whole.stages[3].split()[:3] == ["Mia", "little", "day"]


def test_bars_are_divided_by_stages_and_layouts_hatched(whole):
    parts = [attributes.get("class") for tag, attributes in whole.elements if tag == "rect"]
    assert parts == ["flast", *["f1", "f2", "flast"], *["f1", "f2", None, "flast", None] * 2]
    widths = [float(a["width"] or 0) for tag, a in whole.elements if tag == "rect"]
    # 404 pixels for 40 nats: what a flat arm of 31.87 nats has, and a layout of 2.1.
    assert widths[0] == pytest.approx(404 * 31.87 / 40, abs=0.2)
    assert widths[6] == pytest.approx(404 * 2.1 / 40, abs=0.06)


NOTHING = made_up.diverged("lost", 0, "no memory", "failed") | {"runs": []}


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([], ["No arm has a bound", "No text was drawn", "No text was kept", "No curve was kept", "Every arm is done"]),
        ([NOTHING], ["No arm has a bound", "No curve was kept", "no memory"]),
        ([made_up.arm("only", 0, [3.0])], ["only arm with a bound", "one seed"]),
        ([made_up.arm("a", 0, [3.0]) | {"sampling": [], "texts": []}], ["No text was drawn", "No text was kept"]),
        ([made_up.arm("a", 0, [3.0]) | {"texts": []}, made_up.arm("b", 0, [3.0])], ["No text was kept of a."]),
        ([made_up.arm("a", 0, [3.0]) | {"texts": [[]]}], ["empty"]),
        ([made_up.arm("long " * 60, 0, [3.0]), made_up.arm("x" * 300, 0, [4.0, 1.0])], ["long long long l…"]),
        ([made_up.arm("a", 0, [3.0]) | {"bound": made_up.bound([0.0], error=None)}], ["only arm with a bound"]),
    ],
)
def test_what_is_missing_is_said(tmp_path, arms, said):
    found = parsed(tmp_path, made_up.results(arms, reference={"figures": {}}, truth_nats_per_window=None))
    for text in said:
        assert text in found.text


def test_figures_without_values_have_no_chart(tmp_path):
    arm = made_up.arm("a", 0, [3.0])
    for sampling in arm["sampling"]:
        sampling["figures"] = {"mauve": None, "num_texts": 3.0}
    found = parsed(tmp_path, made_up.results([arm], reference={"figures": {"x": None}}))
    assert "mauve against" not in found.text
    assert "num_texts against" not in found.text
    assert found.row("arm", "drawn with", "mauve")[2:] == ["mauve", "num_texts", "x"]


def test_more_texts_than_are_shown_are_left_out_and_said(tmp_path):
    arm = made_up.arm("a", 0, [3.0])
    arm["texts"] = arm["texts"] * 3
    found = parsed(tmp_path, made_up.results([arm]))
    assert len(found.stages) == 4
    assert "The first 4 of 9 texts" in found.text


def test_a_stage_beyond_all_lengths_has_a_colour_too(tmp_path):
    arm = made_up.arm("a", 0, [3.0])
    arm["texts"] = [[{"stage": 7, "text": "x", "pieces": [["x", 6]]}]]
    results = read_results(made_up.write(tmp_path, made_up.results([arm])))
    assert ".s6 {" in page(report(results))


@pytest.mark.parametrize(("parts", "labels"), [([31.9], []), ([9.1, 8.7, 13.6], ["1", "2", "3"])])
def test_lines_of_several_stages_end_with_their_numbers(tmp_path, parts, labels):
    """A single line needs none, least of all the 0 of a flat network."""
    values = made_up.results([made_up.arm("one", 0, parts)])
    if len(parts) == 1:
        values["arms"][0]["runs"][0]["stage"] = 0
    text = page(report(made_up.read(tmp_path, values)))
    curves = text.partition('<section id="curves">')[2].partition("</section>")[0]
    # In the chart of the bound, and in that of the loss.
    assert sorted(re.findall(r'class="end"[^>]*>([^<]*)<', curves)) == sorted(2 * labels)
