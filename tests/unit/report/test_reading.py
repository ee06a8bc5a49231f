import json

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.report.reading import read_results
from cascaded_dllm.report.results import Point
from tests.unit.report import made_up


def test_everything_is_read(tmp_path):
    values = made_up.study()
    path = made_up.write(tmp_path, values)
    results = read_results(path)
    assert results == read_results(tmp_path)
    assert results.lengths == (8, 16, 40)
    assert results.truth_nats == 28.6
    assert results.reference["mauve"] is None
    placed = results.arms[2]
    assert (placed.arm, placed.seed, placed.status, placed.reason) == ("placed", 0, "done", "")
    assert placed.bound is not None
    assert [stage.layout_nats for stage in placed.bound.stages] == [None, 2.1, 2.1]
    assert placed.runs[1].folder == "runs/tiny-stories/placed/0/stage2"
    assert placed.texts[0][0].pieces[0] == ("Mia", 1)
    lost = results.arms[-1]
    assert (lost.status, lost.bound, lost.reason) == (
        "diverged",
        None,
        "the loss was not finite at step 120 of stage 2",
    )
    assert lost.runs[0].curve[-1] == Point(3000, None)
    assert results.paired[0] == ("placed", "cascade", 0, -1.2, 0.12)


def test_losses_that_are_not_finite_are_none_however_they_are_written(tmp_path):
    values = made_up.results([made_up.arm("a", 0, [3.0])])
    values["arms"][0]["runs"][0]["curve"] = [[1, float("nan")], [2, float("inf")], [3, None], [4, 1.5], [5, 1e200]]
    [run] = made_up.read(tmp_path, values).arms[0].runs
    assert run.curve == ((1, None), (2, None), (3, None), (4, 1.5), (5, None))


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made_up.results([], name="a\ud800b\U0001f600")), encoding="utf-8")
    assert read_results(path).name == "a\N{REPLACEMENT CHARACTER}b\U0001f600"


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(
        DataError, match=r"results\.json cannot be read .*; name the folder of a study, or its results\.json"
    ):
        read_results(tmp_path)
    with pytest.raises(DataError, match=r"nothing\.json cannot be read"):
        read_results(tmp_path / "nothing.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"format": ', b"[" * 100_000])
def test_a_file_that_is_no_json_is_said(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json is not JSON .*; run the study again"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "value"), [("[]", "is missing"), ("{}", "is missing"), ('{"format": "other/2"}', "is 'other/2'")]
)
def test_another_format_is_said(tmp_path, content, value):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=rf"format {value}; it must be one of cascaded-dllm-study/1; run"):
        read_results(tmp_path)


def changed(place, value):
    """A study in which what stands at `place` is replaced, or taken away."""
    values = made_up.results([made_up.arm("a", 0, [3.0, 2.0, 1.0]), made_up.arm("b", 0, [4.0])], [])
    *path, last = place
    inside = values
    for step in path:
        inside = inside[step]
    if value is MISSING:
        del inside[last]
    else:
        inside[last] = value
    return values


MISSING = object()
FIRST = ("arms", 0)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("name",), MISSING, "name is missing; it must be a string"),
        (("command",), 3, "command is 3; it must be a string"),
        (("study",), None, "study is null; it must be an object"),
        (("versions",), {"torch": 2}, r"versions\.torch is 2; it must be a string"),
        (("budget",), {"flops": "many"}, r"budget\.flops is 'many'; it must be a number of at most 1e\+150"),
        (("budget",), {"hours": 3}, r"budget is {'hours': 3}; it must be an object with a number for"),
        (("lengths",), [8, 0], r"lengths is \[8, 0\]; it must be the token counts"),
        (("lengths",), [True], r"lengths is \[True\]"),
        (("arms",), {}, "arms is {}; it must be a list"),
        (("arms",), [3], r"arms\[0\] is 3; it must be an object"),
        ((*FIRST, "seed"), -1, r"arms\[0\]\.seed is -1; it must be a whole number from 0"),
        ((*FIRST, "seed"), True, r"arms\[0\]\.seed is True"),
        ((*FIRST, "seed"), 1, ""),
        ((*FIRST, "status"), "lost", r"arms\[0\]\.status is 'lost'; it must be one of done, diverged, failed, missing"),
        ((*FIRST, "bound", "bound_nats_per_window"), float("nan"), r"bound\.bound_nats_per_window is nan; it must"),
        ((*FIRST, "bound", "bound_nats_per_window"), 1e151, r"is 1e\+151; it must be a number of at most 1e\+150"),
        ((*FIRST, "bound", "num_windows"), 10**400, r"num_windows is 1000"),
        ((*FIRST, "bound", "stages", 1, "standard_error_nats"), "x", r"stages\[1\]\.standard_error_nats is 'x'"),
        ((*FIRST, "runs", 2, "curve"), [[1]], r"runs\[2\]\.curve is \[\[1\]\]; it must be a list of pairs"),
        ((*FIRST, "runs", 2, "curve"), [["1", 2]], r"it must be a list of pairs \[token-forwards"),
        ((*FIRST, "sampling", 0, "figures", "mauve"), [], r"sampling\[0\]\.figures\.mauve is \[\]"),
        ((*FIRST, "texts", 0, 0, "stage"), 65, r"stage is 65; it must be a whole number from 1 to 64"),
        ((*FIRST, "texts"), [3], r"arms\[0\]\.texts is \[3\]; it must be a list of samples"),
        ((*FIRST, "texts", 0), [3], r"arms\[0\]\.texts\[0\]\[0\] is 3; it must be an object"),
        ((*FIRST, "texts", 0, 0, "pieces"), [["a", 0]], r"pieces is \[\['a', 0\]\]; it must be a list of pairs \[text"),
        (("arms", 1, "arm"), "a", "arms is .*; it must be a list in which every arm has every seed once"),
        (("paired",), [made_up.paired(0)], "paired is .*; it must be a list of differences between arms .*: a, b"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named_with_what_belongs_there(tmp_path, place, value, message):
    path = made_up.write(tmp_path, changed(place, value))
    if not message:
        assert read_results(path).arms[0].seed == value
        return
    with pytest.raises(DataError, match=rf"results\.json: .*{message}.*; run the study again to write it anew"):
        read_results(path)


def test_every_name_of_the_format_is_needed(tmp_path):
    """A file without one of them is not taken for one with a null."""
    whole = made_up.results([made_up.arm("a", 0, [3.0])], [])
    for name in whole:
        rest = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(DataError, match=rf"{name} is missing; it must be "):
            made_up.read(tmp_path, rest)
    for name in whole["arms"][0]:
        rest = {key: value for key, value in whole["arms"][0].items() if key != name}
        with pytest.raises(DataError, match=rf"arms\[0\]\.{name} is missing; it must be "):
            made_up.read(tmp_path, whole | {"arms": [rest]})
