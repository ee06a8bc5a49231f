"""The law that tokens are drawn from: the network's own unless one asks for less variety."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.diffusion.categorical import running_sums
from cascaded_dllm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLaw:
    """How the law of a token is changed before it is drawn; by default not at all.

    In this order: logits are divided by the temperature, the `top_k` most probable tokens are kept, and of these the
    fewest that have the probability `top_p` together (Holtzman et al. 2020, arXiv:1904.09751). Samples are then not
    from the model any more: they repeat themselves more, and generative perplexity falls without a better model.

    Attributes:
        temperature: below 1 probable tokens become more probable; 0 takes the most probable one.
        top_k: tokens kept; None for all.
        top_p: probability kept; 1 for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be at least 0 and finite, 1 changes nothing")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}; it must be at least 1, or left out to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1, which keeps all tokens")

    @property
    def is_unchanged(self) -> bool:
        """Whether tokens are drawn from the law of the network itself."""
        return self == UNCHANGED

    def tempered(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        """Logits at the temperature, nothing cut off; those themselves for the temperature 0, which only cuts off."""
        if self.temperature in (0, 1):
            return logits
        # The largest becomes 0 first, so that no temperature divides it beyond the largest number.
        return (logits - logits.amax(-1, keepdim=True)) / self.temperature

    def cut(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        """Tempered logits with -inf for every token that is not kept; at least one is."""
        top_k = 1 if self.temperature == 0 else self.top_k
        if top_k is not None and top_k < logits.shape[-1]:
            kept = logits.topk(top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True, stable=True)
            probs = ordered.softmax(-1, dtype=torch.float32)
            # A token is kept if those before it do not have the probability yet; the first always is.
            is_cut = running_sums(probs) - probs >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(is_cut).scatter(-1, order, is_cut), -torch.inf)
        return logits


UNCHANGED = TokenLaw()
"""The law of the network itself."""
