"""The distribution of importance in windows from all parts of a dataset, and how many tokens every stage keeps."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.cascade.select import INELIGIBLE_LABEL
from cascaded_dllm.cascade.select_many import keep_ranks
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import evenly_spaced
from cascaded_dllm.data.row_groups import RowGroup
from cascaded_dllm.data.windows import Layout, Seam, Tokens
from cascaded_dllm.importance.custom import BACKGROUND
from cascaded_dllm.importance.pos import PosLabel

# The number of tokens that are counted: quick, and enough for three digits.
_TOKENS = 1 << 19
# The fewest row groups, of about a million tokens each, that are read if there are as many: a second or two.
_NUM_GROUPS = 16
# More distinct values than this are shown in this many ranges.
_MAX_BINS = 12


class Bin(NamedTuple):
    """Tokens of similar importance.

    Attributes:
        label: the name of the importance, or its range.
        counts: number of tokens by the first stage, 1..K, that keeps them; the last entry is for dropped windows.
    """

    label: str
    counts: tuple[int, ...]


class Spread(NamedTuple):
    """Windows from all parts of a dataset.

    Attributes:
        windows: (windows, length).
        is_all: whether the dataset has no others.
    """

    windows: Tokens
    is_all: bool


@final
@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over windows from all parts of a dataset.

    Attributes:
        num_windows: how many windows are counted.
        is_all: whether the dataset has no others.
        num_dropped: how many of them are dropped because they have too few tokens to keep.
        bins: all tokens of the windows, the most important first.
    """

    num_windows: int
    is_all: bool
    num_dropped: int
    bins: tuple[Bin, ...]


def importance_name(method: str, value: float) -> str:
    """The name of a part-of-speech label or "in no word"; for any other importance, the number."""
    if (method, value) in (("constituency", PosLabel.NONE), ("custom", BACKGROUND)):
        return "in no word"
    if method != "constituency" or value not in set(PosLabel):
        return f"{value:.4g}"
    return PosLabel(int(value)).name.lower().replace("_", " ")


def first_stages(ranks: npt.NDArray[np.int32], spec: CascadeSpec) -> npt.NDArray[np.int64]:
    """The first stage, 1..K, that keeps each token, (windows, length); 0 in windows that cannot fill all stages.

    Args:
        ranks: (windows, length); see `keep_ranks`.
        spec: the stage lengths.
    """
    shortened = np.array(spec.stage_lengths[:-1], dtype=np.int32)
    stages = np.searchsorted(shortened, ranks, side="right") + 1
    has_enough = (ranks < spec.window_length).sum(axis=1) >= max(spec.stage_lengths[:-1], default=0)
    return np.where(has_enough[:, None], stages, 0)


def spread_windows(groups: Sequence[RowGroup], layout: Layout) -> Spread:
    """Windows of about half a million tokens, evenly spaced over the corpus, which changes from part to part.

    Of a large dataset only some row groups are read, without the windows that reach into other groups.
    """
    chosen = _spread_groups(groups)
    # Upper bounds on the tokens in each row group's windows, so that all windows are taken if there are few.
    space = 1 if layout.packing == "stream" else layout.length
    rooms = [groups[place].num_tokens + groups[place].num_documents * space for place in chosen]
    share = _TOKENS / max(sum(rooms), 1)
    is_all = len(chosen) == len(groups)
    found = [Tokens(np.empty((0, layout.length), np.int32), np.empty((0, layout.length), np.float32))]
    for windows, room in zip(_windows(groups, chosen, layout), rooms, strict=True):
        number = len(windows.token_ids)
        rows = evenly_spaced(number, math.ceil(room * share / layout.length))
        is_all = is_all and len(rows) == number
        found.append(Tokens(windows.token_ids[rows], windows.importance[rows]))
    token_ids, importance = zip(*found, strict=True)
    return Spread(Tokens(np.concatenate(token_ids), np.concatenate(importance)), is_all)


