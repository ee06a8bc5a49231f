"""Guided texts against the guided law, enumerated: 20,000 texts of a network that answers from two tables.

One table holds its conditionals with the prefix, the other with an empty one. At every state with masks the guided law
of a token is p(y | prefix)^(1 + w) / p(y)^w, normalised; when a position leaves MASK is as without guidance.
"""

from typing import Literal

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
from cascaded_dllm.model.copy_head import States
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import Prefix
from cascaded_dllm.sample.predictors import EulerPredictor, FirstHittingPredictor, Predictor, TweediePredictor
from cascaded_dllm.sample.sampler import StageSampler
from tests.reference import enumerate as oracle
from tests.statistical.chi_square import fits, is_refuted
from tests.statistical.table_network import TableNetwork, from_table

V, L, NUM_TEXTS, WEIGHT = 3, 2, 20_000, 0.8
GIVEN, FREE = (oracle.random_conditionals(V, L, seed=seed) for seed in (31, 32))
SCHEDULE = GeometricSchedule(0.02, 2.5)
Reading = Literal["score", "normalized"]
EACH_READING = pytest.mark.parametrize("reading", ["score", "normalized"])


class GuidedTableNetwork(TableNetwork):
    """Reads `FREE` where the prefix is nothing but MASK, and `GIVEN` elsewhere."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(from_table(GIVEN), V, reading)
        self.is_empty: list[bool] = []

    def states(
        self,
        xt: Tensor,
        sigma: Tensor,
        prefix: Tensor | Prefix | None = None,
        *,
        rows: Rows | None = None,
        dropout_words: Tensor | None = None,
    ) -> States:
        assert isinstance(prefix, Prefix)
        self.is_empty.append(bool((prefix.ids == V).all()))
        self.conditionals = from_table(FREE if self.is_empty[-1] else GIVEN)
        return super().states(xt, sigma, prefix, rows=rows)


def guided(weight: float) -> Tensor:
    """The table of the guided law."""
    table = GIVEN ** (1 + weight) / FREE**weight
    return table / table.sum(-1, keepdim=True)


def sampled(predictor: Predictor, reading: Reading, weight: float) -> tuple[Tensor, GuidedTableNetwork]:
    network = GuidedTableNetwork(reading)
    schedule = LogLinearSchedule() if isinstance(predictor, FirstHittingPredictor) else SCHEDULE
    sampler = StageSampler(network, AbsorbingProcess(V), schedule, L, trained_with=PrefixSettings(dropout=0.1))
    *_, last = sampler.states(
        torch.zeros(NUM_TEXTS, 4, dtype=torch.int64),
        predictor=predictor,
        num_steps=4,
        draws=Draws(2, "guided"),
        sample_index=torch.arange(NUM_TEXTS),
        guidance=weight,
    )
    return torch.bincount(last.xt @ torch.tensor([V, 1]), minlength=V**L), network


@EACH_READING
def test_first_hitting(reading: Reading) -> None:
    found, network = sampled(FirstHittingPredictor(), reading, WEIGHT)
    assert fits(found, oracle.any_order_law(guided(WEIGHT), V, L))
    # Power: without guidance, and with half of it or twice as much, the law is another one.
    for other in (0.0, WEIGHT / 2, 2 * WEIGHT):
        assert is_refuted(found, oracle.any_order_law(guided(other), V, L))
    assert network.is_empty == [False, True] * L


@EACH_READING
@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor()], ids=["euler", "analytic"])
def test_grid(predictor: EulerPredictor | TweediePredictor, reading: Reading) -> None:
    """In steps in which several tokens appear at once; how many is not guided."""
    times = torch.linspace(1, 1e-5, 5, dtype=torch.float64)
    sigma, dsigma = SCHEDULE(times)
    moved = -torch.expm1(-sigma)
    leave = 1 - moved[1:] / moved[:-1]
    if isinstance(predictor, EulerPredictor):
        leave = (times[:-1] - times[1:]) * (dsigma / torch.expm1(sigma))[:-1]
    found, _ = sampled(predictor, reading, WEIGHT)
    assert fits(found, oracle.grid_law(guided(WEIGHT), leave.tolist(), V, L))
    assert is_refuted(found, oracle.grid_law(GIVEN, leave.tolist(), V, L))
    assert is_refuted(found, oracle.any_order_law(guided(WEIGHT), V, L))


@EACH_READING
@pytest.mark.parametrize("predictor", [TweediePredictor(), FirstHittingPredictor()], ids=["analytic", "first_hitting"])
def test_no_guidance_asks_once(predictor: Predictor, reading: Reading) -> None:
    found, network = sampled(predictor, reading, 0.0)
    assert not any(network.is_empty)
    if isinstance(predictor, FirstHittingPredictor):
        assert fits(found, oracle.any_order_law(GIVEN, V, L))
