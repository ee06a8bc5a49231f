"""The order of the windows in an epoch, which gives the window at any place without the places before it."""

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.rng import derive_seed, numpy_generator

TABLE_LIMIT: Final = 2**22
"""Maximum number of windows whose order is drawn as a table, which takes a few tenths of a second and 32 MB. Of 300
million it would take half a minute and more than 2 GB, in every process and for every epoch."""
_ROUNDS = 8


def windows_at(places: npt.NDArray[np.int64], num_windows: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The windows at `places` of an epoch, which contains each of `num_windows` once.

    Up to TABLE_LIMIT windows, every order is equally likely. Beyond, the order is a keyed bijection, computed only for
    `places`.

    Args:
        places: each in 0 .. num_windows - 1.
        num_windows: size of the dataset.
        seed: of the order.
        epoch: 0, 1, ...
    """
    if num_windows <= TABLE_LIMIT:
        return _table(num_windows, seed, epoch)[places]
    return _bijection(places, num_windows, _keys(seed, epoch))


@functools.lru_cache(maxsize=2)
def _table(num_windows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of one epoch, which is kept for the next steps."""
    return numpy_generator(seed, "epoch", epoch).permutation(num_windows)


@functools.lru_cache(maxsize=2)
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(derive_seed(seed, "epoch order", epoch, number) for number in range(_ROUNDS))


def _bijection(places: npt.NDArray[np.int64], num_windows: int, keys: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """A Feistel network on the smallest power of two that holds all places (Luby & Rackoff 1988).

    A number outside 0 .. num_windows - 1 goes through the network again until it is inside (cycle walking; Black &
    Rogaway 2002, Sec. 5), which keeps the map a bijection. More than half of the numbers are inside, so two passes are
    the average at most.
    """
    num_bits = (num_windows - 1).bit_length()
    found = places.astype(np.uint64)
    outside = np.ones(len(found), dtype=bool)
    while outside.any():
        found[outside] = _feistel(found[outside], num_bits, keys)
        outside = found >= num_windows
    return found.astype(np.int64)


def _feistel(number: npt.NDArray[np.uint64], num_bits: int, keys: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """A bijection of the numbers of `num_bits` bits, in which the two halves change each other in turn."""
    num_low = np.uint64(num_bits // 2)
    low_mask = np.uint64(2 ** (num_bits // 2) - 1)
    high_mask = np.uint64(2 ** (num_bits - num_bits // 2) - 1)
    high, low = number >> num_low, number & low_mask
    for turn, key in enumerate(keys):
        if turn % 2 == 0:
            high ^= _hash(low, key) & high_mask
        else:
            low ^= _hash(high, key) & low_mask
    return high << num_low | low


def _hash(number: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014), modulo 2^64."""
    word = number + np.uint64(key)
    word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ word >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return word ^ word >> np.uint64(31)
