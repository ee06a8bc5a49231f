"""Every way to read a network and every process is trained, stored, loaded and sampled, with every predictor."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.predictors import PREDICTORS, has_grid, predictor_from_name
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.train.run_events import Evaluation
from cascaded_dllm.train.trainer import StepResult
from tests.pipeline import tiny

READINGS = [
    pytest.param(*values, id="-".join(map(str, values)))
    for values in itertools.product(("score", "normalized"), (True, False), ("joint", "one_way"))
]
UNIFORM = ("graph.type=uniform", "noise.type=geometric", "model.scale_by_sigma=false")


def train(data: Path, valid: Path, folder: Path, *overrides: str) -> Path:
    """Two steps of a run; its numbers are finite and its weights have moved."""
    run = assemble_run(tiny.config(data, folder, f"data.valid='{valid}'", *overrides))
    before = [parameter.detach().clone() for parameter in run.trainer.model.parameters()]
    events = list(run.events())
    losses = [event.loss_nats_per_token for event in events if isinstance(event, StepResult)]
    bounds = [event.bound_nats_per_token for event in events if isinstance(event, Evaluation)]
    assert len(losses) == 2
    assert len(bounds) == 1
    assert all(0 < value < math.inf for value in losses + bounds)
    after = run.trainer.model.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return folder


def assert_texts(samples: CascadeSamples, lengths: tuple[int, ...], vocab_size: int) -> None:
    assert [tuple(ids.shape) for ids in samples.ids] == [(3, length) for length in lengths]
    for ids, texts in zip(samples.ids, samples.texts, strict=True):
        assert int(ids.min()) >= 0
        assert int(ids.max()) < vocab_size
        assert len(texts) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("parameterization", "time_conditioning", "prefix_attention"), READINGS)
def test_every_reading(stories, valid_stories, tmp_path, parameterization, time_conditioning, prefix_attention):
    settings = (
        f"model.parameterization={parameterization}",
        f"model.time_conditioning={str(time_conditioning).lower()}",
        f"model.prefix_attention={prefix_attention}",
    )
    stages = [train(stories, valid_stories, tmp_path / f"stage{k}", f"stage={k}", *settings) for k in (1, 2)]
    flat = train(stories, valid_stories, tmp_path / "flat", "baseline=true", *settings)
    cascade, single = Cascade.from_pretrained(stages), Cascade.from_pretrained([flat])
    loaded = cascade.stages[1].model.config
    assert loaded.parameterization == parameterization
    assert loaded.time_conditioning is time_conditioning
    assert loaded.prefix_attention == prefix_attention
    assert (cascade.is_flat, single.is_flat) == (False, True)
    for predictor in PREDICTORS:
        assert_texts(
            cascade.generate(3, steps=3 if has_grid(predictor_from_name(predictor)) else None, predictor=predictor),
            (4, 8),
            cascade.tokenizer.vocab_size,
        )
        assert_texts(
            single.generate(3, steps=3 if has_grid(predictor_from_name(predictor)) else None, predictor=predictor),
            (40,),
            cascade.tokenizer.vocab_size,
        )


@pytest.mark.parametrize("prefix_attention", ["joint", "one_way"])
def test_copy_head(stories, valid_stories, tmp_path, prefix_attention):
    """Beside a first stage without one, with guidance and with prefixes of which some tokens are missing."""
    reading = ("model.parameterization=normalized", f"model.prefix_attention={prefix_attention}")
    prefixes = (
        "training.prefix_dropout=0.3",
        "training.prefix_noise.prob=0.3",
        "training.prefix_noise.kind=mask",
    )
    first = train(stories, valid_stories, tmp_path / "stage1", "stage=1", *reading)
    second = train(stories, valid_stories, tmp_path / "stage2", "stage=2", *reading, *prefixes)
    cascade = Cascade.from_pretrained([first, second])
    assert [stage.model.config.copy_head for stage in cascade.stages] == [False, True]
    for predictor in PREDICTORS:
        steps = 3 if has_grid(predictor_from_name(predictor)) else None
        for options in ({}, {"guidance": 1.0, "prefix_noise": 0.5}):
            samples = cascade.generate(3, steps=steps, predictor=predictor, **options)
            assert_texts(samples, (4, 8), cascade.tokenizer.vocab_size)
    covered = cascade.generate(3, predictor="first_hitting", require_coverage=True)
    assert_texts(covered, (4, 8), cascade.tokenizer.vocab_size)


@pytest.mark.parametrize("prefix_attention", ["joint", "one_way"])
@pytest.mark.parametrize("time_conditioning", ["true", "false"])
def test_uniform_process(stories, valid_stories, tmp_path, time_conditioning, prefix_attention):
    settings = (
        *UNIFORM,
        f"model.time_conditioning={time_conditioning}",
        f"model.prefix_attention={prefix_attention}",
    )
    stages = [train(stories, valid_stories, tmp_path / f"stage{k}", f"stage={k}", *settings) for k in (1, 2)]
    cascade = Cascade.from_pretrained(stages)
    for predictor in ("euler", "analytic"):
        assert_texts(
            cascade.generate(3, steps=3 if has_grid(predictor_from_name(predictor)) else None, predictor=predictor),
            (4, 8),
            cascade.tokenizer.vocab_size,
        )
    with pytest.raises(ConfigError, match="predictor first_hitting needs the absorbing process, this model has the un"):
        cascade.generate(3, predictor="first_hitting")


@pytest.mark.parametrize(
    "settings",
    [
        ("noise.type=geometric", "training.accum=2"),
        ("model.scale_by_sigma=false",),
        ("model.dropout=0.2", "model.prefix_attention=one_way"),
        ("model.absolute_positions=true",),
        ("dtype=bfloat16",),
    ],
    ids=lambda settings: settings[0],
)
def test_other_settings(stories, valid_stories, tmp_path, settings):
    folder = train(stories, valid_stories, tmp_path / "run", *settings)
    cascade = Cascade.from_pretrained([folder])
    for predictor in PREDICTORS:
        assert_texts(
            cascade.generate(3, steps=3 if has_grid(predictor_from_name(predictor)) else None, predictor=predictor),
            (4,),
            cascade.tokenizer.vocab_size,
        )


def test_raw_weights_and_their_average_differ(stories, valid_stories, tmp_path):
    folder = train(stories, valid_stories, tmp_path / "run", "training.ema=0.999")
    models = [Cascade.from_pretrained([folder], weights=weights).stages[0].model for weights in ("ema", "raw")]
    assert not torch.equal(models[0].output_layer.linear.weight, models[1].output_layer.linear.weight)


def test_uniform_process_has_no_snapshots_by_first_hitting(stories, tmp_path):
    """Known before the first step, not at the first snapshot."""
    config = tiny.config(stories, tmp_path / "run", *UNIFORM, "sampling.predictor=first_hitting")
    with pytest.raises(ConfigError, match=r"first_hitting needs the absorbing process"):
        assemble_run(config)
    assert not (tmp_path / "run").exists()
