"""`select_positions` for many windows at once: the same choice, made by sorting whole arrays."""

import numpy as np
import numpy.typing as npt

from cascaded_dllm.cascade.select import INELIGIBLE_LABEL, REPEATABLE_ABOVE, WITHOUT_REPEATABLE, check_method
from cascaded_dllm.errors import DataError

_LOW_HALF = 0xFFFFFFFF


def keep_ranks(
    token_ids: npt.NDArray[np.int32], importance: npt.NDArray[np.float32], *, method: str, unique: bool = True
) -> npt.NDArray[np.int32]:
    """The rank of every token, from 0, in the order in which its window's tokens are kept: (windows, length).

    A shortened stage of k tokens keeps the ranks below k. A token that is never kept (a copy of a kept token, or a
    token outside all words) has the rank `length`; without `unique`, every rank is below `length`.

    Args:
        token_ids: (windows, length), none negative.
        importance: one finite value per token, in the unit of `method`.
        method: see `select_positions`.
        unique: whether a token id is kept once.

    Raises:
        ConfigError: the method is unknown.
        DataError: `token_ids` and `importance` differ in shape.
    """
    check_method(method)
    if token_ids.shape != importance.shape:
        raise DataError(
            f"token ids of shape {token_ids.shape} came with importance of shape {importance.shape}; every token needs "
            "exactly one"
        )
    by_label = method == "constituency"
    # The exceptions to "once": a label that is never kept, or an importance that is always kept.
    above = np.inf if method in WITHOUT_REPEATABLE else REPEATABLE_ABOVE
    is_special = importance == INELIGIBLE_LABEL if by_label else importance > above
    if not unique:
        last = np.where(is_special & by_label, np.float32(np.inf), importance)
        ranks = np.empty_like(token_ids)
        np.put_along_axis(ranks, _order(last, is_rising=by_label), np.arange(token_ids.shape[1])[None], axis=1)
        return ranks
    order = _order(importance, is_rising=by_label)
    special = np.take_along_axis(is_special, order, axis=1)
    once = _is_first(np.take_along_axis(token_ids, order, axis=1), special)
    is_kept = once & ~special if by_label else once | special
    length = token_ids.shape[1]
    ranks = np.empty_like(token_ids)
    counted = np.cumsum(is_kept, axis=1, dtype=np.int32) - 1
    np.put_along_axis(ranks, order, np.where(is_kept, counted, np.int32(length)), axis=1)
    return ranks


def kept_positions(ranks: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    """The positions of the ranks below `count`, in text order: (windows, count).

    Args:
        ranks: the ranks of `keep_ranks`, only of windows that keep at least `count` tokens.
        count: the length of a shortened stage.
    """
    num_windows, length = ranks.shape
    flat = np.flatnonzero(ranks < count).reshape(num_windows, count)
    positions: npt.NDArray[np.int32] = (flat - np.arange(num_windows)[:, None] * length).astype(np.int32)
    return positions


def _order(importance: npt.NDArray[np.float32], *, is_rising: bool) -> npt.NDArray[np.int64]:
    """The positions of every window sorted by importance, ties in text order.

    The sorted keys are integers with the importance in the upper half and the position in the lower half: sorting
    integers is several times faster than a stable sort of the values. The bits of a float sort like its value once
    the lower 31 bits of negative floats are inverted; adding 0 turns -0 into 0.
    """
    bits = (importance + np.float32(0)).view(np.int32)
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    keys = (rising if is_rising else ~rising).astype(np.int64) << 32
    keys |= np.arange(importance.shape[1])
    keys.sort(axis=1)
    keys &= _LOW_HALF
    return keys


def _is_first(token_ids: npt.NDArray[np.int32], is_apart: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether a token is the first one in its row with its id; tokens set apart always are."""
    ranks = np.arange(token_ids.shape[1])
    # Ids are not negative, so the negative key of a token set apart is unique.
    keys = np.where(is_apart, ~ranks, token_ids) << 32
    keys |= ranks
    keys.sort(axis=1)
    is_new = np.ones(token_ids.shape, dtype=np.bool_)
    is_new[:, 1:] = (keys[:, 1:] >> 32) != (keys[:, :-1] >> 32)
    is_first = np.empty_like(is_new)
    np.put_along_axis(is_first, keys & _LOW_HALF, is_new, axis=1)
    return is_first
