"""Dropout whose masks are a function of what they belong to, and of nothing that was drawn before.

An element is zeroed or not by a hash of (text, block, branch, position, column). So a text has the same masks in any
batch, on any number of processes and for any choice of rows, none is drawn for a row that is not computed, and the hash
is a chain of operations on integers that torch.compile writes into the kernel of what it is applied to.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from cascaded_dllm.model.rows import Rows

Key = tuple[Tensor, Tensor]
"""Two words of 32 bits for everything that has masks of its own, held in int32, in which sums and products wrap."""

# An odd number near 2^32 divided by the golden ratio: its multiples are spread evenly (Weyl).
_WEYL = 0x9E3779B9 - 2**32
# Of the finaliser of MurmurHash3, whose every bit of output depends on every bit of input.
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
        """That of a block, which has masks of its own."""
        key = _fold((self.words[:, 0], self.words[:, 1]), torch.full_like(self.words[:, 0], number))
        return Dropout(self.rate, torch.stack(key, dim=1))

    def __call__(self, x: Float[Tensor, "*M D"], branch: int, rows: Rows | None) -> Float[Tensor, "*M D"]:
        """`x` with a share `rate` of the elements zeroed and the others divided by 1 - `rate`.

        Args:
            x: outcome of a branch, for all positions, or for `rows` only: both have the same masks.
            branch: number of the branch in its block.
            rows: which rows `x` holds; None for all.
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
    """The key of part number `index` of what has `key`."""
    first, second = key
    step = index * _WEYL
    return _mixed(first + step, second), _mixed(second + step, first)


def _mixed(word: Int32[Tensor, "..."], key: Int32[Tensor, "..."]) -> Int32[Tensor, "..."]:
    """A word that depends on every bit of both.

    It is the finaliser of MurmurHash3 with a key inside. Its last shift is left out: that changes the low bits alone,
    by which nothing is decided.
    """
    word = (word ^ _shifted(word, 16)) * _MULTIPLIERS[0]
    word = (word ^ _shifted(word, 13)) + key
    return (word ^ _shifted(word, 16)) * _MULTIPLIERS[1]


def _shifted(word: Int32[Tensor, "..."], places: int) -> Int32[Tensor, "..."]:
    """The word shifted to the right, with zeros on the left: that of torch repeats the sign."""
    return (word >> places) & ((1 << (32 - places)) - 1)
