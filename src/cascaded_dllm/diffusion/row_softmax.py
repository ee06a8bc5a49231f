"""The softmax of whole rows of logits on a GPU, with every pass over them written by torch.compile.

On a GPU, every operation that is not fused with another reads and writes memory once more, and memory bandwidth bounds
all work on the logits of an output layer.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.blocked_softmax import Block, Memory, Tiles


class RowSoftmax:
    """`BlockedSoftmax` for all columns at once, with the same attributes and methods."""

    at_x0: Float[Tensor, " M"]
    of_x0: Float[Tensor, " M"]
    log_sum: Float[Tensor, " M"]

    def __init__(
        self,
        states: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"],
        x0: Int[Tensor, " M"],
        shift: Float[Tensor, " M"] | None = None,
    ) -> None:
        """Arguments are those of `BlockedSoftmax`."""
        self._states, self._weight, self._bias, self._x0, self._shift = states, weight, bias, x0, shift

    def blocks(self, tiles: Tiles, memory: Memory) -> Iterator[Block]:
        """Make the only block, with exps in the dtype `tiles.exps`.

        Without a shift its `top` is the logsumexp, so its exps are probabilities; that takes two passes over the
        logits. With a shift one is enough.
        """
        shape = len(self._states), len(self._bias)
        logits = memory.logits[: math.prod(shape)].view(shape)
        exps = logits if memory.exps is None else memory.exps[: math.prod(shape)].view(shape)
        torch.addmm(self._bias, self._states, self._weight.T, out=logits)
        place = self._x0.clamp(0, shape[1] - 1)
        if self._shift is None:
            at_x0, self.log_sum = _compiled(logit_and_sum)(logits, place)
            _compiled(write_softmax)(logits, self.log_sum, exps)
            top, of_x0 = self.log_sum, (at_x0 - self.log_sum).exp()
        else:
            at_x0 = logits.gather(-1, place[:, None])[:, 0] - self._shift
            total = _compiled(write_exps)(logits, self._shift, exps)
            # All exps of a row may be zero after a shift.
            top, of_x0 = torch.zeros_like(total), at_x0.exp() / total.clamp_min(torch.finfo(total.dtype).tiny)
            self.log_sum = total.log()
        is_token = place == self._x0
        self.at_x0 = torch.where(is_token, at_x0, torch.nan)
        self.of_x0 = torch.where(is_token, of_x0, 0)
        exps.scatter_(-1, place[:, None], 0)
        yield Block(tiles.blocks[0], exps, top)

    def factor(self, block: Block) -> Float[Tensor, " M"]:
        """What turns the exps into probabilities: one, unless they were made with a shift."""
        return (block.top - self.log_sum).exp()


def logit_and_sum(
    logits: Float[Tensor, "M V"], x0: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """The logit of the clean token of every row, and the logsumexp of the row."""
    # A row may be all -inf; its finite maximum then keeps the differences below from being NaN.
    top = logits.amax(-1).clamp_min(torch.finfo(logits.dtype).min)
    return logits.gather(-1, x0[:, None])[:, 0], top + (logits - top[:, None]).exp().sum(-1).log()


def write_softmax(logits: Float[Tensor, "M V"], log_sum: Float[Tensor, " M"], out: Float[Tensor, "M V"]) -> None:
    """exp(logits - log_sum) in the memory of `out`, which may be that of the logits."""
    out.copy_((logits - log_sum[:, None]).exp())


def write_exps(
    logits: Float[Tensor, "M V"], shift: Float[Tensor, " M"], out: Float[Tensor, "M V"]
) -> Float[Tensor, " M"]:
    """The sums of the rows of exp(logits - shift), which go to `out`; that may be the memory of the logits."""
    exps = (logits - shift[:, None]).exp()
    out.copy_(exps)
    return exps.sum(-1)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled function; the first call with another number of rows recompiles it for any number."""
    return torch.compile(function)
