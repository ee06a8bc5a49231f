"""What a stage is at on its way from noise to text, and what it may begin with."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplerState:
    """A batch of texts on their way from noise to text.

    Attributes:
        xt: ids, (B, L); MASK where nothing is decided yet.
        step: steps done, 0 before the first. A step is one of the time grid or, where steps without an event are left
            out, one network call.
        num_steps: steps in all, the final denoising included.
        nfe: network calls so far; a call on a part of the batch counts as its share.
    """

    xt: Int[Tensor, "B L"]
    step: int
    num_steps: int
    nfe: float


@dataclass(frozen=True, slots=True)
class Start:
    """Texts that are noised in part, to begin with in place of pure noise.

    Attributes:
        xt: ids, (B, L); what is not noised stays under the absorbing process.
        t: time that each text is noised to, (B,).
    """

    xt: Int[Tensor, "B L"]
    t: Float[Tensor, " B"]
