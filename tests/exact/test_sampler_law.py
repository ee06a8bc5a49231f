"""The law of a whole sampling run, as a product of matrices: with the exact score it approaches the data's law.

Every step of a predictor is a kernel over all states, the product over positions of its probabilities. The remaining
error is that positions move independently within a step, so total variation halves as the number of steps doubles.
A wrong order of times, an s off by one or a wrong last step show at once.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess, Process, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.sample.predictors import EulerPredictor, ScorePredictor, TweediePredictor, denoise_probs
from tests.reference import enumerate as oracle

V, L = 3, 2
LAW = oracle.random_law(V**L, seed=1)
T_END = 1e-5
ScoreOf = Callable[[Tensor, float], Tensor]


def exact_score(law: Tensor, sigma: float) -> Tensor:
    num_states = round(len(law) ** (1 / L))
    rates = oracle.uniform_rates(V) if num_states == V else oracle.absorbing_rates(V)
    return oracle.scores(law @ oracle.joint_kernel(rates, sigma, L), num_states, L)


def chain(name: str, schedule: Schedule) -> tuple[Process, Tensor, Tensor]:
    """The process, the law of the data over its states, and the law that sampling starts from."""
    if name == "absorbing":
        start = torch.zeros((V + 1) ** L, dtype=torch.float64)
        start[-1] = 1
        return AbsorbingProcess(V), oracle.with_mask(LAW, V, L), start
    # The sampler starts from uniform noise; what t = 1 still knows of the data is a separate, fixed error, left out.
    sigma = float(schedule(torch.ones((), dtype=torch.float64)).sigma)
    return UniformProcess(V), LAW, LAW @ oracle.joint_kernel(oracle.uniform_rates(V), sigma, L)


def laws(
    name: str, schedule: Schedule, predictor: ScorePredictor, num_steps: int, score_of: ScoreOf = exact_score
) -> Iterator[Tensor]:
    """The law after every step, the last of which is the final denoising."""
    process, data, law = chain(name, schedule)
    states = oracle.all_states(process.num_states, L)
    times = torch.linspace(1, T_END, num_steps + 1, dtype=torch.float64)
    for k, time in enumerate(times):
        t = time.expand(len(states))
        log_score = score_of(data, float(schedule(time).sigma)).log()
        if k == num_steps:
            probs = denoise_probs(process, log_score, states, schedule(t).sigma)
        else:
            probs = predictor.step_probs(process, schedule, log_score, states, t, times[k + 1].expand(len(states)))
        assert probs.min() > -1e-12, "the step is too long for Euler"
        law = law @ (probs[:, 0, :, None] * probs[:, 1, None, :]).flatten(1)
        yield law


def sampled_law(
    name: str, schedule: Schedule, predictor: ScorePredictor, num_steps: int, score_of: ScoreOf = exact_score
) -> Tensor:
    *_, law = laws(name, schedule, predictor, num_steps, score_of)
    return law


def errors(name: str, schedule: Schedule, predictor: ScorePredictor, step_counts: list[int]) -> list[float]:
    data = chain(name, schedule)[1]
    return [oracle.total_variation(sampled_law(name, schedule, predictor, n), data) for n in step_counts]


# Euler's step is only a probability where dt * rate < 1: it needs a milder end of the schedule and more steps.
CASES = [
    ("absorbing", LogLinearSchedule(), EulerPredictor(), [2, 4, 8, 16, 32, 64]),
    ("absorbing", LogLinearSchedule(), TweediePredictor(), [2, 4, 8, 16, 32, 64]),
    ("absorbing", GeometricSchedule(), TweediePredictor(), [16, 32, 64, 128]),
    ("absorbing", GeometricSchedule(), EulerPredictor(), [128, 256]),
    ("uniform", LogLinearSchedule(), TweediePredictor(), [4, 8, 16, 32, 64]),
    ("uniform", LogLinearSchedule(0.1), EulerPredictor(), [16, 32, 64, 128]),
]


@pytest.mark.parametrize(("name", "schedule", "predictor", "step_counts"), CASES)
def test_error_halves_as_steps_double(
    name: str, schedule: Schedule, predictor: ScorePredictor, step_counts: list[int]
) -> None:
    found = errors(name, schedule, predictor, step_counts)
    assert found[-1] < 0.017
    for coarse, fine in itertools.pairwise(found):
        assert 1.9 < coarse / fine < 2.1, found


def test_laws_sum_to_one() -> None:
    """Tweedie's step is normalised for exact scores only, which makes its sum a test of the scores."""
    for name in ("absorbing", "uniform"):
        total = sampled_law(name, LogLinearSchedule(), TweediePredictor(), 16).sum()
        assert abs(float(total) - 1) < 1e-9


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), GeometricSchedule(0.01, 8.0)])
def test_masks_vanish_on_time(schedule: Schedule) -> None:
    """From all MASK at t = 1, a position is still MASK at s with probability move_prob(s) / move_prob(1)."""
    times = torch.linspace(1, T_END, 9, dtype=torch.float64)
    move_prob = -torch.expm1(-schedule(times).sigma)
    has_mask_first = oracle.all_states(V + 1, L)[:, 0] == V
    found = list(laws("absorbing", schedule, TweediePredictor(), 8))
    for k, law in enumerate(found[:-1]):
        expected = float(move_prob[k + 1] / move_prob[0])
        assert math.isclose(float(law[has_mask_first].sum()), expected, rel_tol=0, abs_tol=1e-12)
    assert float(found[-1][has_mask_first].sum()) == 0.0


@pytest.mark.parametrize("name", ["absorbing", "uniform"])
def test_a_wrong_score_shows(name: str) -> None:
    """Power: scores of another law do not lead to the data, nor do those of another time under the uniform process.

    Under the absorbing process a wrong time changes the speed alone, which the test above sees.
    """

    def of_another_law(law: Tensor, sigma: float) -> Tensor:
        other = law.clone()
        other[law > 0] = law[law > 0].flip(0)
        return exact_score(other, sigma)

    def of_another_time(law: Tensor, sigma: float) -> Tensor:
        return exact_score(law, 1.15 * sigma)

    schedule = LogLinearSchedule()
    data = chain(name, schedule)[1]
    right = oracle.total_variation(sampled_law(name, schedule, TweediePredictor(), 64), data)
    for wrong in (of_another_law, of_another_time) if name == "uniform" else (of_another_law,):
        found = sampled_law(name, schedule, TweediePredictor(), 64, wrong)
        assert oracle.total_variation(found / found.sum(), data) > 3 * right
