"""`cdllm quickstart` runs to its end on both corpora, in the smallest size."""

import itertools
import json

import pytest

from cascaded_dllm.cli import quickstart
from cascaded_dllm.data.preprocessed import read_identity
from cascaded_dllm.text import python_docs, stories
from cascaded_dllm.text.python_docs import python_docs_documents
from cascaded_dllm.text.stories import StoryGrammar
from tests.pipeline.commands import failure, success

# Steps, sizes and periods so small that nothing is learnt.
SETTINGS = [
    "training.num_steps=3",
    "training.batch_size=4",
    "training.eval_windows=2",
    "training.eval_times=1",
    "training.eval_every=3",
    "training.snapshot_every=3",
    "optim.warmup=0",
    "model.hidden_size=16",
    "model.num_blocks=1",
    "sampling.num_samples=1",
]


@pytest.fixture(scope="module")
def documentation():
    """Of the first modules in alphabetical order."""
    return list(itertools.islice(python_docs_documents(), 45))


@pytest.fixture(autouse=True)
def few_documents(monkeypatch, documentation):
    """The first documents of each corpus, and few windows to measure."""
    monkeypatch.setattr(python_docs, "python_docs_documents", lambda: iter(documentation))
    monkeypatch.setattr(stories, "_SPLITS", {"train": 30, "valid": 10})
    monkeypatch.setattr(quickstart, "_BOUND_WINDOWS", 8)
    monkeypatch.setattr(quickstart, "_BOUND_TIMES", 2)


def test_stories(tmp_path, monkeypatch):
    out = tmp_path / "it's here, [bold]=1"
    drawn = quickstart._sampled
    monkeypatch.setattr(quickstart, "_sampled", lambda *given: (*drawn(*given)[:-1], 1234.5))
    result = success("quickstart", "--out", out, "--num-samples", 4, *SETTINGS)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["corpus"] == "stories"
    assert [stage["stage"] for stage in summary["stages"]] == [1, 2, 3]
    assert (summary["num_windows"], summary["num_samples"], summary["length"]) == (8, 4, 40)
    # Nothing is learnt in three steps: far above the truth, and no text is a story.
    assert summary["bound_over_truth"] > 2
    assert summary["accepted_share"] == 0
    assert summary["excess_nats"] == pytest.approx(
        summary["bound_nats_per_window"] - summary["true_nats_of_windows"], abs=1e-6
    )
    assert summary["entropy_nats"] == pytest.approx(StoryGrammar().entropy)
    for name in ("data", "stage1", "stage2", "stage3", "samples", "summary.json"):
        assert str(out / name) in result.stdout
        assert (out / name).exists()
    (samples,) = (out / "samples").iterdir()
    assert samples.name.startswith("sample_cascade_calls_64_len_40_")
    texts = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    assert len(texts) == 4
    assert texts[0]["settings"]["stage_paths"] == [str(out / f"stage{number}") for number in (1, 2, 3)]
    of_texts = json.loads((samples / "summary.json").read_text())
    assert of_texts["corpus"] == "stories"
    # As in every sampling run, the seconds of drawing; the whole command, with its trainings, is in the other file.
    assert of_texts["seconds"] == 1234.5
    assert 0 < summary["seconds"] != 1234.5
    assert "rejected: " in result.stdout

    again = success("quickstart", "--out", out, "--num-samples", 2, *SETTINGS)
    assert again.stdout.count("all 3 steps are done already") == 3
    message = failure("quickstart", "--out", out, "--seed", 1, *SETTINGS)
    assert "trained with other settings: training.seed was 0 and is 1; give the settings of the run's config" in message
    assert ", or another --out" in message


def test_a_flat_model_beside(tmp_path):
    """Three steps of 8 + (8 + 16) + (16 + 40) positions a story are seven of 40, but for rounding."""
    result = success("quickstart", "--out", tmp_path, "--num-samples", 2, "--flat", *SETTINGS)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["training_token_forwards"] == 3 * 4 * 88
    lines = [json.loads(line) for line in (tmp_path / "flat" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 7
    flat = summary["flat"]
    assert (flat["num_stages"], summary["num_stages"]) == (1, 3)
    assert (flat["num_windows"], flat["length"], flat["num_samples"], flat["accepted_share"]) == (8, 40, 2, 0)
    assert flat["true_nats_of_windows"] == summary["true_nats_of_windows"]
    assert flat["bound_nats_per_window"] != summary["bound_nats_per_window"]
    assert "flat, 40 tokens, 7 steps" in result.stdout
    assert str(tmp_path / "flat") not in result.stdout.splitlines()[-1], "no stage of the cascade"


def test_python_docs_in_two_stages(tmp_path):
    out = tmp_path / "docs"
    flags = ["--out", out, "--num-samples", 1, "--seed", 5]
    result = success("quickstart", "--corpus", "python-docs", *flags, *SETTINGS, "stage_lengths=[4,16]")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["corpus"] == "python-docs"
    assert summary["seed"] == 5
    assert len(summary["stages"]) == 2
    assert "accepted_share" not in summary
    scorers = [read_identity(folder).settings.scorer for folder in sorted((out / "data").glob("tfidf/*"))]
    assert len(scorers) == 2
    assert scorers[0] == scorers[1], "both parts have the word counts of the training part"
    assert "stage3" not in result.stdout
    assert f"cdllm sample --stage {out / 'stage1'} --stage {out / 'stage2'} --num-samples" in result.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.num_stepz=3"], "the key training.num_stepz is unknown; did you mean training.num_steps?"),
        (["optim.lr=-1"], "optim.lr is -1.0; it must be greater than 0"),
        (["training.batch_size=0"], "training.batch_size is 0; it must be at least 1"),
        (["stage_lengths=[16,8]"], "stage_lengths (16, 8) has 8 after 16"),
        (["model=huge"], "model is 'huge'; it must be one of medium, quick, small, tiny"),
        (["num_steps"], "the override 'num_steps' has no key and '='; write key=value"),
        (["stage=2"], "the quickstart sets stage itself; leave it out, or use --out, --seed and"),
        (["training.seed=2"], "the quickstart sets training.seed itself"),
        (["++stage=2"], "the quickstart sets stage itself"),
        (["stage@_global_=stage2"], "the quickstart sets stage itself"),
        (["data.train=wikitext2"], "the quickstart sets data.train itself"),
        (["load_dir=runs/x"], "the quickstart sets load_dir itself"),
    ],
)
def test_overrides_are_judged_before_anything_is_made(tmp_path, overrides, message):
    assert message in failure("quickstart", "--out", tmp_path, *overrides)
    assert list(tmp_path.iterdir()) == []
