"""What every corpus yields: documents, and what its input held that is none."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, final, runtime_checkable

READ_ONCE_FROM = 3
"""The number of parts from which on a corpus is read once for all of them, where each would have to read all of it.

To read everything, lay it down and read that again costs as much as to read the corpus two to three times."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the name by which its shard record, its errors and its samples refer to it."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A piece of the input that is no document, so that what a manifest counts adds up to the input.

    Attributes:
        id: its name, as a document's.
        reason: one word or a few: "empty", "heading".
        characters: its length.
    """

    id: str
    reason: str
    characters: int


@final
@dataclass(frozen=True, slots=True)
class Holdout:
    """One side of a corpus of which every `every`-th record is held out, as for validation.

    Attributes:
        every: 2 or more; records `every` - 1, 2 * `every` - 1 and so on are held out.
        held: whether it is the side of those; else that of the rest.
    """

    every: int
    held: bool

    def has(self, number: int) -> bool:
        """Whether a record, by its number in the corpus, is on this side."""
        return (number % self.every == self.every - 1) == self.held

    def place(self, number: int) -> int:
        """The number on this side of a record that is on it."""
        before = number // self.every
        return before if self.held else number - before


@final
@dataclass(frozen=True, slots=True)
class Part:
    """Which records of a corpus are wanted: of the first `stop`, or of all, those with number % num_parts == index.

    Where there is a `holdout`, it is the number on that side which counts for the index, and that in the corpus for
    `stop`.
    """

    index: int = 0
    num_parts: int = 1
    stop: int | None = None
    holdout: Holdout | None = None

    def of(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those of `items` that are wanted, where item j belongs to record j; nothing is read beyond `stop`."""
        if self.holdout is None:
            return itertools.islice(items, self.index, self.stop, self.num_parts)
        numbered = enumerate(itertools.islice(items, self.stop))
        side = (item for number, item in numbered if self.holdout.has(number))
        return itertools.islice(side, self.index, None, self.num_parts)

    def numbers(self) -> Iterator[int]:
        """The numbers in the corpus of the wanted records, without an end where there is no `stop`."""
        return self.of(itertools.count())


@runtime_checkable
class Reader(Protocol):
    """Where the records of a corpus come from. It is pickled to the processes that read parts of it."""

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """The wanted records in order, each as its document or as what was dropped; a new stream with every call."""
        ...

    def source(self) -> dict[str, object]:
        """Everything that decides the records, as plain JSON values; no path of this machine."""
        ...


@runtime_checkable
class WholeReader(Reader, Protocol):
    """A reader that may have to pass over everything to find any part."""

    def read_once_from(self) -> int | None:
        """The number of parts from which on it is less work to read all once and lay it down; None for no number."""
        ...

    def numbered(self, stop: int | None) -> Iterator[tuple[int, Document | Dropped]]:
        """The first `stop` records, or all, in one pass, each with its number; one record may bring several."""
        ...
