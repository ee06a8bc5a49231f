import dataclasses
import math

import numpy as np
import pytest
import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate import likelihood
from cascaded_dllm.evaluate.likelihood import (
    BoundSettings,
    JointBound,
    Sequential,
    StageBound,
    dataset_bound,
    mean_and_error,
    stage_bounds,
    unigram_nats,
)
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Objective

VOCAB_SIZE, LENGTHS = 9, (2, 5)
SETTINGS = BoundSettings(num_windows=6, num_times=3, batch_size=4, seed=0)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def arrays():
    """Random windows; the first stage has their first two tokens."""
    ids = np.random.default_rng(0).integers(0, VOCAB_SIZE, (6, 5), dtype=np.int32)
    return StageArrays(
        spec=CascadeSpec(LENGTHS),
        packing="document",
        method="constituency",
        eos_id=0,
        vocab_size=VOCAB_SIZE,
        tokenizer="by hand",
        fingerprint="by hand",
        dropped={},
        stages=(ids[:, :2], ids),
        positions=(np.tile(np.arange(2, dtype=np.int32), (6, 1)),),
    )


@pytest.fixture
def stages(arrays):
    """Two stages; the networks know nothing, their output weights are zero."""
    config = ScoreModelConfig(
        vocab_size=VOCAB_SIZE, hidden_size=8, num_heads=1, num_blocks=1, cond_dim=4, parameterization="normalized"
    )
    objective = Objective(AbsorbingProcess(VOCAB_SIZE), LogLinearSchedule(1e-3), 1e-3)
    return [(ScoreModel(config), objective, StageDataset(arrays, stage)) for stage in (1, 2)]


def test_mean_and_error():
    """By hand: the deviations of 1, 2, 6 from 3 have the sum of squares 14, so s = sqrt(7)."""
    mean, error = mean_and_error(double(1, 2, 6))
    assert mean == 3
    assert error == pytest.approx(math.sqrt(7 / 3))
    mean, error = mean_and_error(double(4))
    assert mean == 4
    assert math.isnan(error)


def test_joint_bound_is_the_sum_of_its_stages():
    bound = JointBound((StageBound(1, double(1, 2), 0.25, 3.0), StageBound(2, double(10, 30), 0.5, 40.0)), 5, 2)
    assert bound.is_whole
    assert bound.nll_nats.tolist() == [11, 32]
    assert bound.omitted_nats == 0.75
    assert bound.ppl == pytest.approx(math.exp(21.5 / 5))


def test_bits_per_character():
    bound = JointBound((StageBound(1, double(math.log(2), 3 * math.log(2)), 0.0, 1.0),), 5, 1, 16)
    assert bound.bits_per_character == pytest.approx(0.25)
    assert JointBound(bound.stages, 5, 1).bits_per_character is None
    assert JointBound(bound.stages, 5, 1, 0).bits_per_character is None


def test_token_by_token_beside_the_integral(stages):
    """Networks that know nothing pay log V for every token, in any order; the second one needs to see no time."""
    with pytest.raises(ConfigError, match="of the absorbing process writes in any order; leave --num-orders out"):
        list(stage_bounds(stages, dataclasses.replace(SETTINGS, sequential=Sequential(1, 2))))
    for model, _, _ in stages:
        model.config = dataclasses.replace(model.config, time_conditioning=False)
    bounds = list(stage_bounds(stages, dataclasses.replace(SETTINGS, sequential=Sequential(2, 4))))
    for bound, length in zip(bounds, LENGTHS, strict=True):
        expected = torch.full((4,), length * math.log(VOCAB_SIZE), dtype=torch.float64)
        torch.testing.assert_close(bound.sequential_nats, expected, rtol=1e-6, atol=0)
    # No more windows than are measured at all.
    few = stage_bounds(stages, dataclasses.replace(SETTINGS, num_windows=3, sequential=Sequential(1, 32)))
    assert [len(bound.sequential_nats) for bound in few] == [3, 3]
    joint = JointBound(tuple(bounds), 5, 2)
    assert joint.sequential_nats.tolist() == pytest.approx([7 * math.log(VOCAB_SIZE)] * 4)
    assert JointBound((bounds[0], StageBound(2, double(1), 0.0, 1.0)), 5, 2).sequential_nats is None
    for numbers in ((0, 4), (2, 0)):
        with pytest.raises(ConfigError, match="of the bound token by token is 0; it must be at least 1"):
            Sequential(*numbers)


def test_first_stages_of_a_longer_cascade_are_not_whole():
    assert not JointBound((StageBound(1, double(1, 2), 0.25, 3.0),), 2, 3).is_whole


def test_perplexity_of_a_network_that_broke_down():
    assert JointBound((StageBound(1, double(1e4), 0.0, 1.0),), 5, 1).ppl == math.inf


