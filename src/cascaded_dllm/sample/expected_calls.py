"""How many network calls it takes on average to rewrite a text in part, computed before anything is written."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from cascaded_dllm.diffusion.process import Process, UniformProcess
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.sample.absorbing import leave_probs, time_grid
from cascaded_dllm.sample.predictors import FirstHittingPredictor, Predictor, RemaskPredictor, SurestPredictor
from cascaded_dllm.sample.state import Start

_GRID = 512
"""Number of noise shares that the mean is taken over."""


class ExpectedCalls(NamedTuple):
    """The expected calls of one text.

    Attributes:
        calls: network calls in which the text takes part.
        rows: positions of the text that these calls are asked about, summed over the calls.
    """

    calls: float
    rows: float


def expected_calls(
    process: Process,
    schedule: Schedule,
    *,
    length: int,
    is_normalized: bool,
    predictor: Predictor,
    num_steps: int,
    level: float,
    t_end: float,
) -> ExpectedCalls:
    """The mean calls to rewrite a text whose tokens were noised with a probability uniform between 0 and `level`.

    Exact where the rates of leaving MASK are known; learned rates are taken to be exact. Positions are independent
    given the probability of noise, so a step has something to write with probability 1 - (1 - q)^length, where q is
    that of one position.

    Args:
        process: forward process of the stage that writes.
        schedule: its noise schedule.
        length: tokens of the text.
        is_normalized: whether the scores of its network are normalised.
        predictor: how the text is written.
        num_steps: steps of the time grid.
        level: largest probability that a token is noised.
        t_end: time at which the time grid ends.
    """
    if isinstance(process, UniformProcess):
        return ExpectedCalls(num_steps + 1, (num_steps + 1) * length)
    share = level * (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    sigma = (-torch.log1p(-share)).clamp_max(schedule(torch.ones_like(share)).sigma)
    masked = -torch.expm1(-sigma)
    if isinstance(predictor, FirstHittingPredictor | SurestPredictor):
        return _by_count(masked, length, predictor)
    first = Start(torch.zeros(_GRID, 1, dtype=torch.long), schedule.time_at(sigma).clamp_max(1))
    times = time_grid(first, num_steps, t_end)
    if isinstance(predictor, RemaskPredictor):
        leave, again = predictor.probs(schedule, times[:-1], times[1:])
    else:
        leave = leave_probs(predictor, schedule, times[:-1], times[1:])
        again = torch.zeros_like(leave)
    asks_all = predictor.name in ("euler", "analytic") and not is_normalized
    return _on_grid(masked, leave.clamp(0, 1), again.clamp(0, 1), length, asks_all=asks_all)


def _on_grid(
    masked: Float64[Tensor, " G"],
    leave: Float64[Tensor, "n G"],
    again: Float64[Tensor, "n G"],
    length: int,
    *,
    asks_all: bool,
) -> ExpectedCalls:
    """Calls of the steps in which a position leaves MASK or, with `asks_all`, in which one is still masked."""
    # For a position that was noised: the probability that it is masked before a step.
    still = torch.ones_like(masked)
    calls, rows = torch.zeros_like(masked), torch.zeros_like(masked)
    for step in range(len(leave) + 1):
        leaves = leave[step] if step < len(leave) else torch.ones_like(masked)
        asked = masked * still * (1 if asks_all else leaves)
        calls += 1 - (1 - asked) ** length
        rows += length * asked
        if step < len(leave):
            still = still * (1 - leaves) + (1 - still) * again[step]
    return ExpectedCalls(float(calls.mean()), float(rows.mean()))


def _by_count(
    masked: Float64[Tensor, " G"], length: int, predictor: FirstHittingPredictor | SurestPredictor
) -> ExpectedCalls:
    """Calls that write a fixed number of positions each."""
    counts = torch.arange(length + 1, dtype=torch.float64)
    law = torch.distributions.Binomial(length, masked[:, None]).log_prob(counts).exp().mean(0)
    each = predictor.tokens_per_call
    calls = torch.ceil(counts / each)
    # To find the surest positions, the network is asked about all that are left.
    is_choosing = isinstance(predictor, SurestPredictor)
    rows = calls * counts - each * calls * (calls - 1) / 2 if is_choosing else counts
    return ExpectedCalls(float(law @ calls), float(law @ rows))
