"""The calls that rewriting is expected to take are those that it takes, on average over many texts."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.assemble.rewriting import Writer, rewriting_cost
from cascaded_dllm.config_groups import GeneratedPrefixSettings
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.expected_calls import expected_calls
from cascaded_dllm.sample.predictors import SurestPredictor, predictor_from_name
from cascaded_dllm.sample.regenerate import PrefixRegenerator
from cascaded_dllm.sample.sampler import StageSampler
from tests.unit.model.tiny import SIZES, VOCAB

LENGTHS, NUM = (4, 7), 3000
TEXTS = tuple(np.random.default_rng(n).integers(0, VOCAB, (NUM, n), dtype=np.int32) for n in LENGTHS)

WAYS: list[tuple[str, dict[str, Any], Schedule]] = [
    ("analytic", {}, LogLinearSchedule()),
    ("euler", {}, GeometricSchedule()),
    ("analytic", {"parameterization": "normalized"}, LogLinearSchedule()),
    ("euler", {"parameterization": "normalized", "prefix_attention": "one_way"}, GeometricSchedule()),
    ("ancestral", {"prefix_attention": "one_way"}, LogLinearSchedule()),
    ("remask", {}, LogLinearSchedule()),
    ("first_hitting", {"prefix_attention": "one_way"}, LogLinearSchedule()),
    ("confidence", {}, LogLinearSchedule()),
    ("analytic", {"process": "uniform", "scale_by_sigma": False}, GeometricSchedule()),
]


class Counter:
    """Counts positions that go through the blocks of networks."""

    def __init__(self) -> None:
        self.positions = 0.0

    def watch(self, model: ScoreModel) -> None:
        states, encode = model.states, model.encode_prefix
        config = model.config

        def counted_states(xt, sigma, prefix=None, **more):
            self.count(config, xt, prefix)
            return states(xt, sigma, prefix, **more)

        def counted_encoding(prefix, target_length, **more):
            if config.prefix_attention != "joint":
                self.positions += prefix.numel()
            return encode(prefix, target_length, **more)

        model.states, model.encode_prefix = counted_states, counted_encoding

    def count(self, config: ScoreModelConfig, xt: torch.Tensor, prefix: Any) -> None:
        is_joint = prefix is not None and config.prefix_attention == "joint"
        self.positions += len(xt) * (xt.shape[1] + (LENGTHS[0] if is_joint else 0))


@pytest.mark.slow
@pytest.mark.parametrize(("predictor", "network", "schedule"), WAYS)
@pytest.mark.parametrize("level", [0.3, 1.0])
def test_positions_are_those_that_are_computed(
    predictor: str, network: dict[str, Any], schedule: Schedule, level: float
) -> None:
    """By two stages, of which the second one has a prefix. New networks have the rates that they are to learn."""
    config = ScoreModelConfig(**(SIZES | {"num_blocks": 1} | network))
    counter = Counter()
    samplers = []
    for number, length in enumerate(LENGTHS):
        model = ScoreModel(config).eval()
        counter.watch(model)
        process = process_from_name(config.process, VOCAB)
        samplers.append(StageSampler(model, process, schedule, length, prefix_length=(0, LENGTHS[0])[number]))
    settings = GeneratedPrefixSettings(prob=1.0, stage_paths=(), level=level, predictor=predictor, num_steps=5)
    rewrite = PrefixRegenerator(
        stages=tuple(samplers),
        texts=TEXTS,
        context=None,
        level=level,
        predictor=predictor_from_name(predictor),
        num_steps=5,
        fingerprint="by hand",
    )
    index = torch.arange(NUM)
    rewrite(index, index, 0, 1)
    writers = [Writer(config, schedule, *sizes) for sizes in ((LENGTHS[0], 0), (LENGTHS[1], LENGTHS[0]))]
    expected = rewriting_cost(writers, settings)
    # At most 7 calls of 4 + 11 positions a text, which scatter by less than a quarter of that: four standard errors.
    assert counter.positions / NUM == pytest.approx(expected.token_forwards, abs=4 * 105 / 4 / math.sqrt(NUM))
    assert 3 < expected.token_forwards < 105
    assert expected.flops > 0


def test_calls_by_hand() -> None:
    """One token, which noise takes half of the time: a call then; and one in every step of the uniform process."""
    options: dict[str, Any] = {"length": 1, "level": 1.0, "t_end": 1e-5, "num_steps": 3, "is_normalized": True}
    absorbing, uniform = (process_from_name(name, VOCAB) for name in ("absorbing", "uniform"))
    for name in ("analytic", "euler", "ancestral", "first_hitting", "confidence"):
        found = expected_calls(absorbing, LogLinearSchedule(), predictor=predictor_from_name(name), **options)
        assert found == pytest.approx((0.5, 0.5), abs=2e-3)
    found = expected_calls(uniform, LogLinearSchedule(), predictor=predictor_from_name("euler"), **options)
    assert found == (4, 4)


def test_several_tokens_a_call() -> None:
    """All 5 tokens are noised, up to rounding: calls of 2, 2 and 1 tokens, which ask about 5 + 3 + 1 positions."""
    found = expected_calls(
        process_from_name("absorbing", VOCAB),
        LogLinearSchedule(),
        length=5,
        is_normalized=True,
        predictor=SurestPredictor("entropy", 2),
        num_steps=1,
        level=1.0,
        t_end=1e-5,
    )
    # Shares from 0 to 1: the mean over the number of noised tokens, each of 0 ... 5 being equally likely.
    calls, rows = [0, 1, 1, 2, 2, 3], [0, 1, 2, 3 + 1, 4 + 2, 5 + 3 + 1]
    assert found == pytest.approx((sum(calls) / 6, sum(rows) / 6), rel=5e-3)
