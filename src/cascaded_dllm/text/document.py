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
class Part:
    """Which records of a corpus are wanted: of the first `stop`, or of all, those with number % num_parts == index."""

    index: int = 0
    num_parts: int = 1
    stop: int | None = None

    def of(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those of `items` that are wanted, where item j belongs to record j; nothing is read beyond `stop`."""
        return itertools.islice(items, self.index, self.stop, self.num_parts)


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
