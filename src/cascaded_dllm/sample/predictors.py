"""Reverse steps from time t to s < t: pure functions from scores to probabilities, and their fast absorbing form."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess, Process
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import ConfigError

PREDICTORS = ("euler", "analytic", "first_hitting")
"""Names a user may choose; `tweedie` is another name of `analytic`."""


@dataclass(frozen=True, slots=True)
class EulerPredictor:
    """One Euler step of the reverse rate (Lou et al. 2024, arXiv:2310.16834, Eq. 17).

    P(xs = y) = (t - s) dsigma(t) Q[y, xt] score[y]   for y != xt; stays at xt with the rest
    """

    def step_probs(
        self,
        process: Process,
        schedule: Schedule,
        log_score: Float[Tensor, "B L N"],
        xt: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        s: Float[Tensor, " B"],
    ) -> Float[Tensor, "B L N"]:
        """Unnormalised probabilities of every state at time s; sums to 1 unless the step is too long."""
        moves = process.transposed_rates(xt, log_score.dtype) * log_score.exp()
        moves = moves * ((t - s) * schedule(t).dsigma).to(log_score)[:, None, None]
        moves = moves.scatter(-1, xt[..., None], 0.0)
        return moves.scatter(-1, xt[..., None], 1 - moves.sum(-1, keepdim=True))

    def unmask_factor(self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """What the sum of scores over tokens is multiplied by to give the probability of leaving MASK."""
        return (t - s) * schedule(t).dsigma


@dataclass(frozen=True, slots=True)
class TweediePredictor:
    """The step that is optimal among those that treat positions on their own (Lou et al. 2024, Eq. 19-20).

        P(xs = y) = (exp(-delta_sigma Q) score)[y] * exp(delta_sigma Q)[y, xt],   delta_sigma = sigma(t) - sigma(s)

    For the absorbing process with log-linear noise it coincides with Euler's step.
    """

    def step_probs(
        self,
        process: Process,
        schedule: Schedule,
        log_score: Float[Tensor, "B L N"],
        xt: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        s: Float[Tensor, " B"],
    ) -> Float[Tensor, "B L N"]:
        """Unnormalised probabilities of every state at time s."""
        delta_sigma = (schedule(t).sigma - schedule(s).sigma).to(log_score)
        return process.staggered_score(log_score.exp(), delta_sigma) * process.transposed_transition_probs(
            xt, delta_sigma
        )

    def unmask_factor(self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """What the sum of scores over tokens is multiplied by to give the probability of leaving MASK."""
        return torch.expm1(schedule(t).sigma - schedule(s).sigma)


@dataclass(frozen=True, slots=True)
class FirstHittingPredictor:
    """Tokens leave MASK one at a time, at the exact times of the process (Zheng et al. 2024, arXiv:2409.02908, Alg. 1).

    With n masked positions at time t the next one leaves at move_prob(t_next) = move_prob(t) u^(1/n), and it is each
    of them with the same probability. Exact for a network whose scores are normalised, without a time grid, at one
    network call a token. For an unnormalised network the learned total rate is replaced by its exact value.
    """


Predictor = EulerPredictor | TweediePredictor | FirstHittingPredictor
GridPredictor = EulerPredictor | TweediePredictor


def predictor_from_name(name: str) -> Predictor:
    """The predictor called `name`.

    Raises:
        ConfigError: there is no such predictor.
    """
    match name:
        case "euler":
            return EulerPredictor()
        case "analytic" | "tweedie":
            return TweediePredictor()
        case "first_hitting":
            return FirstHittingPredictor()
    raise ConfigError(f"the predictor is {name!r}; it must be one of {', '.join(PREDICTORS)}")


def denoise_probs(
    process: Process, log_score: Float[Tensor, "B L N"], xt: Int[Tensor, "B L"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B L N"]:
    """Probabilities of the last step from noise `sigma` to none: Tweedie's with delta_sigma = sigma.

    MASK, which no clean text holds, is removed and the rest renormalised.
    """
    sigma = sigma.to(log_score)
    probs = process.staggered_score(log_score.exp(), sigma) * process.transposed_transition_probs(xt, sigma)
    probs = probs.clamp_min(0)
    if isinstance(process, AbsorbingProcess):
        probs = F.pad(probs[..., : process.mask_id], (0, 1))
    return probs / probs.sum(-1, keepdim=True)
