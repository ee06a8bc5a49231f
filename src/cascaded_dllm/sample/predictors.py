"""How a reverse step is taken: pure functions from scores to probabilities, and their fast absorbing form."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.numerics import log_expm1

PredictorName = Literal["euler", "analytic", "ancestral", "remask", "first_hitting", "confidence", "entropy"]
PREDICTORS: tuple[PredictorName, ...] = get_args(PredictorName)
"""Names a user may choose; `tweedie` is another name of `analytic`."""

GRID_PREDICTORS = ("euler", "analytic", "ancestral", "remask")
"""Those that walk along a time grid and take a number of steps; the others take a number of tokens a call."""


@dataclass(frozen=True, slots=True)
class EulerPredictor:
    """One Euler step of the reverse rate (Lou et al. 2024, arXiv:2310.16834, Eq. 17).

    P(xs = y) = (t - s) dsigma(t) Q[y, xt] score[y]   for y != xt; stays at xt with the rest
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
        """Unnormalised probabilities of every state at time s; sums to 1 unless the step is too long."""
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
    """The step that is optimal among those that treat positions on their own (Lou et al. 2024, Eq. 19-20).

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

    When a position leaves MASK is decided without the network, which is called for the texts that change and for no
    other: at most one call a token, however fine the grid. For a normalised network it is Tweedie's step; for an
    unnormalised one the learned total rate is replaced by its exact value.
    """

    name: ClassVar[str] = "ancestral"

    def leave_prob(self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Probability that a masked position leaves MASK between t and s."""
        sigma_t, sigma_s = schedule(t).sigma, schedule(s).sigma
        # In powers of exp(-sigma), which no noise makes infinite.
        return torch.exp(-sigma_s) * torch.expm1(sigma_s - sigma_t) / torch.expm1(-sigma_t)


@dataclass(frozen=True, slots=True)
class RemaskPredictor:
    """Ancestral steps that also mask written tokens again, so that early mistakes can be mended.

    With keep(t) = 1 - move_prob(t) and r = eta min(1, move_prob(s) / keep(t)) (Wang et al. 2025, arXiv:2503.00307,
    Eq. 4 and the rescaled schedule):

        P(a written token is masked) = r,   P(leave MASK) = (keep(s) - (1 - r) keep(t)) / move_prob(t)

    Every such step has the marginals of the forward process for a law of the clean token that does not change, so that
    eta trades nothing but calls: with more of them, each token is written anew more often.

    Attributes:
        eta: share of the largest possible probability of being masked again; 0 is the ancestral step.
    """

    name: ClassVar[str] = "remask"

    eta: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta is {self.eta}; it must lie between 0, which never masks again, and 1")

    def probs(
        self, schedule: Schedule, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"]
    ) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        """Probabilities of leaving MASK, and of going back to it."""
        moved_t, moved_s = (-torch.expm1(-schedule(time).sigma) for time in (t, s))
        again = self.eta * (moved_s / (1 - moved_t)).clamp_max(1)
        return (moved_t - moved_s + again * (1 - moved_t)) / moved_t, again


@dataclass(frozen=True, slots=True)
class FirstHittingPredictor:
    """Tokens leave MASK one at a time, at the exact times of the process (Zheng et al. 2024, arXiv:2409.02908, Alg. 1).

    With n masked positions at time t the next one leaves at move_prob(t_next) = move_prob(t) u^(1/n), and it is each
    of them with the same probability. Exact for a network whose scores are normalised, without a time grid, at one
    network call a token. For an unnormalised network the learned total rate is replaced by its exact value.

    Attributes:
        tokens_per_call: tokens that leave together, drawn independently given the text before. 1 is exact; more is
            that many times faster and approximate.
    """

    name: ClassVar[str] = "first_hitting"

    tokens_per_call: int = 1

    def __post_init__(self) -> None:
        require_at_least("tokens_per_call", self.tokens_per_call, 1, hint="which is exact for first_hitting")


@dataclass(frozen=True, slots=True)
class SurestPredictor:
    """The positions of which the network is surest leave MASK first, a fixed number a call.

    Not a sampler of the network's law: texts become more probable and less varied, as with a lower temperature. Tokens
    are drawn as ever; only the order is chosen (Chang et al. 2022, arXiv:2202.04200; Ye et al. 2025, arXiv:2508.15487).

    Attributes:
        measure: `confidence`, the largest probability of a token, or `entropy`, the smallest entropy of its law.
        tokens_per_call: tokens that leave together.
    """

    measure: Literal["confidence", "entropy"]
    tokens_per_call: int = 1

    def __post_init__(self) -> None:
        require_at_least("tokens_per_call", self.tokens_per_call, 1, hint="which is exact for first_hitting")

    @property
    def name(self) -> str:
        """As a user chooses it."""
        return self.measure

    def sureness(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, " M"]:
        """How sure the network is of every position; larger is surer."""
        log_probs = F.log_softmax(logits, -1)
        if self.measure == "confidence":
            return log_probs.amax(-1)
        # A token of probability zero adds nothing, where 0 * -inf would be no number.
        return (log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)


Predictor = (
    EulerPredictor | TweediePredictor | AncestralPredictor | RemaskPredictor | FirstHittingPredictor | SurestPredictor
)
ScorePredictor = EulerPredictor | TweediePredictor
"""Those that are given by probabilities of every state, for any process."""


def predictor_from_name(
    name: str, *, tokens_per_call: int | None = None, eta: float | None = None, key: str = "the predictor"
) -> Predictor:
    """The predictor called `name`.

    Args:
        name: one of `PREDICTORS`.
        tokens_per_call: for those that have no time grid; 1 if None.
        eta: for `remask`; 0.1 if None.

    Raises:
        ConfigError: there is no such predictor, it does not take what is given, or a number is out of range.
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


def has_grid(predictor: Predictor) -> bool:
    """Whether it walks along a time grid, so that a number of steps means something."""
    return not isinstance(predictor, FirstHittingPredictor | SurestPredictor)


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
