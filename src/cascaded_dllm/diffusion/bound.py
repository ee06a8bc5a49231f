"""The likelihood bound: the integral of the weighted score entropy over time, with its error and what it omits.

Lou et al. 2024 (arXiv:2310.16834v3), Theorem 3.6: -log p(x0) <= integral over t of dsigma(t) * score entropy + prior.
With the exact score the integral from 0 to 1 equals H(x0) - I(x0; x_1) on average.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.diffusion.process import Process, UniformProcess
from cascaded_dllm.diffusion.schedule import Schedule

MEASURED_FROM = 1e-3
"""Default `t_min` of a measured bound, whatever `t_min` the network was trained with, so that the bounds of all runs
are comparable. With log-linear noise, the part below it is at most 0.1 % of log V a token."""

BOUND_SEED = 0
"""Default seed of the times and the noise of a bound, the same for all runs so that their bounds are comparable."""

WeightedEntropy = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x0, xt, sigma, dsigma) -> dsigma * score entropy summed over positions, one number per sequence."""


class BoundEstimate(NamedTuple):
    """A Monte-Carlo estimate of the bound for each sequence.

    Attributes:
        nll_nats: estimate of the integral, nats per sequence, float64.
        standard_error: of each `nll_nats`, from the spread over times; float64. Pessimistic, because the times are
            spread evenly rather than independent.
        layout_nats: the part of `nll_nats` that a placed stage pays for its layout; None for any other stage.
    """

    nll_nats: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    layout_nats: Float[Tensor, " B"] | None = None


def nll_bound(
    weighted_entropy: WeightedEntropy,
    x0: Int[Tensor, "B L"],
    *,
    process: Process,
    schedule: Schedule,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
    num_times: int,
    t_min: float,
) -> BoundEstimate:
    """Upper bound on -log p(x0) of each sequence, as the integral over t in (t_min, 1].

    Every sequence is noised at `num_times` evenly spaced times, shifted by a random amount of its own. So its estimate
    does not depend on the batch.

    Omitted, see `omitted_nats`: the prior term at t = 1 and the integral over [0, t_min].
    """
    position = torch.arange(x0.shape[1], device=x0.device)
    values = []
    for k in range(num_times):
        index = torch.full_like(sample_index, k)
        shift = draws.uniform_pair(sample_index, 0, torch.full_like(sample_index, x0.shape[1]))[0]
        t = low_discrepancy_times(shift, index, num_times, t_min)
        sigma, dsigma = schedule(t)
        xt = process.sample_xt(x0, sigma, draws.uniform_pair(sample_index[:, None], k + 1, position[None]))
        values.append(weighted_entropy(x0, xt, sigma, dsigma).cpu().double())
    stacked = torch.stack(values, -1) * (1 - t_min)
    spread = stacked.std(-1) if num_times > 1 else torch.full((x0.shape[0],), math.nan, dtype=torch.float64)
    return BoundEstimate(stacked.mean(-1), spread / math.sqrt(num_times))


def omitted_nats(process: Process, schedule: Schedule, *, length: int, t_min: float) -> float:
    """How far below H(x0) the integral of an ideal model may lie, nats per sequence.

    The integral over [0, 1] equals H(x0) - I(x0; x_1): it does not count the tokens that have not moved at t = 1. A
    token has not moved with probability exp(-sigma(1)) and carries at most log V nats. Leaving out [0, t_min] saves
    at most log V for every token that has moved by t_min, which has probability move_prob(t_min). Under the uniform
    process it also saves the binary entropy of having moved, which xt does not show.
    """
    still_clean = torch.exp(-schedule(torch.tensor(1.0, dtype=torch.float64)).sigma)
    moved_early = -torch.expm1(-schedule(torch.tensor(t_min, dtype=torch.float64)).sigma)
    hidden = 0.0
    if isinstance(process, UniformProcess):
        hidden = float(torch.special.entr(moved_early) + torch.special.entr(1 - moved_early))
    return length * (math.log(process.vocab_size) * float(still_clean + moved_early) + hidden)
