"""Windows of a dataset, drawn at random or of one document, read without the rest of the dataset."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cascaded_dllm.data.row_groups import DocumentBatch, RowGroup
from cascaded_dllm.data.windows import NO_TOKENS, Layout, Tokens
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.rng import numpy_generator

_NAMES_SHOWN = 3
_MOST_SHOWN = 1_000_000
"""Tokens of all shown windows together: several novels, in some seconds."""


class Found(NamedTuple):
    """A window, with its title and the ids of the documents that have tokens in it."""

    title: str
    documents: tuple[str, ...]
    tokens: Tokens


class Chosen(NamedTuple):
    """Windows, and in words how they were chosen."""

    description: str
    windows: list[Found]


def random_windows(groups: Sequence[RowGroup], layout: Layout, count: int, seed: int) -> Chosen:
    """Windows drawn at random: from the stream, or with packing "document" one each from randomly drawn documents.

    Args:
        groups: of the dataset.
        layout: how documents lie in windows.
        count: the most windows.
        seed: decides which.

    Raises:
        ConfigError: they have too many tokens to be shown.
    """
    draw = numpy_generator(seed, "inspect")
    if layout.packing == "stream":
        total = _starts(groups)[-1] // layout.length
        if total == 0:
            return _unfilled(groups, layout)
        _require_few(min(count, total), layout)
        numbers = sorted(draw.choice(total, min(count, total), replace=False).tolist())
        description = f"{len(numbers):,} of {total:,} windows, drawn with seed {seed}"
        return Chosen(description, list(_stream_windows(groups, layout, numbers)))
    starts = list(itertools.accumulate((group.num_documents for group in groups), initial=0))
    _require_few(min(count, starts[-1]), layout)
    documents = sorted(draw.choice(starts[-1], min(count, starts[-1]), replace=False).tolist())
    description = f"one window each of {len(documents):,} of {starts[-1]:,} documents, drawn with seed {seed}"
    read = _reader(groups)
    windows = []
    for number in documents:
        place = _place(starts, number)
        of_one = _windows_of(read(place), number - starts[place], layout)
        windows.append(of_one[int(draw.integers(len(of_one)))])
    return Chosen(description, windows)


def document_windows(groups: Sequence[RowGroup], layout: Layout, count: int, document: str, where: str) -> Chosen:
    """The windows that hold tokens of a document.

    Args:
        groups: of the dataset.
        layout: how documents lie in windows.
        count: the most windows.
        document: its id; the first document with this id is taken.
        where: what is searched, for messages.

    Raises:
        ConfigError: the windows have too many tokens to be shown.
        DataError: there is no such document.
    """
    place, row = _find(groups, document, where)
    documents = groups[place].read()
    if layout.packing == "document":
        windows = _windows_of(documents, row, layout)
        total, shown = len(windows), windows[:count]
        _require_few(len(shown), layout)
    elif _starts(groups)[-1] < layout.length:
        return _unfilled(groups, layout)
    else:
        start = _starts(groups)[place] + int(layout.room(documents.lengths[:row]).sum())
        end = min(start + int(documents.lengths[row]), _starts(groups)[-1] // layout.length * layout.length)
        numbers = range(start // layout.length, -(-end // layout.length))
        _require_few(len(numbers[:count]), layout)
        total, shown = len(numbers), list(_stream_windows(groups, layout, numbers[:count]))
    return Chosen(f"{len(shown):,} of the {total:,} windows that hold tokens of the document {document}", shown)


def _require_few(count: int, layout: Layout) -> None:
    """Checks that windows can be shown, before any is read.

    Raises:
        ConfigError: they have too many tokens.
    """
    if count * layout.length > _MOST_SHOWN:
        raise ConfigError(
            f"{count} windows with {count * layout.length} tokens are to be shown; it must be at most {_MOST_SHOWN} "
            "tokens: give a smaller --num-windows, or shorter stages (--lengths)"
        )


def _unfilled(groups: Sequence[RowGroup], layout: Layout) -> Chosen:
    """All tokens of a corpus that does not fill one window."""
    names, tokens = [], NO_TOKENS
    for group in groups:
        documents = group.read()
        names += documents.ids
        tokens = tokens.joined(layout.lay_out(documents))
    number = len(tokens.token_ids)
    return Chosen(
        f"no window: all documents have {number:,} tokens with their ends of text, and a window has {layout.length:,}",
        [Found("all documents", tuple(names), tokens)],
    )


def _find(groups: Sequence[RowGroup], document: str, where: str) -> tuple[int, int]:
    """The row group and the row of a document.

    Raises:
        DataError: there is no such document.
    """
    for place, group in enumerate(groups):
        names = group.read_ids()
        if document in names:
            return place, names.index(document)
    every = itertools.chain.from_iterable(group.read_ids() for group in groups)
    first = ", ".join(map(repr, itertools.islice(every, _NAMES_SHOWN)))
    raise DataError(f"no document of {where} has the id {document!r}; the first ids there are {first}")


def _windows_of(documents: DocumentBatch, row: int, layout: Layout) -> list[Found]:
    """The windows of one document with packing "document"."""
    ends = np.cumsum(documents.lengths)
    part = slice(int(ends[row] - documents.lengths[row]), int(ends[row]))
    alone = DocumentBatch(
        [documents.ids[row]],
        documents.lengths[row : row + 1],
        documents.token_ids[part],
        documents.importance[part],
    )
    windows = layout.lay_out(alone).in_windows(layout.length)
    total = len(windows.token_ids)
    return [
        Found(
            f"window {number + 1:,} of {total:,} of its document",
            (documents.ids[row],),
            Tokens(windows.token_ids[number], windows.importance[number]),
        )
        for number in range(total)
    ]


def _stream_windows(groups: Sequence[RowGroup], layout: Layout, numbers: Sequence[int]) -> Iterator[Found]:
    """The windows of the stream with these increasing numbers."""
    starts, read = _starts(groups), _reader(groups)
    for number in numbers:
        first, last = number * layout.length, (number + 1) * layout.length
        tokens, names = NO_TOKENS, []
        for place in range(_place(starts, first), len(groups)):
            if starts[place] >= last:
                break
            documents = read(place)
            ends = starts[place] + np.cumsum(layout.room(documents.lengths))
            begin, end = max(first - starts[place], 0), last - starts[place]
            tokens = tokens.joined(layout.lay_out(documents).part(begin, end))
            inside = np.flatnonzero((ends > first) & (ends - layout.room(documents.lengths) < last))
            names += [documents.ids[row] for row in inside.tolist()]
        yield Found(f"window {number + 1:,} of the stream", tuple(names), tokens)


def _starts(groups: Sequence[RowGroup]) -> list[int]:
    """The positions in the stream where every row group begins and the last one ends."""
    return list(itertools.accumulate((group.num_tokens + group.num_documents for group in groups), initial=0))


def _place(starts: Sequence[int], number: int) -> int:
    """The row group that holds a token or document, given where each row group begins."""
    return int(np.searchsorted(starts, number, side="right")) - 1


def _reader(groups: Sequence[RowGroup]) -> Callable[[int], DocumentBatch]:
    """Reads row groups by their place, and keeps the last two for the next window."""
    return functools.lru_cache(maxsize=2)(lambda place: groups[place].read())
