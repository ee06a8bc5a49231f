"""Stages trained on imperfect prefixes: from the configuration to checkpoints that say it, and to samples."""

import itertools
import json

import pytest
import torch

from cascaded_dllm.assemble.run import assemble_run, require_sound
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.study.budget import cost_of_step
from cascaded_dllm.train.meter import StepMeter
from cascaded_dllm.train.run_events import Snapshot
from cascaded_dllm.train.trainer import StepResult
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success

EVERYTHING = ("training.prefix_noise.prob=0.2", "training.prefix_noise.kind=mask", "training.prefix_dropout=0.2")


def generated(*folders, prob=0.7):
    paths = ",".join(str(folder) for folder in folders)
    return [f"training.generated_prefix.prob={prob}", f"training.generated_prefix.stage_paths=[{paths}]"]


def losses(run):
    return [event.loss_nats_per_token for event in run.events() if isinstance(event, StepResult)]


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.trainer.model.parameters()])


@pytest.fixture
def settings(runs):
    return ["stage=3", "training.num_steps=4", "sampling.num_samples=0", *EVERYTHING]


def test_generated_prefixes_are_trained_on(stories, runs, tmp_path, settings):
    """By one stage before or by several; it is another run than on true prefixes, and the same every time."""
    ways = {
        "true": [],
        "stage 2": generated(runs / "stage2"),
        "again": generated(runs / "stage2"),
        "both": generated(runs / "stage1", runs / "stage2"),
    }
    found = {
        name: losses(assemble_run(tiny.config(stories, tmp_path / name, *settings, *way))) for name, way in ways.items()
    }
    assert found["stage 2"] == found["again"]
    assert len({tuple(course) for course in found.values()}) == 3


@pytest.mark.parametrize("model", ["stage=1", "baseline=true"])
def test_noise_and_dropout_of_no_prefix(stories, tmp_path, model):
    """The same command line trains every stage."""
    plain = ["training.num_steps=4", "sampling.num_samples=0", model]
    noisy, true = (
        losses(assemble_run(tiny.config(stories, tmp_path / name, *way)))
        for name, way in (("noisy", [*plain, *EVERYTHING]), ("true", plain))
    )
    assert noisy == true


def test_accumulation_changes_nothing(stories, runs, tmp_path, settings):
    way = [*settings, *generated(runs / "stage2"), "optim.lr=1e-3", "optim.eps=1e-4"]
    whole, parts = (
        assemble_run(tiny.config(stories, tmp_path / str(accum), *way, f"training.accum={accum}")) for accum in (1, 4)
    )
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_bits(stories, runs, tmp_path, settings):
    way = [*settings, *generated(runs / "stage1", runs / "stage2"), "training.snapshot_every=2"]
    unbroken = assemble_run(tiny.config(stories, tmp_path / "unbroken", *way))
    list(unbroken.events())
    broken, resumed = (assemble_run(tiny.config(stories, tmp_path / "broken", *way)) for _ in range(2))
    for event in broken.events():
        if isinstance(event, Snapshot):
            break
    assert next(iter(resumed.events())).step == 2
    list(resumed.events())
    assert torch.equal(weights(resumed), weights(unbroken))


def test_models_that_have_gone_on_are_another_course(stories, tmp_path, settings):
    """Also under the same path; and the same models at another path are the same course."""
    first = tmp_path / "first"
    for steps in (1, 2):
        list(assemble_run(tiny.config(stories, first, "stage=2", f"training.num_steps={steps}")).events())
        config = tiny.config(stories, tmp_path / "run", *settings, *generated(first))
        run = assemble_run(config)
        if steps == 1:
            list(itertools.islice(run.events(), 3))
            list(assemble_run(config).events())
            moved = first.rename(tmp_path / "moved")
            same = assemble_run(tiny.config(stories, tmp_path / "run", *settings, *generated(moved)))
            assert same.trainer.course == run.trainer.course
            moved.rename(first)
    message = r"stage_paths \(fingerprint of their weights\) was \w{16} and is \w{16}; give the settings of the run's"
    with pytest.raises(CheckpointError, match=message):
        list(run.events())


def test_checkpoint_says_it(stories, runs, tmp_path, settings):
    way = [*settings, *generated(runs / "stage2"), "training.generated_prefix.level=0.4"]
    list(assemble_run(tiny.config(stories, tmp_path / "run", *way)).events())
    expected = PrefixSettings(noise_prob=0.2, noise_kind="mask", dropout=0.2, generated_prob=0.7, generated_level=0.4)
    assert load_stage(tmp_path / "run").settings.prefix == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rewriting_in_the_dtype_of_the_run(stories, runs, tmp_path, settings, dtype):
    run = assemble_run(tiny.config(stories, tmp_path / "run", *settings, *generated(runs / "stage2"), f"dtype={dtype}"))
    [stage] = run.trainer.objective.prefixes.generate.stages
    assert stage.model.compute_dtype == (torch.bfloat16 if dtype == "bfloat16" else None)
    assert len(losses(run)) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.generated_prefix.prob=0.1"],
            r"prob is 0\.1 and \S+\.stage_paths \[\]; give both",
        ),
        (
            ["training.generated_prefix.stage_paths=[a]"],
            r"is 0\.0 and training\.generated_prefix\.stage_paths \['a'\]; give",
        ),
        ([*generated("a", "b", "c")], "names 3 stages, and there are 2 before this one; name the stage just before it"),
        ([*generated("a"), "stage=1"], "names 1 stages, and there are 0 before this one"),
        ([*generated("a"), "baseline=true"], "names 1 stages, and there are 0 before this one"),
        (["training.prefix_noise.prob=2"], r"training\.prefix_noise\.prob is 2\.0; it must lie between 0 and 1"),
        (["training.prefix_noise.kind=swap"], "kind is 'swap'; it must be one of random, mask"),
        (["training.prefix_dropout=-1"], r"training\.prefix_dropout is -1\.0; it must lie between"),
        (
            ["graph.type=uniform", "model.scale_by_sigma=false", "training.prefix_dropout=0.1"],
            "graph.type uniform, which has no MASK to put in place",
        ),
        (
            ["training.generated_prefix.predictor=magic"],
            r"^training\.generated_prefix\.predictor is 'magic'; it must be one of",
        ),
    ],
)
def test_settings_that_make_no_run(tmp_path, overrides, message):
    """They are judged without data and without models."""
    with pytest.raises(ConfigError, match=message):
        require_sound(tiny.config(tmp_path / "no data", tmp_path / "run", "stage=3", *overrides))


