"""The law that tokens are drawn from: the network's own, unless less variety is asked for."""

import sys
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.checks import plain_number, require_whole
from cascaded_dllm.diffusion.categorical import running_sums
from cascaded_dllm.errors import ConfigError

_LOWEST = 1e-3
"""Lower temperatures are raised to this one: a token that is 1 % less probable then has the weight exp(-10). At still
lower ones, the rounding of a log probability, which depends on the batch, would decide where required words stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLaw:
    """How the law of a token is changed before it is drawn; by default not at all.

    In this order: logits are divided by the temperature, the `top_k` most probable tokens are kept, and of these the
    fewest with a total probability of at least `top_p` (Holtzman et al. 2020, arXiv:1904.09751). Words that a text must
    contain are kept in any case. The samples are then not those of the model: they repeat themselves more, and
    generative perplexity falls although the model is no better.

    Attributes:
        temperature: below 1, probable tokens become more probable; 0 takes the most probable one.
        top_k: number of tokens kept; None for all.
        top_p: probability kept; 1 for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            object.__setattr__(self, name, plain_number(name, getattr(self, name)))
        if not 0 <= self.temperature <= sys.float_info.max:
            raise ConfigError(f"temperature is {self.temperature}; it must be at least 0 and finite, 1 changes nothing")
        if self.top_k is not None:
            require_whole("top_k", self.top_k, 1, hint="or left out to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1, which keeps all tokens")

    def __str__(self) -> str:
        """What is changed, as in "temperature 0.5, top_k 40"."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return ", ".join(f"{name} {getattr(self, name)}" for name in changed) or "the law of the network"

    @property
    def is_unchanged(self) -> bool:
        """Whether tokens are drawn from the law of the network itself."""
        return self == UNCHANGED

    def tempered(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        """Logits at the temperature, without any cut."""
        if self.temperature == 1:
            return logits
        # Shifts the largest logit to 0 first, so that no temperature makes it overflow.
        return (logits - logits.amax(-1, keepdim=True)) / max(float(self.temperature), _LOWEST)

    def cut(self, tempered: Float[Tensor, "M V"], always: Int[Tensor, "M A"] | None = None) -> Float[Tensor, "M V"]:
        """Tempered logits with -inf for every token that is not kept; at least one token is kept.

        Args:
            tempered: logits of `tempered`.
            always: for every row, ids that are kept in any case, padded with -1.
        """
        logits = self._cut(tempered)
        if always is None or logits is tempered:
            return logits
        # The most probable token, which is kept in any case, stands in for the padding.
        ids = torch.where(always < 0, logits.argmax(-1, keepdim=True), always)
        return logits.scatter(-1, ids, tempered.gather(-1, ids))

    def _cut(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        top_k = 1 if self.temperature == 0 else self.top_k
        if top_k is not None and top_k < logits.shape[-1]:
            kept = logits.topk(top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True, stable=True)
            probs = ordered.softmax(-1, dtype=torch.float32)
            # A token is kept if the more probable ones have less than top_p together; the first always is.
            is_cut = running_sums(probs) - probs >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(is_cut).scatter(-1, order, is_cut), -torch.inf)
        return logits


UNCHANGED = TokenLaw()
"""The law of the network itself."""
