"""Documents cut into windows of one length; nothing is lost and nothing is repeated."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.data.row_groups import Documents, RowGroup

PACKINGS: tuple[str, ...] = ("stream", "document")


class Tokens(NamedTuple):
    """A piece of the corpus: token ids, with the importance of each; flat, or as windows (windows, length)."""

    token_ids: npt.NDArray[np.int32]
    importance: npt.NDArray[np.float32]

    def joined(self, other: "Tokens") -> "Tokens":
        """This piece and then the other one."""
        return Tokens(
            np.concatenate([self.token_ids, other.token_ids]), np.concatenate([self.importance, other.importance])
        )

    def part(self, start: int, end: int) -> "Tokens":
        """The tokens, or windows, from `start` up to `end`."""
        return Tokens(self.token_ids[start:end], self.importance[start:end])

    def in_windows(self, length: int) -> "Tokens":
        """The same as windows of `length`, of which they fill a whole number."""
        return Tokens(self.token_ids.reshape(-1, length), self.importance.reshape(-1, length))


NO_TOKENS = Tokens(np.empty(0, np.int32), np.empty(0, np.float32))


class Cut(NamedTuple):
    """A piece of the corpus between the borders of windows.

    Attributes:
        head: ends the window that the pieces before have begun; empty where they have begun none.
        windows: whole ones.
        rest: begins a window; empty where it would end one.
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
        packing: "stream" joins all documents, an end of text after each, and cuts the stream, so a window may hold the
            end of one document and the beginning of the next, and what is left at the end fills no window. "document"
            begins every document in a window of its own and fills what is left of its last window with end of text; a
            document that fills its windows exactly gets none, as a window of nothing but end of text would teach
            nothing.
        eos_id: end of text.
        background: importance of the end of text.
    """

    length: int
    packing: str
    eos_id: int
    background: float

    def __post_init__(self) -> None:
        """Rejects what makes no windows.

        Raises:
            ConfigError: the packing is unknown or the length is below 1.
        """
        one_of("packing", self.packing, PACKINGS)
        require_at_least("the window length", self.length, 1, hint="for example the length of the last stage")

    def room(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tokens that documents of such lengths take, with the end of text."""
        if self.packing == "stream":
            return lengths + 1
        return lengths + -lengths % self.length

    def lay_out(self, documents: Documents) -> Tokens:
        """The documents with their ends of text, as one piece."""
        room = self.room(documents.lengths)
        moved = np.cumsum(room - documents.lengths) - (room - documents.lengths)
        places = np.arange(len(documents.token_ids)) + np.repeat(moved, documents.lengths)
        token_ids = np.full(room.sum(), self.eos_id, dtype=np.int32)
        importance = np.full(room.sum(), self.background, dtype=np.float32)
        token_ids[places] = documents.token_ids
        importance[places] = documents.importance
        return Tokens(token_ids, importance)

    def cut(self, documents: Documents, missing: int) -> Cut:
        """The documents between the borders of windows.

        Args:
            documents: of one row group.
            missing: tokens that the window begun before them lacks; see `missing`.
        """
        tokens = self.lay_out(documents)
        start = min(missing, len(tokens.token_ids))
        end = start + (len(tokens.token_ids) - start) // self.length * self.length
        return Cut(
            tokens.part(0, start), tokens.part(start, end).in_windows(self.length), tokens.part(end, len(tokens[0]))
        )

    def missing(self, groups: Iterable[RowGroup]) -> list[int]:
        """For every row group of a dataset, the tokens that the window lacks which those before it have begun.

        It follows from what is counted in the files, so that every row group can be cut without the others.
        """
        if self.packing == "document":
            return [0 for _ in groups]
        rooms = [group.num_tokens + group.num_documents for group in groups]
        starts = itertools.accumulate(rooms[:-1], initial=0)
        return [-start % self.length for start in starts] if rooms else []


@final
class Seam:
    """The window that lies across row groups, as they come one after another.

    Attributes:
        begun: its tokens so far.
    """

    def __init__(self, length: int) -> None:
        self.begun = NO_TOKENS
        self._length = length

    def ended_by(self, head: Tokens) -> Tokens | None:
        """The window, if the head of the next row group fills it."""
        self.begun = self.begun.joined(head)
        if len(self.begun.token_ids) < self._length:
            return None
        window, self.begun = self.begun.in_windows(self._length), NO_TOKENS
        return window

    def begin(self, rest: Tokens) -> None:
        """Takes what a row group leaves over."""
        self.begun = self.begun.joined(rest)