def test_stages_that_cannot_write_the_prefix(stories, runs, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"is stage 1 of .*, and stage 2 of lengths .* the stages just before stage"
    ):
        assemble_run(tiny.config(stories, tmp_path / "run", "stage=3", *generated(runs / "stage1")))
    uniform = ["graph.type=uniform", "model.scale_by_sigma=false", "training.num_steps=1", "sampling.num_samples=0"]
    list(assemble_run(tiny.config(stories, tmp_path / "uniform", *uniform)).events())
    way = [*generated(tmp_path / "uniform"), "training.generated_prefix.predictor=first_hitting", "stage=2"]
    with pytest.raises(ConfigError, match=r"generated_prefix\.predictor first_hitting needs the absorbing process"):
        assemble_run(tiny.config(stories, tmp_path / "run", *way))
    # A stage of one process may learn from prefixes that one of the other wrote.
    way = [*generated(tmp_path / "uniform"), "stage=2", "sampling.num_samples=0"]
    assert len(losses(assemble_run(tiny.config(stories, tmp_path / "run", *way)))) == 2


def test_sampling_with_what_was_trained(stories, runs, tmp_path):
    """Guidance and noise from the command line; a stage that was not trained for them says what to do."""
    # Long enough for its output to depend on the prefix.
    learning = ["training.num_steps=60", "optim.lr=3e-2", "sampling.num_samples=0"]
    list(assemble_run(tiny.config(stories, tmp_path / "stage2", "stage=2", *learning, *EVERYTHING)).events())
    stages = ["--stage", runs / "stage1", "--stage", tmp_path / "stage2", "--num-samples", 8, "--device", "cpu"]
    texts = {}
    for name, flags in {
        "plain": [],
        "guided": ["--guidance", 20],
        "noised": ["--prefix-noise", 1],
    }.items():
        success("sample", *stages, *flags, "--output-dir", tmp_path / name)
        [folder] = (tmp_path / name).iterdir()
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["guidance"], summary["prefix_noise"]) == {"guided": (20, 0), "noised": (0, 1)}.get(name, (0, 0))
        assert summary["nfe_per_stage"] == [4, 16 if name == "guided" else 8]
        texts[name] = [(folder / f"sample_stage{number}.txt").read_text() for number in (1, 2)]
    assert len({first for first, _ in texts.values()}) == 1
    assert len({second for _, second in texts.values()}) == 3
    untrained = ["--stage", runs / "stage1", "--stage", runs / "stage2", "--output-dir", tmp_path / "none"]
    assert "train it with training.prefix_dropout=0.1" in failure("sample", *untrained, "--guidance", 1)
    assert "train it with training.prefix_noise.prob=0.1" in failure("sample", *untrained, "--prefix-noise", 0.1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("more", [[], ["model.parameterization=normalized", "model.copy_head=false"]])
def test_what_rewriting_costs_is_counted(stories, runs, tmp_path, more):
    """By a run as by the plan of a study: 8 tokens and a prefix of 4 for every call of stage 2, in 3 of 10 texts."""
    common = ["stage=3", "training.generated_prefix.num_steps=5", *more]
    costs = []
    for name, way in (("true", []), ("generated", generated(runs / "stage2", prob=0.3))):
        config = tiny.config(stories, tmp_path / name, *common, *way)
        trainer = assemble_run(config).trainer
        (step,) = itertools.islice(trainer.steps(), 1)
        meter = StepMeter(trainer, peak_flops=1.0)
        meter.add(step)
        line = meter.line(step)
        cost = cost_of_step(config, trainer.model.config.vocab_size)
        if not more:
            # The stage that rewrites is of the same kind as the one that is trained, as in a study.
            assert line["token_forwards"] == cost.token_forwards
            assert line["mfu"] * step.seconds == pytest.approx(cost.flops)
        costs.append(cost)
    true, rewritten = costs
    assert true.token_forwards == 4 * (8 + 40)
    calls = (rewritten.token_forwards - true.token_forwards) / (4 * 0.3 * (4 + 8))
    assert 1 < calls < 6
    # Forward alone, and for calls of fewer positions than those of training.
    assert 0 < rewritten.flops - true.flops < true.flops
