"""Snapshots of a run: what is drawn on true prefixes and through the whole cascade, and the figures beside it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cascaded_dllm.assemble.inputs import stage_dataset
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.evaluate.diversity import distinct_share_and_error, token_entropy_nats_per_text
from cascaded_dllm.evaluate.generative_ppl import Judge, ppl_corpus_and_error, ppl_per_text
from cascaded_dllm.evaluate.overlap import multiset_overlap_per_text, ordered_coverage_per_text
from cascaded_dllm.model.integrity import CHECKSUMS, write_checksums
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT
from cascaded_dllm.train.run_events import Snapshot
from cascaded_dllm.train.snapshot import SampleGroup
from tests.pipeline import tiny

DISTINCT = {f"distinct_{name}_share": n for n, name in enumerate(("unigram", "bigram", "trigram"), start=1)}
DIVERSITY = {"token_entropy_nats_mean", *DISTINCT}


@pytest.fixture
def make_run(stories, tmp_path):
    """A run that has not begun."""

    def make(*overrides):
        return assemble_run(tiny.config(stories, tmp_path / "run", "sampling.num_samples=3", *overrides))

    return make


@pytest.fixture
def report(make_run):
    """The report of step 5 of such a run."""
    return lambda *overrides: make_run(*overrides).sample(5)


def test_stage_1_writes_without_a_prefix(report):
    found = report("stage=1")
    assert (found.step, set(found.groups)) == (5, {"unconditional"})
    group = found.groups["unconditional"]
    assert group.figures.keys() == DIVERSITY
    for sample in group.samples:
        assert (set(sample.stages), sample.truth) == ({1}, None)
        assert (sample.multiset_overlap, sample.ordered_coverage) == ((), ())
    assert len(group.samples) == 3


def test_a_flat_model_writes_whole_texts(report):
    group = report("baseline=true").groups["unconditional"]
    assert [set(sample.stages) for sample in group.samples] == [{3}] * 3


@pytest.mark.parametrize("kind", ["unconditional", "conditional", "cascade", "judged"])
def test_left_at_any_moment(runs, make_run, judge, kind):
    """Between calls of the networks, of the judge too; nothing else is drawn or judged after it."""
    overrides = {
        "unconditional": ["stage=1"],
        "conditional": ["stage=2"],
        "cascade": ["stage=2", f"earlier_stages=['{runs}/stage1']"],
        "judged": ["stage=1", f"evaluation.judge='{judge}'"],
    }
    run, calls = make_run("sampling.num_steps=8", *overrides[kind]), []
    run.sample(5, lambda: calls.append("whole"))
    # Eight steps, the final denoising and the noise that they begin with; the cascade has three times as many.
    assert len(calls) >= {"cascade": 27, "judged": 10}.get(kind, 9)
    number = len(calls)

    def leave():
        calls.append("left")
        if calls.count("left") == number:
            raise KeyError("left")

    with pytest.raises(KeyError, match="left"):
        run.sample(5, leave)
    assert calls.count("left") == number


def test_true_prefixes(stories, tokenizer, tmp_path):
    """Prefix, sample and truth of the first windows, side by side, and the figures of these very texts."""
    config = tiny.config(stories, tmp_path / "run", "sampling.num_samples=3", "stage=2")
    run, (_, dataset) = assemble_run(config), stage_dataset(str(stories), config)
    found = run.sample(5)
    assert set(found.groups) == {"conditional", "truth"}
    prefix, truth = (torch.from_numpy(ids) for ids in dataset.batch(np.arange(3)))
    *_, last = run.sample.stage.states(
        prefix,
        predictor=predictor_from_name("euler"),
        num_steps=2,
        draws=Draws(0, "snapshot"),
        sample_index=torch.arange(3),
    )
    group = found.groups["conditional"]
    for number, ids in ((1, prefix), (2, last.xt)):
        assert [sample.stages[number] for sample in group.samples] == [tokenizer.decode(row) for row in ids.tolist()]
    assert [sample.truth for sample in group.samples] == [tokenizer.decode(row) for row in truth.tolist()]
    overlap, coverage = multiset_overlap_per_text(prefix, last.xt), ordered_coverage_per_text(prefix, last.xt)
    assert [sample.multiset_overlap for sample in group.samples] == [(share,) for share in overlap.tolist()]
    assert [sample.ordered_coverage for sample in group.samples] == [(share,) for share in coverage.tolist()]
    assert group.figures == {
        "multiset_overlap_mean_stage1_in_stage2": float(overlap.mean()),
        "ordered_coverage_mean_stage1_in_stage2": float(coverage.mean()),
        "token_entropy_nats_mean": float(token_entropy_nats_per_text(last.xt).mean()),
        **{name: distinct_share_and_error(last.xt, n)[0] for name, n in DISTINCT.items()},
    }
    assert found.groups["truth"] == SampleGroup(
        samples=(),
        figures={
            "token_entropy_nats_mean": float(token_entropy_nats_per_text(truth).mean()),
            **{name: distinct_share_and_error(truth, n)[0] for name, n in DISTINCT.items()},
        },
    )


def test_validation_windows_are_preferred(valid_stories, tokenizer, report, stories, tmp_path):
    found = report("stage=2", f"data.valid='{valid_stories}'").groups["conditional"]
    _, dataset = stage_dataset(str(valid_stories), tiny.config(stories, tmp_path, "stage=2"))
    _, truth = dataset.batch(np.arange(3))
    assert [sample.truth for sample in found.samples] == [tokenizer.decode(row) for row in truth.tolist()]


@pytest.mark.parametrize("names", ["list", "two keys"])
@pytest.mark.parametrize("predictor", ["euler", "first_hitting"])
def test_the_whole_cascade(runs, stories, tmp_path, predictor, names):
    """Stages 1 and 2 as they are on disk, stage 3 as it is in training; with the texts that `generate` would give."""
    folders = [str(runs / "stage1"), str(runs / "stage2")]
    named = {
        "list": [f"earlier_stages=[{','.join(folders)}]"],
        "two keys": [f"stage1_root_dir={folders[0]}", f"stage2_root_dir={folders[1]}"],
    }[names]
    settings = ["stage=3", "sampling.num_samples=3", f"sampling.predictor={predictor}", *named]
    run = assemble_run(tiny.config(stories, tmp_path / "run", *settings))
    found = run.sample(5)
    assert set(found.groups) == {"conditional", "truth", "unconditional"}
    before = Cascade.from_pretrained(folders)
    stage = run.sample.stage
    cascade = Cascade((*before.stages, stage), before.tokenizer, (4, 8, 40))
    samples = cascade.generate(3, steps=2 if predictor == "euler" else None, predictor=predictor, seed=0, batch_size=3)
    group = found.groups["unconditional"]
    assert [list(sample.stages.values()) for sample in group.samples] == [
        [texts[i] for texts in samples.texts] for i in range(3)
    ]
    for number, pair in enumerate(((0, 1), (1, 2)), start=1):
        ids = [samples.ids[k] for k in pair]
        name = f"mean_stage{number}_in_stage{number + 1}"
        overlap, coverage = multiset_overlap_per_text(*ids), ordered_coverage_per_text(*ids)
        assert [sample.multiset_overlap[number - 1] for sample in group.samples] == overlap.tolist()
        assert [sample.ordered_coverage[number - 1] for sample in group.samples] == coverage.tolist()
        assert group.figures[f"multiset_overlap_{name}"] == float(overlap.mean())
        assert group.figures[f"ordered_coverage_{name}"] == float(coverage.mean())


def test_stages_before_may_be_trained_meanwhile(stories, tmp_path, make_stage_1):
    """A snapshot is of the newest checkpoint of every stage."""
    first = make_stage_1(tmp_path / "stage1", num_steps=1)
    run = assemble_run(tiny.config(stories, tmp_path / "run", "stage=2", f"stage1_root_dir='{first}'"))
    before = run.sample(5)
    assert run.sample(5) == before
    make_stage_1(first, num_steps=6)
    after = run.sample(5)
    assert after.groups["conditional"] == before.groups["conditional"]
    assert after.groups["unconditional"] != before.groups["unconditional"]


@pytest.fixture
def make_stage_1(stories):
    def make(folder, *, num_steps, overrides=()):
        settings = ["sampling.num_samples=0", f"training.num_steps={num_steps}", "optim.lr=0.1", *overrides]
        list(assemble_run(tiny.config(stories, folder, *settings)).events())
        return folder

    return make


def test_judge(judge, report):
    """Its two perplexities are those of the texts without the ends of text that fill their windows."""
    found = report("stage=3", f"evaluation.judge='{judge}'")
    for kind, texts in (
        ("conditional", [sample.stages[3] for sample in found.groups["conditional"].samples]),
        ("truth", [sample.truth for sample in found.groups["conditional"].samples]),
    ):
        nats = Judge.load(str(judge)).token_nats([without_tail(text) for text in texts])
        figures = found.groups[kind].figures
        assert figures["generative_ppl_per_sequence"] == pytest.approx(float(ppl_per_text(nats).mean()), rel=1e-4)
        assert figures["generative_ppl_corpus"] == pytest.approx(ppl_corpus_and_error(nats)[0], rel=1e-4)
        errors = {"per_sequence": float(ppl_per_text(nats).std()) / 3**0.5, "corpus": ppl_corpus_and_error(nats)[1]}
        for name, error in errors.items():
            assert figures[f"generative_ppl_{name}_standard_error"] == pytest.approx(error, rel=1e-3)
        assert figures["num_judged_texts"] == 3
        assert figures["num_judged_tokens"] == sum(map(len, nats))
        assert figures["num_empty_texts"] == 0
    assert any(sample.truth.endswith(END_OF_TEXT) for sample in found.groups["conditional"].samples)


def without_tail(text):
    while text.endswith(END_OF_TEXT):
        text = text.removesuffix(END_OF_TEXT)
    return text


def test_judge_of_nothing(judge, stories, tokenizer, tmp_path):
    """A stage that has not learnt to write more than ends of text has no perplexity, and training goes on."""
    settings = [f"evaluation.judge='{judge}'", "sampling.num_samples=3", "model.parameterization=normalized"]
    run = assemble_run(tiny.config(stories, tmp_path / "run", *settings))
    with torch.no_grad():
        run.trainer.model.output_layer.linear.bias[tokenizer.eos_id] = 1e4
    run.trainer.model.eval()
    figures = run.sample(5).groups["unconditional"].figures
    assert figures == {
        "token_entropy_nats_mean": 0,
        # One token, pair and triple in three texts of four tokens.
        "distinct_unigram_share": pytest.approx(1 / 12),
        "distinct_bigram_share": pytest.approx(1 / 9),
        "distinct_trigram_share": pytest.approx(1 / 6),
        "num_empty_texts": 3,
        "num_judged_texts": 0,
        "num_judged_tokens": 0,
    }


def test_report_on_disk_and_as_an_event(stories, runs, tmp_path):
    run = assemble_run(tiny.config(stories, tmp_path / "run", "stage=2", f"stage1_root_dir='{runs / 'stage1'}'"))
    [snapshot] = [event for event in run.events() if isinstance(event, Snapshot)]
    report = snapshot.report
    assert report.step == 2
    stored = json.loads((tmp_path / "run" / "samples" / "step_2.json").read_text())
    assert stored == json.loads(json.dumps(dataclasses.asdict(report)))
    text = snapshot.samples.read_text()
    figures = report.figures()
    assert {name.partition("/")[0] for name in figures} == {"conditional", "truth", "unconditional"}
    assert all(isinstance(value, float) for value in figures.values())
    for name, value in figures.items():
        assert f"{name}: {value:.4g}" in text
    for kind in ("conditional", "unconditional"):
        [sample] = report.groups[kind].samples
        block = [f"{kind} 0", *(f"[stage {number}] {stage}" for number, stage in sample.stages.items())]
        assert "\n".join(block) in text
    assert f"[truth] {report.groups['conditional'].samples[0].truth}\n" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stage_lengths=[4,9,40]"],
            r"is stage 1 of lengths \[4, 9, 40\], and stage 1 of lengths \[4, 8, 40\]",
        ),
        (["baseline=true"], r"is a flat model of lengths \[4, 8, 40\], .*; give the stages just before stage 2"),
        (["stage=2"], r"is stage 2 of lengths .*, and stage 1 of lengths .* was expected"),
        (["data.unique=false"], r"with .* data.unique=false, and stage 2 has .* data.unique=true; train all"),
        (["data.packing=stream"], r"windows of packing 'stream', and stage 2 has .* 'document'; train all"),
    ],
)
def test_earlier_stages_that_do_not_fit(stories, tmp_path, make_stage_1, overrides, message):
    """Found when the run is assembled, not at its first snapshot."""
    first = make_stage_1(tmp_path / "first", num_steps=1, overrides=overrides)
    config = tiny.config(stories, tmp_path / "run", "stage=2")
    with pytest.raises(CheckpointError, match=message):
        assemble_run(dataclasses.replace(config, earlier_stages=(str(first),)))


def test_earlier_stages_of_another_method(stories, tmp_path, make_stage_1):
    """Their texts were chosen otherwise; `cdllm sample` would refuse the cascade at last."""
    first = make_stage_1(tmp_path / "first", num_steps=1)
    for file in first.glob("checkpoints/step_*/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"method": "tfidf"}))
        (file.parent / CHECKSUMS).unlink()
        write_checksums(file.parent)
    config = tiny.config(stories, tmp_path / "run", "stage=2")
    with pytest.raises(CheckpointError, match=r"texts that the method tfidf chose, and stage 2 has .* constituency"):
        assemble_run(dataclasses.replace(config, earlier_stages=(str(first),)))
