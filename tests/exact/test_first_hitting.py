"""First hitting has the law of the small-step limit of Tweedie's sampler, by enumeration.

The oracle unmasks along all orders. It must be the data's law for exact conditionals, and the limit of the package's
Tweedie steps for tables that belong to no law, where the order of the tokens matters. That the package's own first
hitting has this law and the right times is tested in tests/statistical.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.numerics import log_expm1
from cascaded_dllm.sample.predictors import TweediePredictor, denoise_probs
from tests.reference import enumerate as oracle

V = 2


def limit_law(conditionals: Tensor, length: int, schedule: Schedule, num_steps: int) -> Tensor:
    """Law of the texts after `num_steps` Tweedie steps and the last one, for a network that gives `conditionals`.

    Steps are even in move_prob, so that the error is a power series in 1 / n whatever the schedule.
    """
    process = AbsorbingProcess(V)
    states = oracle.all_states(V + 1, length)
    moved = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]
    moved = moved * -torch.expm1(-schedule(torch.ones((), dtype=torch.float64)).sigma)
    times = schedule.time_at(-torch.log1p(-moved))
    law = torch.zeros(len(states), dtype=torch.float64)
    law[-1] = 1
    for k, time in enumerate(times):
        t = time.expand(len(states))
        sigma = schedule(t).sigma
        log_score = F.pad(conditionals.log() - log_expm1(sigma)[:, None, None], (0, 1))
        # The score at the current token is 1 by definition, which the table of conditionals does not know.
        log_score = log_score.scatter(-1, states[..., None], 0.0)
        if k == len(times) - 1:
            probs = denoise_probs(process, log_score, states, sigma)
        else:
            s = times[k + 1].expand(len(states))
            probs = TweediePredictor().step_probs(process, schedule, log_score, states, t, s)
        kernel = torch.ones(len(states), 1, dtype=torch.float64)
        for position in range(length):
            kernel = (kernel[:, :, None] * probs[:, position, None, :]).flatten(1)
        law = law @ kernel
    return law[(states < V).all(-1)]


def extrapolated(conditionals: Tensor, length: int, schedule: Schedule, coarsest: int, levels: int) -> Tensor:
    """Richardson's extrapolation of `limit_law` to infinitely many steps."""
    rows = [limit_law(conditionals, length, schedule, coarsest * 2**level) for level in range(levels)]
    for order in range(1, levels):
        rows = [(2**order * fine - coarse) / (2**order - 1) for coarse, fine in itertools.pairwise(rows)]
    return rows[0]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_any_order_of_exact_conditionals_is_the_law(length: int) -> None:
    law = oracle.random_law(V**length, seed=length)
    conditionals = oracle.exact_conditionals(law, V, length)
    torch.testing.assert_close(oracle.any_order_law(conditionals, V, length), law, rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), GeometricSchedule()])
@pytest.mark.parametrize("length", [2, 3])
def test_small_steps_are_first_hitting(length: int, schedule: Schedule) -> None:
    """Found: 3e-15 after extrapolation, total variation 0.03 before."""
    conditionals = oracle.random_conditionals(V, length, seed=length)
    expected = oracle.any_order_law(conditionals, V, length)
    found = extrapolated(conditionals, length, schedule, coarsest=8, levels=4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert oracle.total_variation(limit_law(conditionals, length, schedule, 8), expected) > 1e-3


def test_a_fixed_order_is_another_law() -> None:
    """Power: for such tables it matters that every order is equally likely."""
    length = 3
    conditionals = oracle.random_conditionals(V, length, seed=length)
    left_to_right = torch.ones(V**length, dtype=torch.float64)
    for i, text in enumerate(oracle.all_states(V, length).tolist()):
        for position in range(length):
            state = [*text[:position], *[V] * (length - position)]
            left_to_right[i] *= conditionals[oracle.index_of(state, V + 1), position, text[position]]
    assert oracle.total_variation(left_to_right, oracle.any_order_law(conditionals, V, length)) > 0.01
