"""The softmax of an output layer, one block of columns at a time.

A CPU works on a block while it lies in its cache. Logits of all columns at once would go to memory and come back for
every operation on them, and the product that makes them is only two thirds as fast (docs/performance.md).
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CPU_COLUMNS = 1024
"""The most columns of a block on a CPU. The width of a block depends only on the number of all columns, so that sums
are added in the same order for every batch. A GPU takes all columns at once."""
_CPU_COLUMN_MULTIPLE = 16
"""The columns of a block are a multiple of this, so that each of its rows begins at a cache line."""
_CPU_BLOCK_ELEMENTS = 1 << 21
"""The most logits of a block on a CPU: 8 MB in float32, which the cache that its cores share holds."""
_CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 768 << 20}
"""Memory for a chunk of rows over all columns, by device. Every chunk reads all output weights again, so smaller chunks
are slower; larger ones gain little."""


def even_parts(length: int, most: int) -> list[slice]:
    """The fewest parts of at most `most` elements (at least 1); if they cannot be equal, the first are longer by one.

    A `length` of 0 gives one empty part.
    """
    num_parts = max(1, math.ceil(length / max(1, most)))
    size, num_longer = divmod(length, num_parts)
    ends = [number * size + min(number, num_longer) for number in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def column_blocks(num_columns: int) -> list[slice]:
    """The blocks for a CPU: all have the same round width but the last, which has the rest."""
    width = even_parts(num_columns, _CPU_COLUMNS)[0].stop
    width = min(width + -width % _CPU_COLUMN_MULTIPLE, _CPU_COLUMNS)
    return [slice(start, min(start + width, num_columns)) for start in range(0, num_columns, width)]


class Tiles(NamedTuple):
    """How a softmax is divided.

    Attributes:
        chunks: rows that go through all columns together; the first chunk is the largest.
        blocks: columns that are worked on at once; the first block is the widest.
        exps: dtype of the exponentials of the logits.
        apart: whether every block keeps its exponentials in a place of its own, so that all outlast the pass.
    """

    chunks: list[slice]
    blocks: list[slice]
    exps: torch.dtype
    apart: bool

    @classmethod
    def of(
        cls,
        num_rows: int,
        num_columns: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        exps: torch.dtype,
        apart: bool,
    ) -> "Tiles":
        """Tiles of `num_rows` x `num_columns` logits of this dtype, within the limits of the device."""
        if device.type != "cpu":
            size = dtype.itemsize + (0 if exps == dtype else exps.itemsize)
            limit = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cpu"])
            return cls(even_parts(num_rows, limit // (size * num_columns)), [slice(0, num_columns)], exps, apart)
        blocks = column_blocks(num_columns)
        most_rows = _CPU_BLOCK_ELEMENTS // blocks[0].stop
        if apart:
            most_rows = min(most_rows, _CHUNK_BYTES["cpu"] // (exps.itemsize * num_columns))
        return cls(even_parts(num_rows, most_rows), blocks, exps, apart)

    def memory(self, like: Float[Tensor, "*_"]) -> "Memory":
        """Room for the largest chunk, for all chunks to reuse: fresh pages cost as much as a pass over them."""
        height, widest = self.chunks[0].stop, self.blocks[0].stop
        room = height * (self.blocks[-1].stop if self.apart else widest)
        if self.exps == like.dtype:
            return Memory(like.new_empty(room), None)
        return Memory(like.new_empty(height * widest), like.new_empty(room, dtype=self.exps))


class Memory(NamedTuple):
    """Where a softmax is computed.

    Attributes:
        logits: those of a block, or of all blocks if the exponentials replace them and are kept.
        exps: the exponentials in another dtype; None if they replace the logits.
    """

    logits: Float[Tensor, " S"]
    exps: Float[Tensor, " T"] | None


class Block(NamedTuple):
    """Some columns of a softmax before it is normalised.

    Attributes:
        columns: which ones.
        exps: exp(logits - top), with zero for the clean token, which is kept elsewhere: near probability 1 it would
            drown the others in the rounding of the dtype.
        top: what is subtracted from every row: its largest logit in this block, or another number that keeps exp()
            finite; zero where a `shift` was subtracted already.
    """

    columns: slice
    exps: Float[Tensor, "M K"]
    top: Float[Tensor, " M"]


@torch.no_grad()
def blocked_logsumexp(
    states: Float[Tensor, "M D"], weight: Float[Tensor, "V D"], bias: Float[Tensor, " V"]
) -> Float[Tensor, " M"]:
    """logsumexp(states @ weight.T + bias) of every row, without a tensor of (M, V) and without a gradient."""
    tiles = Tiles.of(len(states), len(bias), states.device, states.dtype, exps=states.dtype, apart=False)
    memory, sums = tiles.memory(states), []
    for part in tiles.chunks:
        softmax = BlockedSoftmax(states[part], weight, bias, None)
        for _ in softmax.blocks(tiles, memory):
            pass
        sums.append(softmax.log_sum)
    return torch.cat(sums)


class BlockedSoftmax:
    """The softmax of logits = states @ weight.T + bias - shift, in one pass over blocks of columns.

    The pass sets the attributes.

    Attributes:
        at_x0: the logit of each row's clean token; NaN if that token is not a column.
        of_x0: the probability of the clean token; set only if `x0` is given.
        log_sum: logsumexp of each row's logits.
    """

    at_x0: Float[Tensor, " M"]
    of_x0: Float[Tensor, " M"]
    log_sum: Float[Tensor, " M"]

    def __init__(
        self,
        states: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"],
        x0: Int[Tensor, " M"] | None,
        shift: Float[Tensor, " M"] | None = None,
    ) -> None:
        """Stores the operands; `blocks` computes.

        Args:
            states: hidden states of the rows.
            weight: output weights of the tokens.
            bias: output bias of the tokens.
            x0: clean tokens; None if `at_x0` and `of_x0` are not needed.
            shift: a part of every row's logits after which their exp() is known not to overflow unless the caller's
                result does; it saves the search for the largest logit. None for a shift of zero and that search.
        """
        self._states, self._weight, self._bias, self._x0, self._shift = states, weight, bias, x0, shift

    def blocks(self, tiles: Tiles, memory: Memory) -> Iterator[Block]:
        """Computes one block after the other; logits and their sums are in the dtype of the states."""
        tops, totals, exps_of_x0 = [], [], []
        # The largest logit of a block may be -inf, and -inf - -inf would be NaN.
        lowest, height = torch.finfo(self._states.dtype).min, len(self._states)
        self.at_x0 = self._states.new_full((height,), torch.nan)
        for columns in tiles.blocks:
            logits = _room(memory.logits, height, columns, apart=tiles.apart and memory.exps is None)
            self._write_logits(columns, logits)
            if self._x0 is not None:
                place, is_here = _place_inside(self._x0, columns)
                self.at_x0 = torch.where(is_here, logits.gather(-1, place[:, None])[:, 0], self.at_x0)
            if self._shift is None:
                top = logits.amax(-1).clamp_min(lowest)
                logits.sub_(top[:, None])
            else:
                top = torch.zeros_like(self._shift)
            exps = logits.exp_()
            tops.append(top)
            totals.append(exps.sum(-1))
            if self._x0 is not None:
                there = exps.gather(-1, place[:, None])[:, 0]
                exps_of_x0.append(torch.where(is_here, there, 0))
                exps.scatter_(-1, place[:, None], torch.where(is_here, 0, there)[:, None])
            if memory.exps is not None:
                exps = _room(memory.exps, height, columns, apart=tiles.apart).copy_(exps)
            yield Block(columns, exps, top)
        self._top = torch.stack(tops).amax(0)
        shares = [(top - self._top).exp_() for top in tops]
        self._total = _dot(totals, shares)
        self.log_sum = self._top + self._total.log()
        if self._x0 is not None:
            # All exps of a row may be zero after a shift.
            self.of_x0 = _dot(exps_of_x0, shares) / self._total.clamp_min(torch.finfo(self._total.dtype).tiny)

    def _write_logits(self, columns: slice, out: Float[Tensor, "M K"]) -> None:
        """The logits of a block."""
        added = self._bias[columns]
        if self._shift is not None:
            added = torch.sub(added, self._shift[:, None], out=out)
        torch.addmm(added, self._states, self._weight[columns].T, out=out)

    def factor(self, block: Block) -> Float[Tensor, " M"]:
        """The factor that turns the exps of a block into probabilities; known once `blocks` is exhausted."""
        return (block.top - self._top).exp_() / self._total


def _dot(values: list[Tensor], factors: list[Tensor]) -> Tensor:
    """The sum of the products."""
    return torch.stack([value * factor for value, factor in zip(values, factors, strict=True)]).sum(0)


def _room(memory: Tensor, height: int, columns: slice, *, apart: bool) -> Tensor:
    """The part of the memory for a block: the same for all blocks, or, if `apart`, one behind the other."""
    start, width = height * columns.start if apart else 0, columns.stop - columns.start
    return memory[start : start + height * width].view(height, width)


def _place_inside(x0: Int[Tensor, " M"], columns: slice) -> tuple[Int[Tensor, " M"], Bool[Tensor, " M"]]:
    """The columns of the clean tokens within a block, clamped, and whether each is in it; never waits for a GPU."""
    place = x0 - columns.start
    inside = place.clamp(0, columns.stop - columns.start - 1)
    return inside, inside == place
