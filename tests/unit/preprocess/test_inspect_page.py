import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.manifest import Counts, Settings
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.pages import contrast, stage_colours
from cascaded_dllm.preprocess.inspect import InspectedWindow, Inspection, Span, inspect_dataset
from cascaded_dllm.preprocess.inspect_page import page
from cascaded_dllm.preprocess.inspect_statistics import Bin, Statistics
from tests.unit.preprocess.look import TOKENIZER, write_dataset

SPEC = CascadeSpec((3, 6, 16))
VOID = {"meta"}


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, and the texts of windows and of stages."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.windows: list[str] = []
        self.stages: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._into: tuple[list[str], int] | None = None
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag in VOID:
            return
        self._open.append(tag)
        for name, texts in (("data-window", self.windows), ("data-stage", self.stages)):
            if name in attributes:
                texts.append("")
                self._into = (texts, len(self._open))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if self._into and len(self._open) < self._into[1]:
            self._into = None

    def handle_data(self, data):
        self.text += data
        if self._into:
            self._into[0][-1] += data

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def shown(text: str) -> str:
    """What of a text can be shown: a page cannot hold the character 0."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def made_up(text: str, name: str) -> Inspection:
    """An inspection in which everything that comes from outside is `text` or `name`."""
    span = Span(text, 1, ((7, 1.0),))
    settings = Settings(
        dataset=name, split=name, source={name: name}, num_shards=1, method="constituency", scorer={"tagger": name},
        background=-100.0, tokenizer=name, vocab_size=9, eos_id=8,
    )  # fmt: skip
    windows = (
        InspectedWindow(name, (name, name), (span, span._replace(stage=3)), ((span,), (span, span)), 9),
        InspectedWindow(name, (), (), (), 2),
    )
    return Inspection(
        folder=Path("folder") / (name.replace("\0", "") or "x"),
        settings=settings,
        counts=Counts(1, 2, 3, {name: 4}),
        fingerprint=name,
        num_shards=1,
        layout=Layout(16, "stream", 8, -100.0),
        spec=SPEC,
        num_windows=3,
        tail_tokens=1,
        choice=name,
        windows=windows,
        unique=True,
        statistics=Statistics(2, False, 1, (Bin(name, (1, 2, 3, 4)),)),
    )


HOSTILE = st.text() | st.sampled_from(
    [
        "</p><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'-->]]></style></title>",
        "&lt;&amp;&#0;&#x80;&nbsp",
        "\r\n\x00\x0b\x1b[31m\x7f\x85\u2028\u202e",
        "$title ${windows} $$",
        "\n\nlines",
    ]
)


@given(HOSTILE, HOSTILE)
@example("</span>", "</title>")
def test_nothing_on_the_page_is_taken_for_more_than_text(text, name):
    parsed = Page(page(made_up(text, name)))
    assert parsed.tags == Page(page(made_up("a", "b"))).tags
    assert parsed.windows == [shown(text + text), ""]
    assert parsed.stages == [shown(text), shown(text + text)]
    assert shown(name) in parsed.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    texts = [
        "The <b>fox</b> found a key.\r\n",
        "日本語 and 😀😀, été",
        "a\x00b\x1b[31m",
        "\n\n'quoted' & \"so\" on",
        "end " * 9,
    ]
    return write_dataset(tmp_path_factory.mktemp("look") / "data", texts)


def test_page_shows_the_windows_and_stages_of_training(folder, tmp_path):
    arrays = StageArrays.build(folder, SPEC, packing="stream", out=tmp_path)
    inspection = inspect_dataset(folder, SPEC, packing="stream", num_windows=100)
    parsed = Page(page(inspection))
    assert len(parsed.windows) == len(inspection.windows) == inspection.num_windows
    kept = {shown(TOKENIZER.decode(ids)) for ids in arrays.stages[-1].tolist()}
    assert kept <= set(parsed.windows)
    expected = [
        shown(TOKENIZER.decode(array[row].tolist())) for row in range(arrays.num_windows) for array in arrays.stages[:2]
    ]
    assert parsed.stages == expected
    for said in ("look, train", "constituency", "7 windows", "of all 7 windows", "head proper noun"):
        assert said in parsed.text, said


def test_page_needs_nothing_else(folder):
    text = page(inspect_dataset(folder, SPEC, packing="document", num_windows=3))
    parsed = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert not any({"src", "href", "onclick"} & attributes.keys() for _, attributes in parsed.elements)
    assert "url(" not in text
    assert "@import" not in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in parsed.elements
    assert ("html", {"lang": "en"}) in parsed.elements
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_every_stage_can_be_read_and_the_strongest_stands_out(count, is_dark):
    colours = stage_colours(count, is_dark=is_dark)
    assert len(colours) == count
    assert all(contrast(text, background) >= 4.5 for background, text in colours)
    behind = (23, 29, 37) if is_dark else (246, 248, 250)
    strength = [contrast(background, behind) for background, _ in colours]
    assert strength == sorted(strength, reverse=True)
    assert len(set(strength)) == count


def test_contrast_of_known_pairs():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((9, 9, 9), (9, 9, 9)) == 1
    # The grey that just passes on white.
    assert contrast((0x76, 0x76, 0x76), (255, 255, 255)) == pytest.approx(4.54, abs=0.005)


def test_tokens_have_the_colour_of_their_stage(folder):
    text = page(inspect_dataset(folder, SPEC, packing="stream", num_windows=100))
    styled = set(re.findall(r'<span class="token (\w+)"', text))
    assert styled == {"s1", "s2", "plain"}
    assert ".s1 { background: #0a4a8f; color: #ffffff; }" in text
    assert ".s3 {" not in text


def test_bars_are_parts_of_the_longest():
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", page(made_up("a", "b")))]
    # Four parts of ten tokens, then what was dropped: 4 of 5 records, 1 of 2 windows, 1 of 3 tokens.
    assert widths == [10, 20, 30, 40, 80, 50, 33.33]
