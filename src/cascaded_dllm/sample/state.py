"""The states of a stage on the way from noise to text, and the texts that it may begin with."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplerState:
    """A batch of texts on their way from noise to text.

    Attributes:
        xt: ids, (B, L); MASK where nothing is decided yet.
        step: steps done, 0 before the first. A step is one of the time grid or, for predictors without a grid and where
            steps without an event are left out, one network call.
        num_steps: steps in all, the final denoising included.
        nfe: network calls so far; a call on a part of the batch counts as the share of its texts.
    """

    xt: Int[Tensor, "B L"]
    step: int
    num_steps: int
    nfe: float


@dataclass(frozen=True, slots=True)
class Start:
    """Texts to begin with, noised in part or completely.

    Attributes:
        xt: ids, (B, L); under the absorbing process, tokens that are not MASK stay.
        t: time that each text is noised to, (B,).
    """

    xt: Int[Tensor, "B L"]
    t: Float[Tensor, " B"]
