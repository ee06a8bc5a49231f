"""The softmax of whole rows of logits, for a GPU: every pass over them is one that torch.compile writes.

A GPU goes through its memory for every operation that is not part of another, and all that is done with the logits of
an output layer is bound by that.
"""

import functools
import math
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
        of_x0: the probability of the clean token.
        log_sum: logsumexp of every row's logits.
    """

    at_x0: Float[Tensor, " M"]
    of_x0: Float[Tensor, " M"]
    log_sum: Float[Tensor, " M"]

    def __init__(
        self,
        states: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"],
        x0: Int[Tensor, " M"],
        memory: Memory,
    ) -> None:
        """Arguments are those of `BlockedSoftmax`; what is kept has the dtype of the memory for it."""
        shape = len(states), len(bias)
        self._x0 = x0.clamp(0, len(bias) - 1)
        self._logits = memory.logits[: math.prod(shape)].view(shape)
        self._softmax = self._logits if memory.exps is None else memory.exps[: math.prod(shape)].view(shape)
        torch.addmm(bias, states, weight.T, out=self._logits)
        at_x0, self.log_sum = _compiled(logit_and_sum)(self._logits, self._x0)
        is_token = self._x0 == x0
        self.at_x0 = torch.where(is_token, at_x0, torch.nan)
        self.of_x0 = torch.where(is_token, (at_x0 - self.log_sum).exp(), 0)

    def others(self) -> Iterator[tuple[slice, Float[Tensor, "M V"], Float[Tensor, " M"]]]:
        """All columns, the softmax itself without the clean token, and factors of one; once: it may take the logits."""
        _compiled(write_softmax)(self._logits, self.log_sum, self._softmax)
        self._softmax.scatter_(-1, self._x0[:, None], 0)
        yield slice(0, self._softmax.shape[1]), self._softmax, torch.ones_like(self.log_sum)


def logit_and_sum(
    logits: Float[Tensor, "M V"], x0: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """The logit of the clean token of every row, and the logsumexp of the row."""
    # Less than the least number none can be but -inf, of which a row may consist.
    top = logits.amax(-1).clamp_min(torch.finfo(logits.dtype).min)
    return logits.gather(-1, x0[:, None])[:, 0], top + (logits - top[:, None]).exp().sum(-1).log()


def write_softmax(logits: Float[Tensor, "M V"], log_sum: Float[Tensor, " M"], out: Float[Tensor, "M V"]) -> None:
    """exp(logits - log_sum) in the memory of `out`, which may be that of the logits."""
    out.copy_((logits - log_sum[:, None]).exp())


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function through torch.compile; the first call with another number of rows makes it one for any."""
    return torch.compile(function)