def _spread_groups(groups: Sequence[RowGroup]) -> list[int]:
    """The increasing places of row groups from all parts of the corpus; all row groups if they have few tokens.

    Every shard has records from all parts of the corpus, in order, so row groups at the same relative position in their
    shards are from the same part.
    """
    sizes = Counter(group.shard.folder for group in groups)
    by_part = sorted(range(len(groups)), key=lambda place: groups[place].number / sizes[groups[place].shard.folder])
    total = sum(group.num_tokens for group in groups)
    wanted = max(_NUM_GROUPS, math.ceil(len(groups) * _TOKENS / max(total, 1)))
    return sorted(by_part[number] for number in evenly_spaced(len(groups), wanted).tolist())


def statistics(spread: Spread, spec: CascadeSpec, method: str, *, unique: bool = True) -> Statistics:
    """The counts over some windows.

    Args:
        spread: the windows.
        spec: the stage lengths.
        method: the selection rule.
        unique: whether it keeps a token id only once.
    """
    windows = spread.windows
    stages = first_stages(keep_ranks(*windows, method=method, unique=unique), spec)
    return Statistics(
        num_windows=len(stages),
        is_all=spread.is_all,
        num_dropped=int((stages[:, :1] == 0).sum()),
        bins=tuple(_bins(windows.importance.ravel(), stages.ravel(), spec.num_stages, method)),
    )


def _windows(groups: Sequence[RowGroup], chosen: Sequence[int], layout: Layout) -> Iterator[Tokens]:
    """For each chosen row group, the windows that end in it, except those that begin in a group that is not read."""
    missing = layout.missing(groups)
    # None while the tokens before the next border of windows are unknown.
    seam: Seam | None = None
    for before, place in zip([-1, *chosen], chosen, strict=False):
        head, windows, rest = layout.cut(groups[place].read(), missing[place])
        if before != place - 1:
            seam = None
        if seam is not None:
            shared = seam.ended_by(head)
            windows = windows if shared is None else shared.joined(windows)
        elif len(head.token_ids) == missing[place]:
            seam = Seam(layout.length)
        yield windows
        if seam is not None:
            seam.begin(rest)


def _bins(
    importance: npt.NDArray[np.float32], stages: npt.NDArray[np.int64], num_stages: int, method: str
) -> Iterator[Bin]:
    """The tokens in bins, the most important first."""
    lows, labels = _ranges(importance, method)
    numbers = np.searchsorted(lows, importance, side="right") - 1
    # Stage 0, for dropped windows, goes to the last column.
    columns = np.where(stages == 0, num_stages, stages - 1)
    counts = np.bincount(numbers * (num_stages + 1) + columns, minlength=len(lows) * (num_stages + 1))
    table = counts.reshape(-1, num_stages + 1).tolist()
    for row in _strongest_first(lows, method):
        yield Bin(labels[row], tuple(table[row]))


def _strongest_first(lows: npt.NDArray[np.float32] | npt.NDArray[np.float64], method: str) -> list[int]:
    """The numbers of the bins, the most important first."""
    rows = list(range(len(lows)))
    if method == "constituency":
        # Smaller labels are more important, except the label for tokens in no word.
        return sorted(rows, key=lambda row: (lows[row] == INELIGIBLE_LABEL, row))
    return rows[::-1]


def _ranges(
    importance: npt.NDArray[np.float32], method: str
) -> tuple[npt.NDArray[np.float32] | npt.NDArray[np.float64], list[str]]:
    """The least importance of every bin, in increasing order, and the labels of the bins."""
    values = np.unique(importance)
    if len(values) <= _MAX_BINS or method == "constituency":
        return values, [importance_name(method, value) for value in values.tolist()]
    # With a function of the user, tokens in no word are far below all other values, and not part of their range.
    has_no_word = method == "custom" and values[0] == BACKGROUND
    scale = values[1:] if has_no_word else values
    # Such values may differ by more than the greatest float32.
    edges = np.histogram_bin_edges(scale.astype(np.float64), bins=_MAX_BINS)
    lows, labels = edges[:-1], [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges.tolist())]
    if has_no_word:
        return np.concatenate([[BACKGROUND], lows]), [importance_name(method, BACKGROUND), *labels]
    return lows, labels
