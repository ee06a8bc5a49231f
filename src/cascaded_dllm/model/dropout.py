"""Dropout whose masks are a function of what they are applied to, and of nothing that was drawn before.

A hash of (text, block, branch, position, column) decides whether an element is zeroed. So a text has the same masks in
any batch, on any number of processes and for any choice of rows, and no mask is drawn for a row that is not computed.
The hash is a chain of integer operations, which torch.compile fuses into the kernel of its input.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from cascaded_dllm.model.rows import Rows

Key = tuple[Tensor, Tensor]
"""Two words of 32 bits for everything that has masks of its own; int32, whose sums and products wrap around."""

# An odd number near 2^32 divided by the golden ratio: its multiples are spread evenly (Weyl).
_WEYL = 0x9E3779B9 - 2**32
# From the finaliser of MurmurHash3, in which every bit of the output depends on every bit of the input.
_MULTIPLIERS = (0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32)


class Dropout(NamedTuple):
    """Dropout of one forward pass, or of one block of it.

    Attributes:
        rate: probability that an element is zeroed, in (0, 1).
        words: two random words for each sequence, and for each block once `of_block` has been called.
    """

    rate: float
    words: Int32[Tensor, "B 2"]

    def of_block(self, number: int) -> "Dropout":
        """The dropout of block `number`, which has masks of its own."""
        key = _fold((self.words[:, 0], self.words[:, 1]), torch.full_like(self.words[:, 0], number))
        return Dropout(self.rate, torch.stack(key, dim=1))

    def __call__(self, x: Float[Tensor, "*M D"], branch: int, rows: Rows | None) -> Float[Tensor, "*M D"]:
        """`x` with a share `rate` of the elements zeroed and the others divided by 1 - `rate`.

        Args:
            x: output of a branch, at all positions or at `rows` only; a position has the same mask in both cases.
            branch: number of the branch in its block.
            rows: the rows of `x`; None for all positions.
        """
        index = torch.full_like(self.words[:, 0], branch)
        key = _fold((self.words[:, 0], self.words[:, 1]), index)
        if rows is None:
            position = torch.arange(x.shape[1], device=x.device, dtype=torch.int32)
            key = (key[0][:, None], key[1][:, None])
        else:
            position = rows.position.to(torch.int32)
            key = (key[0][rows.batch], key[1][rows.batch])
        first, second = _fold(key, position)
        column = torch.arange(x.shape[-1], device=x.device, dtype=torch.int32)
        bits = _mixed(first[..., None] + column * _WEYL, second[..., None])
        # A word is uniform on [-2^31, 2^31).
        return x * (bits >= int(self.rate * 2**32) - 2**31) / (1 - self.rate)


def _fold(key: Key, index: Int32[Tensor, "..."]) -> Key:
    """The key of part number `index` of the thing that has `key`."""
    first, second = key
    step = index * _WEYL
    return _mixed(first + step, second), _mixed(second + step, first)


def _mixed(word: Int32[Tensor, "..."], key: Int32[Tensor, "..."]) -> Int32[Tensor, "..."]:
    """A word that depends on every bit of both: the finaliser of MurmurHash3 with a key inside.

    The last shift of the finaliser is left out. It would only change the low bits, which hardly decide anything.
    """
    word = (word ^ _shifted(word, 16)) * _MULTIPLIERS[0]
    word = (word ^ _shifted(word, 13)) + key
    return (word ^ _shifted(word, 16)) * _MULTIPLIERS[1]


def _shifted(word: Int32[Tensor, "..."], places: int) -> Int32[Tensor, "..."]:
    """The word shifted to the right, with zeros on the left; torch's own shift of int32 repeats the sign."""
    return (word >> places) & ((1 << (32 - places)) - 1)
