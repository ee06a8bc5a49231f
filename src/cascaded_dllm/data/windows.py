"""Cuts documents into windows of one length, without loss or repetition."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.data.row_groups import DocumentBatch, RowGroup

PACKINGS: tuple[str, ...] = ("stream", "document")


class Tokens(NamedTuple):
    """A piece of the corpus: token ids with the importance of each, flat or as windows (windows, length)."""

    token_ids: npt.NDArray[np.int32]
    importance: npt.NDArray[np.float32]

    def joined(self, other: "Tokens") -> "Tokens":
        """This piece followed by the other one; both are flat."""
        return Tokens(
            np.concatenate([self.token_ids, other.token_ids]), np.concatenate([self.importance, other.importance])
        )

    def part(self, start: int, end: int) -> "Tokens":
        """The tokens, or windows, from `start` up to `end`."""
        return Tokens(self.token_ids[start:end], self.importance[start:end])

    def in_windows(self, length: int) -> "Tokens":
        """The same tokens as windows of `length`, which must divide their number."""
        return Tokens(self.token_ids.reshape(-1, length), self.importance.reshape(-1, length))


NO_TOKENS = Tokens(np.empty(0, np.int32), np.empty(0, np.float32))


class Cut(NamedTuple):
    """A piece of the corpus, cut at the borders of windows.

    Attributes:
        head: continues the window that the pieces before have begun; empty if they have begun none.
        windows: the whole windows.
        rest: begins the next window; empty if the piece ends with a whole window or within `head`.
    """

    head: Tokens
    windows: Tokens
    rest: Tokens


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """How documents lie in windows.

    Attributes:
        length: tokens of a window.
        packing: "stream" joins all documents, with an end of text after each, and cuts the stream. A window may hold
            the end of one document and the beginning of the next; the tokens left at the end fill no window.
            "document" begins a window with every document and fills up its last window with ends of text. A document
            that fills its windows exactly gets none, since a window of nothing but ends of text would teach nothing.
        eos_id: id of the end of text.
        background: importance of the end of text.
    """

    length: int
    packing: str
    eos_id: int
    background: float

    def __post_init__(self) -> None:
        """Checks the packing and the length.

        Raises:
            ConfigError: the packing is unknown or the length is below 1.
        """
        one_of("packing", self.packing, PACKINGS)
        require_at_least("the window length", self.length, 1, hint="for example the length of the last stage")

    def room(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of tokens that documents of these lengths take, ends of text included."""
        if self.packing == "stream":
            return lengths + 1
        return lengths + -lengths % self.length

    def lay_out(self, documents: DocumentBatch) -> Tokens:
        """The documents with their ends of text, as one piece."""
        room = self.room(documents.lengths)
        moved = np.cumsum(room - documents.lengths) - (room - documents.lengths)
        places = np.arange(len(documents.token_ids)) + np.repeat(moved, documents.lengths)
        token_ids = np.full(room.sum(), self.eos_id, dtype=np.int32)
        importance = np.full(room.sum(), self.background, dtype=np.float32)
        token_ids[places] = documents.token_ids
        importance[places] = documents.importance
        return Tokens(token_ids, importance)

    def cut(self, documents: DocumentBatch, missing: int) -> Cut:
        """The documents, cut at the borders of windows.

        Args:
            documents: of one row group.
            missing: number of tokens missing in the window that was begun before them; see `missing`.
        """
        tokens = self.lay_out(documents)
        start = min(missing, len(tokens.token_ids))
        end = start + (len(tokens.token_ids) - start) // self.length * self.length
        return Cut(
            tokens.part(0, start), tokens.part(start, end).in_windows(self.length), tokens.part(end, len(tokens[0]))
        )

    def missing(self, groups: Iterable[RowGroup]) -> list[int]:
        """For every row group of a dataset, the number of tokens missing in the window begun before it; 0 for none.

        It follows from the counts in the files, so that every row group can be cut without reading the others.
        """
        if self.packing == "document":
            return [0 for _ in groups]
        rooms = [group.num_tokens + group.num_documents for group in groups]
        starts = itertools.accumulate(rooms[:-1], initial=0)
        return [-start % self.length for start in starts] if rooms else []


@final
class Seam:
    """Completes the windows that lie across row groups, which must be passed in order.

    Attributes:
        begun: the tokens of the window begun last; at the end of the dataset, those that fill no window.
    """

    def __init__(self, length: int) -> None:
        self.begun = NO_TOKENS
        self._length = length

    def ended_by(self, head: Tokens) -> Tokens | None:
        """The window begun before, if the head of the next row group completes it; else None."""
        self.begun = self.begun.joined(head)
        if len(self.begun.token_ids) < self._length:
            return None
        window, self.begun = self.begun.in_windows(self._length), NO_TOKENS
        return window

    def begin(self, rest: Tokens) -> None:
        """Begins a window with the rest of a row group."""
        self.begun = self.begun.joined(rest)
