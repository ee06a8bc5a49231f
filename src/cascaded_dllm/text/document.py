"""What every corpus yields: documents, and records that were dropped."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, final, runtime_checkable

READ_ONCE_FROM = 3
"""From this many parts on, a corpus of which each part would have to read everything is read once for all of them.

Reading everything, storing it by parts and reading that costs as much as reading the corpus two to three times."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the name by which its shard record, its errors and its samples refer to it."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that is not a document; with these, the counts of a manifest add up to the input.

    Attributes:
        id: its name, like that of a document.
        reason: a few words, such as "empty" or "heading".
        characters: its length.
    """

    id: str
    reason: str
    characters: int


@final
@dataclass(frozen=True, slots=True)
class Holdout:
    """One side of a corpus of which every `every`-th record is held out, for validation.

    Attributes:
        every: 2 or more; records `every` - 1, 2 * `every` - 1 and so on are held out.
        held: whether this side has the records held out; otherwise it has the rest.
    """

    every: int
    held: bool

    def has(self, number: int) -> bool:
        """Whether the record with this number in the corpus is on this side."""
        return (number % self.every == self.every - 1) == self.held

    def place(self, number: int) -> int:
        """The number that a record of this side has within it, from its number in the corpus."""
        before = number // self.every
        return before if self.held else number - before


@final
@dataclass(frozen=True, slots=True)
class Part:
    """Which records of a corpus are wanted: of the first `stop`, or of all, those with number % num_parts == index.

    With a `holdout`, `stop` counts the records of the corpus, and `index` those of its side.
    """

    index: int = 0
    num_parts: int = 1
    stop: int | None = None
    holdout: Holdout | None = None

    def of(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The wanted ones of `items`, where item j belongs to record j; nothing is read beyond `stop`."""
        if self.holdout is None:
            return itertools.islice(items, self.index, self.stop, self.num_parts)
        numbered = enumerate(itertools.islice(items, self.stop))
        side = (item for number, item in numbered if self.holdout.has(number))
        return itertools.islice(side, self.index, None, self.num_parts)

    def numbers(self) -> Iterator[int]:
        """The numbers of the wanted records in the corpus; endless without a `stop`."""
        return self.of(itertools.count())


@runtime_checkable
class Reader(Protocol):
    """The source of a corpus' records; it is pickled to the processes that read parts of it."""

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """The wanted records in order, as documents or dropped; every call starts a new stream."""
        ...

    def source(self) -> dict[str, object]:
        """Everything that decides the records, as plain JSON values and without paths of this machine."""
        ...


@runtime_checkable
class WholeReader(Reader, Protocol):
    """A reader that may have to read everything to find any part."""

    def read_once_from(self) -> int | None:
        """From how many parts on it is less work to read everything once and store it by parts; None for never."""
        ...

    def numbered(self, stop: int | None) -> Iterator[tuple[int, Document | Dropped]]:
        """The first `stop` records, or all, in one pass, each with its number; several may share a number."""
        ...
