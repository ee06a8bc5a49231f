"""The benchmarks run and print their ratios; how large those are is for quiet machines to say."""

import contextlib
import importlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks import measure

CHECKOUT = Path(__file__).resolve().parents[3]
RATIO = r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]"


def printed(script: str, *options: str) -> str:
    """What a quick run prints; it runs in this process, which has imported the libraries already."""
    name = script.removesuffix(".py")
    output = io.StringIO()
    with (
        # As for a script, whose folder comes first.
        mock.patch.object(sys, "path", [str(CHECKOUT / "benchmarks"), *sys.path]),
        mock.patch.object(sys, "argv", [script, "--quick", "--repeats", "1", *options]),
        contextlib.redirect_stdout(output),
        torch.random.fork_rng(devices=[]),
    ):
        importlib.import_module(name).main()
    assert "threads" in output.getvalue()
    return output.getvalue()


@pytest.mark.slow
def test_training_step() -> None:
    text = printed("bench_train_step.py")
    assert re.search(r"Losses differ by \de[+-]\d\d, gradients by at most \de-0[5-9]", text)
    for variant in ("plain whole float32", "plain float32", "plain bfloat16", "fast float32", "fast bfloat16"):
        assert re.search(rf"\| {variant} .*({RATIO} +\|\s){{4}}", text), variant
    # A process of its own tells the memory.
    assert re.search(r"\| fast bfloat16 +(\| \d\.\d{3} +){2}\| \d\.\d\d +\| -?\d\.\d\d +\|", text)


def test_training_step_on_a_gpu() -> None:
    """On a CPU, but for what only a GPU has: compiled blocks and the memory of its own."""
    text = printed("bench_train_step_gpu.py", "--device", "cpu")
    for attention in ("joint", "one_way"):
        assert f"### toy, {attention}, batch 4" in text
    for variant in ("plain float32", "plain bfloat16", "fast float32", "fast bfloat16"):
        row = rf"\| {variant} +\| \d+\.\d +\| [\d,]+ +\| - +\| - +\| ({RATIO} +\|\s){{2}}"
        assert len(re.findall(row, text)) == 2, variant


def test_copy_head() -> None:
    text = printed("bench_copy_head.py")
    for attention in ("joint", "one_way"):
        assert f"### toy, {attention}, batch 4" in text
    assert len(re.findall(r"\| plain head +\| \d\.\d{3} \| 1\.00 \[1\.00, 1\.00\] \|", text)) == 2
    assert len(re.findall(rf"\| copy head +\| \d\.\d{{3}} +\| ({RATIO} +\| ){{2}}1\.\d{{3}} +\|", text)) == 2


@pytest.mark.slow
def test_sampler() -> None:
    text = printed("bench_sampler.py")
    ways = (
        "plain",
        "analytic score",
        "analytic normalized",
        "first hitting",
        "first hitting one_way",
        "first hitting placed",
        "4 tokens a call",
    )
    for sampler in ways:
        for dtype in ("float32", "bfloat16"):
            assert re.search(rf"\| {sampler} {dtype} +\| .*({RATIO} +\| ){{4}}", text), sampler
    assert "| plain whole float32 " in text
    assert re.search(r"\| first hitting float32 .*\| \d+\.\d s, \d+\.\d +\|\n", text)


def test_dtypes_that_are_asked_for() -> None:
    text = printed("bench_sampler.py", "--dtype", "float32")
    assert "| first hitting float32 " in text
    assert "bfloat16" not in text


def test_stages() -> None:
    text = printed("bench_stages.py")
    assert "all ways give the same arrays" in text
    for way in ("plain", "1 process", r"\d+ processes"):
        assert re.search(rf"\| {way} +\| .*({RATIO} +\|\s?){{2}}", text), way


def test_reading() -> None:
    text = printed("bench_preprocess_reading.py")
    for form in ("jsonl.xz", "jsonl.gz", "txt"):
        assert re.search(rf"\| novels.{form} +\| .*{RATIO} +\|", text), form


@pytest.mark.slow
def test_preprocessing_workers_and_memory() -> None:
    text = printed("bench_preprocess.py", "--part", "workers", "--part", "memory")
    for workers, commands in ((1, 1), (2, 1), (1, 2)):
        row = rf"\| {workers} +\| {commands} +\| \d+\.\d +\| {RATIO} +\|"
        assert re.search(row, text), row
    assert re.search(r"a shard of 2 documents of 700 words: \d+ MB; of 8: \d+ MB", text)


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    seen: list[str] = []

    def variant(name: str) -> Callable[[], measure.Work]:
        def work() -> float:
            seen.append(name)
            return 2.0

        return lambda: work

    seconds = measure.take_turns({"a": variant("a"), "b": variant("b")}, rounds=2)
    assert seen == list("ababab")
    assert [len(taken) for taken in seconds.values()] == [2, 2]


def test_seconds_are_those_of_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 6))
    monkeypatch.setattr(measure.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 0.0)
    assert measure.take_turns({"a": lambda: lambda: 3.0}, rounds=1) == {"a": [measure.Seconds(2.0, 0.0)]}


def test_ratios_are_taken_within_a_round() -> None:
    assert measure.ratios([2.0, 8.0, 6.0], [1.0, 2.0, 2.0]) == measure.Spread(3.0, 2.0, 4.0)


def test_results_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    for save in (True, False, True):
        report = measure.Report("Title", save=save)
        report.text(measure.table(["a", "bb"], [[1, "x"]]))
        report.record(value=1)
        report.close()
    page, lines = (next(tmp_path.glob(pattern)).read_text("utf-8") for pattern in ("*.md", "*.jsonl"))
    assert page.count("## Title\n") == 2
    assert page.count("| a | bb |\n|---|----|\n| 1 | x  |") == 2
    records = [json.loads(line) for line in lines.splitlines()]
    assert [(record["benchmark"], record["value"]) for record in records] == [("Title", 1)] * 2
    assert records[0]["machine"]["cores"] >= 1


@pytest.mark.parametrize("script", ["", "_constituency", "_keybert", "_reading"])
@pytest.mark.parametrize("given", [True, False])
def test_data_that_is_not_there(script: str, given: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"bench_preprocess{script}"
    options = ["--data", str(tmp_path)] * given
    with (
        mock.patch.object(sys, "path", [str(CHECKOUT / "benchmarks"), *sys.path]),
        mock.patch.object(sys, "argv", [name, *options]),
        pytest.raises(SystemExit),
    ):
        importlib.import_module(name).main()
    said = capsys.readouterr().err.splitlines()[-1]
    novels = "prose/eltec_eng_novels.jsonl.xz"
    missing = f"--data {tmp_path} holds no {novels}; give the folder that does, or --quick"
    assert said.endswith(missing if given else "--data is needed, or --quick")
