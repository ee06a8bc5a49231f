"""How a reverse step is taken: pure functions from scores to probabilities, and when a position leaves MASK."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.checks import one_of, plain_number, require_whole
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.numerics import log_expm1

PredictorName = Literal["euler", "analytic", "ancestral", "remask", "first_hitting", "confidence", "entropy"]
PREDICTORS: tuple[PredictorName, ...] = get_args(PredictorName)
"""Names that a user may choose; `tweedie` is also accepted, for `analytic`."""

GRID_PREDICTORS = ("euler", "analytic", "ancestral", "remask")
"""Predictors with a time grid, which take a number of steps; the others take a number of tokens for each call."""

MOST_STEPS = 1_000_000
"""Most steps of a time grid. Its times are numbers in float32, in which a step near t = 1 is then 17 of the smallest
differences long; finer grids would be made of rounding."""
_ONE = "which is exact for first_hitting"


@dataclass(frozen=True, slots=True)
class EulerPredictor:
    """One Euler step of the reverse rate (Lou et al. 2024, arXiv:2310.16834, Eq. 17).

    P(xs = y) = (t - s) dsigma(t) Q[y, xt] score[y]   for y != xt; the rest of the probability stays at xt
    """

    name: ClassVar[str] = "euler"

    def step_probs(
        self,
        process: Process,
        schedule: Schedule,
        log_score: Float[Tensor, "B L N"],
        xt: Int[Tensor, "B L"],
        t: Float[Tensor, " B"],
        s: Float[Tensor, " B"],
    ) -> Float[Tensor, "B L N"]:
        """Probabilities of every state at time s; they sum to 1, but that of xt is negative if the step is too long."""
        moves = process.transposed_rates(xt, log_score.dtype) * log_score.exp()
        moves = moves * ((t - s) * schedule(t).dsigma).to(log_score)[:, None, None]
        moves = moves.scatter(-1, xt[..., None], 0.0)
        return moves.scatter(-1, xt[..., None], 1 - moves.sum(-1, keepdim=True))

    def log_unmask_factor(
        self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]
    ) -> Float[Tensor, "*B"]:
        """Log of what the sum of scores over tokens is multiplied by to give the probability of leaving MASK."""
        return torch.log((t - s) * schedule(t).dsigma)


@dataclass(frozen=True, slots=True)
class TweediePredictor:
    """The optimal step among those that draw positions independently of each other (Lou et al. 2024, Eq. 19-20).

        P(xs = y) = (exp(-delta_sigma Q) score)[y] * exp(delta_sigma Q)[y, xt],   delta_sigma = sigma(t) - sigma(s)

    For the absorbing process with log-linear noise it coincides with Euler's step.
    """

    name: ClassVar[str] = "analytic"

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

    def log_unmask_factor(
        self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]
    ) -> Float[Tensor, "*B"]:
        """Log of what the sum of scores over tokens is multiplied by to give the probability of leaving MASK."""
        return log_expm1(schedule(t).sigma - schedule(s).sigma)


@dataclass(frozen=True, slots=True)
class AncestralPredictor:
    """The reverse transition of the masked process, given the law of the clean token (Sahoo et al. 2024, Eq. 7).

        P(leave MASK from t to s) = 1 - move_prob(s) / move_prob(t),   then x0 ~ p(x0 | unmasked tokens)

    When a position leaves MASK is decided without the network, which is only called for texts that change: at most one
    call for each token, however fine the grid. For normalised scores this is Tweedie's step; otherwise the learned
    total rate is replaced by its exact value.
    """

    name: ClassVar[str] = "ancestral"

    def leave_prob(self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Probability that a masked position leaves MASK between t and s."""
        sigma_t, sigma_s = schedule(t).sigma, schedule(s).sigma
        # In powers of exp(-sigma), which stay finite for any sigma.
        return torch.exp(-sigma_s) * torch.expm1(sigma_s - sigma_t) / torch.expm1(-sigma_t)


@dataclass(frozen=True, slots=True)
class RemaskPredictor:
    """Ancestral steps that also mask written tokens again, so that early mistakes can be corrected.

    With keep(t) = 1 - move_prob(t) and r = eta min(1, move_prob(s) / keep(t)) (Wang et al. 2025, arXiv:2503.00307,
    Eq. 4 and the rescaled schedule):

        P(a written token is masked) = r,   P(leave MASK) = (keep(s) - (1 - r) keep(t)) / move_prob(t)

    If the law of the clean token did not change from step to step, every such step would have the marginals of the
    forward process. So a larger eta only costs calls: each token is rewritten more often.

    Attributes:
        eta: share of the largest possible probability of being masked again; 0 is the ancestral step.
    """

    name: ClassVar[str] = "remask"

    eta: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", plain_number("eta", self.eta))
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta is {self.eta}; it must lie between 0, which never masks again, and 1")

    def probs(
        self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]
    ) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        """Probabilities that a masked position leaves MASK, and that a written one is masked again."""
        moved_t, moved_s = (-torch.expm1(-schedule(time).sigma) for time in (t, s))
        again = self.eta * (moved_s / (1 - moved_t)).clamp_max(1)
        return (moved_t - moved_s + again * (1 - moved_t)) / moved_t, again


