"""The benchmarks of quality run on stories, and their numbers are those of the texts."""

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

from cascaded_dllm import Cascade, StoryGrammar

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("sampling_quality")


@pytest.mark.slow
def test_copy_head(stories, valid_stories, monkeypatch, capsys):
    """Four arms, each of which has trained for its second."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arguments = [str(stories), str(valid_stories), "--quick", "--stage", "2"]
    monkeypatch.setattr(sys, "argv", ["copy_head_quality.py", *arguments])
    with torch.random.fork_rng(devices=[]):
        importlib.import_module("copy_head_quality").main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "## Copy head, stage 2 after 1 CPU seconds"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith(("| joint", "| one"))]
    assert [row[:2] for row in rows] == [[a, head] for a in ("joint", "one_way") for head in ("no", "yes")]
    assert all(int(row[2]) > 2 for row in rows)
    assert all(float(row[3].split()[0]) > 0 for row in rows)


def test_table(module, runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sampling_quality.py", f"{runs}/stage1", f"{runs}/stage2", "--quick"])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| first")]
    assert len(rows) == 2
    assert [row[:2] for row in rows] == [["first_hitting", "12.0"], ["first_hitting, 2 a call", "6.0"]]
    assert f"the grammar has {StoryGrammar().entropy:.2f} nats a text" in "\n".join(lines)


def test_quality_stands_beside_the_speed(module, runs, monkeypatch, capsys):
    stages = ["--stories", f"{runs}/stage1", f"{runs}/stage2"]
    of_a_text = module.Quality(6.0, 0.25, 0.125, 30.5, 1.0, 1.0)
    asked = []
    monkeypatch.setattr(module, "quality", lambda cascade, drawn, **rest: asked.append((drawn, rest)) or of_a_text)
    options = ["--quick", "--repeats", "1", "--dtype", "float32", "--num-samples", "8"]
    monkeypatch.setattr(sys, "argv", ["bench_sampler.py", *options, *stages])
    with torch.random.fork_rng(devices=[]):
        importlib.import_module("bench_sampler").main()
    lines = capsys.readouterr().out.splitlines()
    rows = {row[0]: row[-2:] for line in lines if (row := [cell.strip() for cell in line.split("|")[1:-1]])}
    assert rows["plain float32"] == rows["4 tokens a call float32"] == ["25.0% +- 12.5%", "30.50"]
    assert rows["first hitting placed float32"] == ["", ""], "no placed cascade was named"
    # Every way is drawn once, whatever the attention of the network that is timed.
    drawn = [{"predictor": "analytic", "steps": 1024}, {"tokens_per_call": 1}, {"tokens_per_call": 4}]
    assert asked == [(options, {"num_samples": 8}) for options in drawn]


def test_numbers_are_those_of_the_texts(module, runs, monkeypatch):
    """Of texts of two steps of training none belongs to the grammar; of the grammar's own all do."""
    cascade = Cascade.from_pretrained([f"{runs}/stage1", f"{runs}/stage2"])
    found = module.quality(cascade, {"tokens_per_call": 2}, num_samples=8)
    assert (found.calls, found.accepted_share) == (6.0, 0.0)
    assert math.isnan(found.surprisal)
    grammar = StoryGrammar()
    texts = [document.text for document in grammar.documents(8, seed=5)]
    monkeypatch.setattr(type(cascade.tokenizer), "decode_window", lambda self, ids: texts.pop(0))
    expected = -sum(map(grammar.log_prob, texts)) / 8
    found = module.quality(cascade, {}, num_samples=8)
    assert (found.accepted_share, found.accepted_error, found.distinct_share) == (1.0, 0.0, 1.0)
    assert found.surprisal == pytest.approx(expected)
