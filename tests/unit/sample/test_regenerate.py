"""Rewritten prefixes: near the true ones, the same in any batch, and written by the stages one after another."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess, process_from_name
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.regenerate import PrefixRegenerator, weights_fingerprint
from cascaded_dllm.sample.sampler import StageSampler
from tests.statistical.chi_square import fits, is_refuted
from tests.unit.model.tiny import VOCAB, tiny_model

LENGTHS, NUM_WINDOWS = (3, 5, 8), 40
TEXTS = [np.random.default_rng(k).integers(0, VOCAB, (NUM_WINDOWS, n), dtype=np.int32) for k, n in enumerate(LENGTHS)]
WINDOW, INDEX = torch.tensor([7, 0, 31, 7]), torch.tensor([4, 5, 6, 7])
PREDICTORS = ("euler", "analytic", "first_hitting")


def stage(number: int, **options: Any) -> StageSampler:
    model = tiny_model(seed=number, **options)
    return StageSampler(
        model,
        process_from_name(model.config.process, VOCAB),
        LogLinearSchedule(),
        LENGTHS[number - 1],
        prefix_length=LENGTHS[number - 2] if number > 1 else 0,
    )


def regenerator(
    first: int, last: int, *, level: float = 0.6, predictor: str = "analytic", **options: Any
) -> PrefixRegenerator:
    return PrefixRegenerator(
        stages=tuple(stage(number, **options) for number in range(first, last + 1)),
        texts=tuple(TEXTS[first - 1 : last]),
        context=TEXTS[first - 2] if first > 1 else None,
        level=level,
        predictor=predictor_from_name(predictor),
        num_steps=4,
        fingerprint="by hand",
    )


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 2), (1, 2), (1, 3)])
def test_prefixes_of_the_stage_before(first: int, last: int, predictor: str) -> None:
    found = regenerator(first, last, predictor=predictor)(WINDOW, INDEX, 3, 1)
    assert found.shape == (4, LENGTHS[last - 1])
    assert found.min() >= 0
    assert found.max() < VOCAB
    truth = torch.from_numpy(TEXTS[last - 1])[WINDOW]
    assert 0 < int((found != truth).sum()) < found.numel()
    # The same window at another place of the batch is rewritten in another way.
    assert not torch.equal(found[0], found[3])


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_prefix_does_not_see_its_batch(predictor: str) -> None:
    rewrite = regenerator(1, 2, predictor=predictor)
    together = rewrite(WINDOW, INDEX, 3, 1)
    for rows in ([2], [3, 0]):
        assert torch.equal(rewrite(WINDOW[rows], INDEX[rows], 3, 1), together[rows])


def test_step_place_and_seed_decide() -> None:
    rewrite = regenerator(2, 2)
    first = rewrite(WINDOW, INDEX, 3, 1)
    assert torch.equal(first, rewrite(WINDOW, INDEX, 3, 1))
    for other in ((WINDOW, INDEX, 4, 1), (WINDOW, INDEX, 3, 2), (WINDOW, INDEX + 4, 3, 1)):
        assert not torch.equal(first, rewrite(*other))


def test_level_zero_gives_the_truth() -> None:
    found = regenerator(1, 2, level=0.0)(WINDOW, INDEX, 3, 1)
    assert torch.equal(found, torch.from_numpy(TEXTS[1]).long()[WINDOW])


def test_the_uniform_process() -> None:
    found = regenerator(2, 2, process="uniform", scale_by_sigma=False)(WINDOW, INDEX, 3, 1)
    assert found.max() < VOCAB


@dataclasses.dataclass(frozen=True)
class SpyProcess(AbsorbingProcess):
    """Writes down the noise it was asked for."""

    asked: list[Tensor] = dataclasses.field(default_factory=list)

    def sample_xt(self, x0: Tensor, sigma: Tensor, u: tuple[Tensor, Tensor]) -> Tensor:
        self.asked.append(sigma)
        return super().sample_xt(x0, sigma, u)


@pytest.mark.parametrize("level", [0.4, 1.0])
def test_share_is_uniform_up_to_the_level(level: float) -> None:
    """Among 4,000 prefixes; both stages of one prefix are noised alike."""
    rewrite, spies = regenerator(1, 2, level=level, predictor="analytic"), (SpyProcess(VOCAB), SpyProcess(VOCAB))
    stages = tuple(dataclasses.replace(one, process=spy) for one, spy in zip(rewrite.stages, spies, strict=True))
    rewrite = dataclasses.replace(rewrite, stages=stages, num_steps=1)
    index = torch.arange(4_000)
    rewrite(index % NUM_WINDOWS, index, 0, 0)
    [sigma], [other] = (spy.asked for spy in spies)
    assert torch.equal(sigma, other)
    share = -torch.expm1(-sigma.double())
    counts = torch.bincount((share / level * 20).long().clamp_max(19), minlength=20)
    assert fits(counts, torch.full((20,), 1 / 20, dtype=torch.float64))
    squeezed = torch.bincount(((share / level) ** 1.4 * 20).long().clamp_max(19), minlength=20)
    assert is_refuted(squeezed, torch.full((20,), 1 / 20, dtype=torch.float64))


def test_each_stage_is_given_what_the_one_before_wrote() -> None:
    """With the first stage replaced, what the second writes changes; with another context, the first one does."""
    rewrite = regenerator(2, 3, level=1.0)
    before = rewrite(WINDOW, INDEX, 3, 1)
    other_first = dataclasses.replace(stage(2), model=tiny_model(seed=77))
    assert not torch.equal(
        before, dataclasses.replace(rewrite, stages=(other_first, rewrite.stages[1]))(WINDOW, INDEX, 3, 1)
    )
    assert rewrite.context is not None
    other_context = dataclasses.replace(rewrite, context=(rewrite.context + 1) % VOCAB)
    assert not torch.equal(before, other_context(WINDOW, INDEX, 3, 1))


def test_fingerprint_is_of_the_weights() -> None:
    first, second = tiny_model(seed=1), tiny_model(seed=1)
    assert weights_fingerprint([first]) == weights_fingerprint([second])
    with torch.no_grad():
        next(second.parameters())[0] += 1e-6
    prints = {weights_fingerprint(models) for models in ([first], [second], [first, second], [second, first])}
    assert len(prints) == 4
    assert all(len(found) == 16 for found in prints)