@dataclass(frozen=True, slots=True)
class FirstHittingPredictor:
    """Tokens leave MASK one at a time, at the exact times of the process (Zheng et al. 2024, arXiv:2409.02908, Alg. 1).

    With n masked positions at time t, the next one leaves at move_prob(t_next) = move_prob(t) u^(1/n), each with the
    same probability. Exact for normalised scores, without a time grid, with one network call for each token. Otherwise
    the learned total rate is replaced by its exact value.

    Attributes:
        tokens_per_call: tokens that leave together, drawn independently given the text so far. 1 is exact; k takes 1/k
            of the calls and is approximate.
    """

    name: ClassVar[str] = "first_hitting"

    tokens_per_call: int = 1

    def __post_init__(self) -> None:
        require_whole("tokens_per_call", self.tokens_per_call, 1, most=math.inf, hint=_ONE)


@dataclass(frozen=True, slots=True)
class SurestPredictor:
    """The positions of which the network is surest leave MASK first, a fixed number in each call.

    Not a sampler of the network's law: texts become more probable and less varied, as with a lower temperature. Tokens
    are still drawn; only their order is chosen (Chang et al. 2022, arXiv:2202.04200; Ye et al. 2025, arXiv:2508.15487).

    Attributes:
        measure: `confidence`, by the largest probability of a token, or `entropy`, by the smallest entropy of its law.
        tokens_per_call: tokens that leave together.
    """

    measure: Literal["confidence", "entropy"]
    tokens_per_call: int = 1

    def __post_init__(self) -> None:
        require_whole("tokens_per_call", self.tokens_per_call, 1, most=math.inf, hint=_ONE)

    @property
    def name(self) -> str:
        """The name that a user chooses it by."""
        return self.measure

    def sureness(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, " M"]:
        """How sure the network is of every position; larger is surer."""
        log_probs = F.log_softmax(logits, -1)
        if self.measure == "confidence":
            return log_probs.amax(-1)
        # A token of probability zero adds nothing; 0 * -inf would be NaN.
        return (log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)


Predictor = (
    EulerPredictor | TweediePredictor | AncestralPredictor | RemaskPredictor | FirstHittingPredictor | SurestPredictor
)
ScorePredictor = EulerPredictor | TweediePredictor
"""Predictors that give the probabilities of every state, for any process."""


def predictor_from_name(
    name: str, *, tokens_per_call: int | None = None, eta: float | None = None, key: str = "the predictor"
) -> Predictor:
    """The predictor called `name`.

    Args:
        name: one of `PREDICTORS`.
        tokens_per_call: for predictors without a time grid; 1 if None.
        eta: for `remask`; 0.1 if None.
        key: what an error about `name` calls it.

    Raises:
        ConfigError: there is no such predictor, it does not take an option that is given, or a number is out of range.
    """
    if tokens_per_call is not None and name in (*GRID_PREDICTORS, "tweedie"):
        raise ConfigError(
            f"tokens_per_call is {tokens_per_call} and the predictor {name}, which walks along a time grid; give it "
            "steps, or choose first_hitting, confidence or entropy"
        )
    if eta is not None and name != "remask":
        raise ConfigError(f"eta is {eta} and the predictor {name}; only remask masks tokens again")
    known = one_of(key, "analytic" if name == "tweedie" else name, PREDICTORS)
    match known:
        case "euler":
            return EulerPredictor()
        case "analytic":
            return TweediePredictor()
        case "ancestral":
            return AncestralPredictor()
        case "remask":
            return RemaskPredictor() if eta is None else RemaskPredictor(eta)
        case "first_hitting":
            return FirstHittingPredictor(1 if tokens_per_call is None else tokens_per_call)
        case "confidence" | "entropy":
            return SurestPredictor(known, 1 if tokens_per_call is None else tokens_per_call)


def require_steps(what: str, steps: int) -> None:
    """Checks the number of steps of a time grid; `what` is its name in the message.

    Raises:
        ConfigError: there are none, or too many.
    """
    require_whole(what, steps, 1, most=MOST_STEPS, hint="for example 128")


def has_grid(predictor: Predictor) -> bool:
    """Whether the predictor has a time grid, and so takes a number of steps."""
    return not isinstance(predictor, FirstHittingPredictor | SurestPredictor)


def denoise_probs(
    process: Process, log_score: Float[Tensor, "B L N"], xt: Int[Tensor, "B L"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B L N"]:
    """Probabilities of the last step from noise `sigma` to none: Tweedie's with delta_sigma = sigma.

    Clean texts hold no MASK: its probability is set to 0, and the rest is renormalised.
    """
    sigma = sigma.to(log_score)
    probs = process.staggered_score(log_score.exp(), sigma) * process.transposed_transition_probs(xt, sigma)
    probs = probs.clamp_min(0)
    if isinstance(process, AbsorbingProcess):
        probs = F.pad(probs[..., : process.mask_id], (0, 1))
    return probs / probs.sum(-1, keepdim=True)
