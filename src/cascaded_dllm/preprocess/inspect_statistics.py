"""What importance looks like in the first windows of a dataset, and how much of it every stage keeps."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.cascade.select import INELIGIBLE_LABEL
from cascaded_dllm.cascade.select_many import kept_places
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.row_groups import RowGroup
from cascaded_dllm.data.windows import Layout, Seam, Tokens
from cascaded_dllm.importance.pos import PosLabel

# So many tokens are counted: a moment's work, and enough for three digits.
_TOKENS = 1 << 19
# More values than this are shown in so many ranges.
_MAX_BINS = 12


class Bin(NamedTuple):
    """Tokens of like importance.

    Attributes:
        label: the name of the importance, or its range.
        counts: tokens by the first stage, 1..K, that keeps them; those of dropped windows come last.
    """

    label: str
    counts: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over the first windows.

    Attributes:
        num_windows: how many there are.
        num_dropped: of those, the ones that have too few tokens to keep.
        bins: all their tokens, the most important first.
    """

    num_windows: int
    num_dropped: int
    bins: tuple[Bin, ...]


def importance_name(method: str, value: float) -> str:
    """The name of a part-of-speech label, the number for anything else."""
    if method != "constituency" or value not in set(PosLabel):
        return f"{value:.4g}"
    return "in no word" if value == PosLabel.NONE else PosLabel(int(value)).name.lower().replace("_", " ")


def first_stages(places: npt.NDArray[np.int32], spec: CascadeSpec) -> npt.NDArray[np.int64]:
    """The first stage, 1..K, that keeps each token; 0 in windows that cannot fill all stages.

    Args:
        places: (windows, length); see `kept_places`.
        spec: the stage lengths.
    """
    shortened = np.array(spec.stage_lengths[:-1], dtype=np.int32)
    stages = np.searchsorted(shortened, places, side="right") + 1
    has_enough = (places < spec.window_length).sum(axis=1) >= max(spec.stage_lengths[:-1], default=0)
    return np.where(has_enough[:, None], stages, 0)


def first_windows(groups: Sequence[RowGroup], layout: Layout) -> Tokens:
    """The windows at the beginning of a dataset, up to about half a million tokens."""
    wanted = max(_TOKENS // layout.length, 1)
    found: list[Tokens] = []
    num_found = 0
    for windows in _windows(groups, layout):
        found.append(windows)
        num_found += len(windows.token_ids)
        if num_found >= wanted:
            break
    empty = np.empty((0, layout.length))
    return Tokens(
        np.concatenate([empty.astype(np.int32), *(windows.token_ids for windows in found)]),
        np.concatenate([empty.astype(np.float32), *(windows.importance for windows in found)]),
    ).part(0, wanted)


def statistics(windows: Tokens, spec: CascadeSpec, method: str, *, unique: bool = True) -> Statistics:
    """The counts over some windows.

    Args:
        windows: (windows, length).
        spec: the stage lengths.
        method: the selection rule.
        unique: whether it keeps a token id once.
    """
    stages = first_stages(kept_places(*windows, method=method, unique=unique), spec)
    return Statistics(
        num_windows=len(stages),
        num_dropped=int((stages[:, :1] == 0).sum()),
        bins=tuple(_bins(windows.importance.ravel(), stages.ravel(), spec.num_stages, method)),
    )


def _windows(groups: Sequence[RowGroup], layout: Layout) -> Iterator[Tokens]:
    """All windows, row group after row group."""
    seam = Seam(layout.length)
    for group, missing in zip(groups, layout.missing(groups), strict=True):
        head, windows, rest = layout.cut(group.read(), missing)
        shared = seam.ended_by(head)
        if shared is not None:
            yield shared
        yield windows
        seam.begin(rest)


def _bins(
    importance: npt.NDArray[np.float32], stages: npt.NDArray[np.int64], num_stages: int, method: str
) -> Iterator[Bin]:
    """The tokens by importance, the strongest first."""
    lows, labels = _ranges(importance, method)
    numbers = np.searchsorted(lows, importance, side="right") - 1
    # Stage 0, the dropped windows, is counted last.
    columns = np.where(stages == 0, num_stages, stages - 1)
    counts = np.bincount(numbers * (num_stages + 1) + columns, minlength=len(lows) * (num_stages + 1))
    table = counts.reshape(-1, num_stages + 1).tolist()
    for row in _strongest_first(lows, method):
        yield Bin(labels[row], tuple(table[row]))


def _strongest_first(lows: npt.NDArray[np.float32], method: str) -> list[int]:
    """The numbers of the bins by falling strength."""
    rows = list(range(len(lows)))
    if method == "constituency":
        # Small labels are the strong ones, but for that of no word.
        return sorted(rows, key=lambda row: (lows[row] == INELIGIBLE_LABEL, row))
    return rows[::-1]


def _ranges(importance: npt.NDArray[np.float32], method: str) -> tuple[npt.NDArray[np.float32], list[str]]:
    """The least importance of every bin, rising, and its label."""
    values = np.unique(importance)
    if len(values) <= _MAX_BINS or method == "constituency":
        return values, [importance_name(method, value) for value in values.tolist()]
    edges = np.histogram_bin_edges(importance, bins=_MAX_BINS)
    return edges[:-1], [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges.tolist())]
