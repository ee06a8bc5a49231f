"""The softmax of an output layer, a block of columns at a time.

A processor works on a block while it lies in its cache. Logits of all columns at once go to memory and come back for
everything that is done with them, and the product that makes them is two thirds as fast (docs/performance.md).
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CPU_COLUMNS = 1024
"""The most columns of a block on a CPU. Their number depends on that of all columns alone, so that sums are added up in
the same order whatever the batch. A GPU takes all of them."""
_CPU_BLOCK_ELEMENTS = 1 << 19
"""Logits of a block on a CPU, 2 MB in float32, which its cache holds."""
_CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 768 << 20}
"""What is held at once of all columns, by device. Every chunk of rows goes through the output weights again, so smaller
ones are slower; larger ones gain little."""


def even_parts(length: int, most: int) -> list[slice]:
    """The fewest parts of at most `most` (at least 1), the first ones one longer than the others where it must be.

    Nothing has one empty part.
    """
    num_parts = max(1, math.ceil(length / max(1, most)))
    size, num_longer = divmod(length, num_parts)
    ends = [number * size + min(number, num_longer) for number in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


class Tiles(NamedTuple):
    """Rows whose logits are held at once, and columns of them that are worked on at once; the first are the largest."""

    chunks: list[slice]
    blocks: list[slice]

    @classmethod
    def of(
        cls, num_rows: int, num_columns: int, device: torch.device, dtype: torch.dtype, *, kept: torch.dtype | None
    ) -> "Tiles":
        """Those of so many rows and columns within the limits of the device.

        Args:
            num_rows: of all chunks together.
            num_columns: of all blocks together.
            device: where they are.
            dtype: of the logits.
            kept: dtype of what is kept of a chunk until all of its blocks are there; None if a block goes as it came.
        """
        exps = 0 if kept is None or kept == dtype else kept.itemsize
        # A CPU has the logits of a block beside what it keeps, all others those of all columns.
        size = exps if exps and device.type == "cpu" else dtype.itemsize + exps
        most_rows = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cpu"]) // (size * num_columns)
        if device.type != "cpu":
            return cls(even_parts(num_rows, most_rows), [slice(0, num_columns)])
        blocks = even_parts(num_columns, _CPU_COLUMNS)
        in_a_block = _CPU_BLOCK_ELEMENTS // blocks[0].stop
        # Where nothing is kept, no more than a block is held, and its limit alone counts.
        return cls(even_parts(num_rows, in_a_block if kept is None else min(most_rows, in_a_block)), blocks)

    def memory(self, like: Tensor, *, kept: torch.dtype | None) -> "Memory":
        """Room for the largest chunk; fresh pages cost as much as a pass over them."""
        height, widest, all_columns = self.chunks[0].stop, self.blocks[0].stop, self.blocks[-1].stop
        if kept == like.dtype:
            return Memory(like.new_empty(height * all_columns), None)
        exps = None if kept is None else like.new_empty(height * all_columns, dtype=kept)
        return Memory(like.new_empty(height * widest), exps)


class Memory(NamedTuple):
    """Where a softmax is worked out.

    Attributes:
        logits: of a block, or of all of them if what becomes of them stays there.
        exps: of all blocks, in another dtype, where that stays instead; None if nothing does.
    """

    logits: Float[Tensor, " S"]
    exps: Float[Tensor, " T"] | None


@torch.no_grad()
def blocked_logsumexp(
    states: Float[Tensor, "M D"], weight: Float[Tensor, "V D"], bias: Float[Tensor, " V"]
) -> Float[Tensor, " M"]:
    """logsumexp(states @ weight.T + bias) of every row, without a tensor of (M, V) and without a gradient."""
    tiles = Tiles.of(len(states), len(bias), states.device, states.dtype, kept=None)
    memory, nowhere = tiles.memory(states, kept=None), states.new_zeros(len(states), dtype=torch.long)
    sums = [
        BlockedSoftmax(states[part], weight, bias, nowhere[part], tiles.blocks, memory, kept=None).log_sum
        for part in tiles.chunks
    ]
    return torch.cat(sums)


class BlockedSoftmax:
    """softmax(states @ weight.T + bias) of some rows, as exp(logits - the largest of their block).

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
        blocks: list[slice],
        memory: Memory,
        *,
        kept: torch.dtype | None,
    ) -> None:
        """Go through all blocks once.

        Args:
            states: hidden states of the rows.
            weight: output weights of the tokens.
            bias: their output bias.
            x0: clean tokens. One that is no column has the logit NaN.
            blocks: parts of the columns, in order, which are all of them together.
            memory: see `Tiles.memory`.
            kept: dtype of the exps that `others` gives; None if neither it nor `of_x0` is asked for. Logits and their
                sums are in that of `states` all the same.
        """
        self._blocks = blocks
        self._exps: list[Tensor] = []
        tops, totals, exps_of_x0 = [], [], []
        # The largest logit of a block may be -inf, and less than that none can be.
        lowest = torch.finfo(states.dtype).min
        self.at_x0 = states.new_full((len(states),), torch.nan)
        for columns in blocks:
            logits = _room(memory.logits, len(states), columns, apart=kept == states.dtype)
            torch.addmm(bias[columns], states, weight[columns].T, out=logits)
            place, is_here = _place_inside(x0, columns)
            self.at_x0 = torch.where(is_here, logits.gather(-1, place[:, None])[:, 0], self.at_x0)
            tops.append(logits.amax(-1).clamp_min(lowest))
            totals.append(logits.sub_(tops[-1][:, None]).exp_().sum(-1))
            if kept is not None:
                exp_there = logits.gather(-1, place[:, None])[:, 0]
                exps_of_x0.append(torch.where(is_here, exp_there, 0))
                logits.scatter_(-1, place[:, None], torch.where(is_here, 0, exp_there)[:, None])
                self._exps.append(
                    logits
                    if memory.exps is None
                    else _room(memory.exps, len(states), columns, apart=True).copy_(logits)
                )
        top = torch.stack(tops).amax(0)
        shares = [(of_block - top).exp_() for of_block in tops]
        total = torch.stack([share * of_block for share, of_block in zip(shares, totals, strict=True)]).sum(0)
        self.log_sum = top + total.log()
        self._factors = [share / total for share in shares]
        if kept is not None:
            pairs = zip(exps_of_x0, self._factors, strict=True)
            self.of_x0 = torch.stack([exp * factor for exp, factor in pairs]).sum(0)

    def others(self) -> Iterator[tuple[slice, Float[Tensor, "M K"], Float[Tensor, " M"]]]:
        """The softmax of all tokens but the clean one: columns of a block, its exps, and factors of their rows.

        The clean token, whose exp is zero here, is apart, so that one near probability 1 does not drown the others in
        what the dtype of the exps rounds. Only with `kept`, and until the memory is used for something else.
        """
        return zip(self._blocks, self._exps, self._factors, strict=True)


def _room(memory: Tensor, height: int, columns: slice, *, apart: bool) -> Tensor:
    """A block's part of the memory, which all blocks share or which they lie in one behind another."""
    start, width = height * columns.start if apart else 0, columns.stop - columns.start
    return memory[start : start + height * width].view(height, width)


def _place_inside(x0: Int[Tensor, " M"], columns: slice) -> tuple[Int[Tensor, " M"], Bool[Tensor, " M"]]:
    """Where in a block the clean tokens stand, and whether they do; nobody has to wait for a GPU to know."""
    place = x0 - columns.start
    inside = place.clamp(0, columns.stop - columns.start - 1)
    return inside, inside == place
