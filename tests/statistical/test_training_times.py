"""Times of a step are spread evenly over the global batch: each alone is uniform, and the loss stays unbiased.

Both are shown over many steps against the same quantities of a faulty spread, which must be told apart.
"""

import math

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Batch, Objective
from tests.statistical.chi_square import fits, is_refuted

V, L, BATCH, T_MIN = 4, 256, 4, 0.05
NUM_STEPS = 200
CELLS = 40
EVEN = torch.full((CELLS,), 1 / CELLS, dtype=torch.float64)
SCHEDULE = GeometricSchedule(0.3, 3.0)
DRAWS = Draws(7, "train-noise")
EACH_SPREAD = pytest.mark.parametrize("parts", [1, 4])


def times(num_steps: int) -> Tensor:
    """Of the whole global batch of every step, (steps, BATCH), as `Objective.loss` makes them."""
    zero, steps = torch.zeros(num_steps, dtype=torch.int64), torch.arange(num_steps)
    shift, _ = DRAWS.uniform_pair(zero, steps, zero + L)
    return torch.stack([low_discrepancy_times(shift, zero + place, BATCH, T_MIN) for place in range(BATCH)], -1)


def cells(t: Tensor) -> Tensor:
    return torch.bincount(((t.double() - T_MIN) / (1 - T_MIN) * CELLS).long().clamp(0, CELLS - 1), minlength=CELLS)


@pytest.fixture(scope="module")
def every_time() -> Tensor:
    return times(20_000)


def test_each_time_is_uniform(every_time: Tensor) -> None:
    """Of the first sequence, of the last, and so of any: none of them sees small or large times only."""
    for place in (0, BATCH - 1):
        assert fits(cells(every_time[:, place]), EVEN)
    # Power: without the common shift a sequence would see its own quarter of the interval for ever.
    within = T_MIN + (every_time[:, 0] - T_MIN) / BATCH
    assert is_refuted(cells(within), EVEN)
    squeezed = T_MIN + (1 - T_MIN) * ((every_time[:, 0].double() - T_MIN) / (1 - T_MIN)) ** 1.1
    assert is_refuted(cells(squeezed), EVEN)


def test_together_they_cover_the_interval(every_time: Tensor) -> None:
    """One in every quarter, in every step."""
    quarters = ((every_time.double() - T_MIN) / (1 - T_MIN) * BATCH).long().clamp(0, BATCH - 1)
    # A time on the border of two quarters may be rounded into the wrong one.
    is_complete = (quarters.sort(-1).values == torch.arange(BATCH)).all(-1)
    assert is_complete.double().mean() > 0.999


def network() -> ScoreModel:
    """It knows nothing: a masked token costs log V / expm1(sigma) nats."""
    config = ScoreModelConfig(
        vocab_size=V, hidden_size=8, num_heads=1, num_blocks=1, cond_dim=4, parameterization="normalized"
    )
    return ScoreModel(config).eval()


def losses(num_parts: int) -> Tensor:
    """The loss of the global batch of every step, in parts as accumulation and processes make them."""
    model, objective = network(), Objective(AbsorbingProcess(V), SCHEDULE, T_MIN)
    target = torch.randint(V, (BATCH, L), generator=torch.Generator().manual_seed(0))
    found = torch.zeros(NUM_STEPS, dtype=torch.float64)
    with torch.inference_mode():
        for step in range(NUM_STEPS):
            for rows in torch.arange(BATCH).split(BATCH // num_parts):
                batch = Batch(target[rows], None, rows)
                found[step] += float(objective.loss(model, batch, draws=DRAWS, step=step, global_batch_size=BATCH))
    return found


def expected() -> float:
    """The mean over t in (t_min, 1] of dsigma / expm1(sigma) * P(masked) * L log V, in closed form.

    P(masked) = 1 - exp(-sigma) cancels against expm1(sigma) but for exp(-sigma), whose integral with dsigma is known.
    """
    sigma = SCHEDULE(torch.tensor([T_MIN, 1.0], dtype=torch.float64)).sigma
    survived = torch.exp(-sigma)
    return float(survived[0] - survived[1]) * L * math.log(V) / (1 - T_MIN)


@EACH_SPREAD
def test_loss_is_unbiased(parts: int) -> None:
    """Within 5 standard errors of the integral, each of which is less than a 250th of it."""
    found = losses(parts)
    error = float(found.std()) / math.sqrt(NUM_STEPS)
    assert error < 4e-3 * expected()
    assert abs(float(found.mean()) - expected()) < 5 * error
    # Power: the error is small enough to see what a spread without its common shift would do, which takes the left
    # ends of the strata, the latest times, in every step.
    t = 1 - torch.arange(BATCH, dtype=torch.float64) / BATCH * (1 - T_MIN)
    sigma, dsigma = SCHEDULE(t)
    faulty = float((dsigma * torch.exp(-sigma)).mean()) * L * math.log(V)
    assert abs(faulty - expected()) > 10 * error


def test_loss_varies_less_than_with_independent_times() -> None:
    """The reason for the spread: of the expected loss given the times, the part of the variance that times cause."""
    generator = torch.Generator().manual_seed(0)
    spread = times(4_000).double()
    independent = T_MIN + (1 - T_MIN) * torch.rand(4_000, BATCH, generator=generator, dtype=torch.float64)
    variances = []
    for t in (spread, independent):
        sigma, dsigma = SCHEDULE(t)
        variances.append(float((dsigma * torch.exp(-sigma)).mean(-1).var()))
    assert variances[0] < 0.1 * variances[1]
