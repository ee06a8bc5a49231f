"""The softmax of whole rows of logits, for a GPU: every pass over them is one that torch.compile writes.

A GPU goes through its memory for every operation that is not part of another, and all that is done with the logits of
an output layer is bound by that.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.blocked_softmax import Memory


class RowSoftmax:
    """What `BlockedSoftmax` is, of all columns at once.

    Attributes:
        at_x0: every row's logit of its clean token.
        log_sum: logsumexp of every row's logits.
    """

    at_x0: Float[Tensor, " M"]
    log_sum: Float[Tensor, " M"]

    def __init__(
        self,
        states: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"],
        x0: Int[Tensor, " M"],
        memory: Memory,
        *,
        kept: torch.dtype,
    ) -> None:
        """Arguments are those of `BlockedSoftmax`."""
        height, width = len(states), len(bias)
        self._kept = kept
        self._logits = memory.logits[: height * width].view(height, width)
        torch.addmm(bias, states, weight.T, out=self._logits)
        self.at_x0, self.log_sum = _compiled(logit_and_sum)(self._logits, x0)

    def parts(self) -> Iterator[tuple[slice, Float[Tensor, "M V"], Float[Tensor, " M"]]]:
        """All columns, the softmax itself and factors of one."""
        softmax = _compiled(softmax_of_rows)(self._logits, self.log_sum, self._kept)
        yield slice(0, self._logits.shape[1]), softmax, torch.ones_like(self.log_sum)


def logit_and_sum(
    logits: Float[Tensor, "M V"], x0: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """The logit of the clean token of every row, NaN where it is no column, and the logsumexp of the row."""
    inside = x0.clamp(0, logits.shape[1] - 1)
    at_x0 = torch.where(inside == x0, logits.gather(-1, inside[:, None])[:, 0], torch.nan)
    top = logits.amax(-1).clamp_min(torch.finfo(logits.dtype).min)
    return at_x0, top + (logits - top[:, None]).exp().sum(-1).log()


def softmax_of_rows(
    logits: Float[Tensor, "M V"], log_sum: Float[Tensor, " M"], dtype: torch.dtype
) -> Float[Tensor, "M V"]:
    """exp(logits - log_sum) in `dtype`."""
    return (logits - log_sum[:, None]).exp().to(dtype)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function through torch.compile; its second call makes it one for any number of rows."""
    return torch.compile(function)
