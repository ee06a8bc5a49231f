"""Skipping unwanted records, left to the reader of the file, which knows the fastest way."""

from collections.abc import Iterable, Iterator
from typing import TypeVar, final

from cascaded_dllm.text.document import Part

_Item = TypeVar("_Item")


@final
class Skip:
    """The number of next records to skip, shared by the consumer of the records and the readers of the files.

    A reader subtracts what it has skipped from `number`. At the end of a file the remainder stays, and the reader of
    the next file skips it. A reader yields a record only when `number` is 0.
    """

    def __init__(self) -> None:
        self.number = 0

    def take(self, most: int) -> int:
        """How many of the next `most` records the reader must skip; they count as skipped."""
        taken = min(self.number, most)
        self.number -= taken
        return taken

    def over(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The wanted ones of items that can only be read one after another."""
        for item in items:
            if not self.take(1):
                yield item

    def wanted(self, part: Part, items: Iterator[_Item]) -> Iterator[_Item]:
        """`part.of(items)`; the readers that yield `items` must skip by this number."""
        place = 0
        for number in part.numbers():
            self.number = number - place
            for item in items:
                yield item
                break
            else:
                return
            place = number + 1
        # Every part reads up to `stop`, so that all of them find the same faults.
        if part.stop is not None and part.stop > place:
            self.number = part.stop - place - 1
            next(items, None)