@pytest.mark.parametrize("t_min", [1e-3, 0.4])
def test_bound_of_networks_that_know_nothing(stages, t_min):
    """Every token costs log V where it is masked: log V times the integral of d move_prob over [t_min, 1]."""
    settings = dataclasses.replace(SETTINGS, num_times=100, t_min=t_min)
    for bound, length in zip(stage_bounds(stages, settings), LENGTHS, strict=True):
        expected = length * math.log(VOCAB_SIZE) * (1 - 1e-3) * (1 - t_min)
        mean = float(bound.nll_nats.mean())
        assert mean == pytest.approx(expected, rel=0.15)
        assert bound.nll_nats.shape == (6,)


def test_stages_are_numbered_and_omit_little(stages):
    """At most 0.1 % of the tokens are unmasked at t = 1 and 0.1 % are masked at t_min, log V each."""
    bounds = list(stage_bounds(stages, SETTINGS))
    assert [bound.stage for bound in bounds] == [1, 2]
    for bound, length in zip(bounds, LENGTHS, strict=True):
        assert bound.omitted_nats == pytest.approx(length * math.log(VOCAB_SIZE) * 2e-3, rel=1e-2)


@pytest.mark.parametrize("stage", [1, 2])
def test_bound_of_a_dataset(stages, stage):
    """It does not depend on the batches nor on the windows beside it, and leaves the network in its mode."""
    model, objective, dataset = stages[stage - 1]
    with torch.no_grad():
        model.output_layer.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    model.train()

    def bound(num_windows, batch_size, seed=0):
        sizes = {"num_windows": num_windows, "num_times": 3, "batch_size": batch_size}
        return dataset_bound(model, objective, dataset, **sizes, seed=seed).nll_nats

    whole = bound(100, 64)
    assert whole.shape == (6,)
    torch.testing.assert_close(bound(6, 4), whole, rtol=1e-5, atol=0)
    # A part is evenly spaced, and each of its windows has the bound that it has among all.
    torch.testing.assert_close(bound(3, 3), whole[[0, 2, 4]], rtol=1e-5, atol=0)
    torch.testing.assert_close(bound(4, 3), whole[[0, 1, 3, 4]], rtol=1e-5, atol=0)
    assert (bound(6, 64, seed=1) - whole).abs().min() > 0
    assert model.training


def test_windows_beyond_the_data_are_not_invented(stages):
    (bound, _) = stage_bounds(stages, dataclasses.replace(SETTINGS, num_windows=1000))
    assert len(bound.nll_nats) == 6


def test_does_not_depend_on_the_batch(stages):
    first, second = (
        JointBound(tuple(stage_bounds(stages, dataclasses.replace(SETTINGS, batch_size=size))), 5, 2).nll_nats
        for size in (1, 6)
    )
    torch.testing.assert_close(first, second, rtol=1e-5, atol=0)


def test_unigram_entropy(arrays: StageArrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of the tokens of three windows a half is 1, a third is 2 and a sixth is 3; also counted in parts."""
    targets = np.array([[1, 2], [1, 1], [2, 3]], dtype=np.int32)
    dataset = StageDataset(dataclasses.replace(arrays, spec=CascadeSpec((2,)), stages=(targets,), positions=()), 1)
    expected = 2 * (math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6)
    assert unigram_nats(dataset, np.arange(3)) == pytest.approx(expected)
    monkeypatch.setattr(likelihood, "_COUNTED_AT_ONCE", 2)
    assert unigram_nats(dataset, np.arange(3)) == pytest.approx(expected)
    # Of some windows: one token of each of two kinds, and one kind alone.
    assert unigram_nats(dataset, np.array([0])) == pytest.approx(2 * math.log(2))
    assert unigram_nats(dataset, np.array([1])) == 0


def test_unigram_entropy_of_a_placed_stage(arrays):
    """What the stage before has written is not paid for: its two tokens stand in front here."""
    _, counts = np.unique(arrays.stages[1][:, 2:], return_counts=True)
    share = counts / counts.sum()
    assert unigram_nats(StageDataset(arrays, 2, is_placed=True), np.arange(6)) == pytest.approx(
        -3 * (share * np.log(share)).sum()
    )


def test_progress_counts_windows_over_all_stages(stages):
    told = []
    list(stage_bounds(stages, SETTINGS, on_progress=lambda done, total: told.append((done, total))))
    assert told == [(4, 12), (6, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize("name", ["num_windows", "num_times", "batch_size"])
def test_numbers_below_one(name):
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        BoundSettings(**{name: 0})


def test_a_seed_that_is_no_number():
    with pytest.raises(ConfigError, match="seed is True; it must be a whole number"):
        BoundSettings(seed=True)


@pytest.mark.parametrize("t_min", [0.0, 1.0])
def test_integral_from_no_time(t_min):
    with pytest.raises(ConfigError, match=f"t_min is {t_min}; it must lie between 0 and 1, 0.001 is usual"):
        BoundSettings(t_min=t_min)


def test_half_precision_by_default(stages):
    """Times in bfloat16 would make other bounds without a word."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(ConfigError, match=r"torch's default dtype is torch\.bfloat16, which is too coarse for"):
            list(stage_bounds(stages, SETTINGS))
    finally:
        torch.set_default_dtype(torch.float32)
