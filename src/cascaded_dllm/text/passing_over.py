"""Records that nobody wants, passed over by whoever reads the files: it knows how to do that in the least time."""

from collections.abc import Iterable, Iterator
from typing import TypeVar, final

from cascaded_dllm.text.document import Part

_Item = TypeVar("_Item")


@final
class Gap:
    """How many of the next records are not wanted; shared by who wants records and who reads them.

    A reader takes from `number` what it passes over, also at the end of a file, so that the rest is passed over in the
    next one. It yields a record only when `number` is 0.
    """

    def __init__(self) -> None:
        self.number = 0

    def take(self, most: int) -> int:
        """How many of the next `most` records are not wanted; the reader passes them over."""
        taken = min(self.number, most)
        self.number -= taken
        return taken

    def over(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The wanted ones of items that can only be had one after the other."""
        for item in items:
            if not self.take(1):
                yield item

    def wanted(self, part: Part, items: Iterator[_Item]) -> Iterator[_Item]:
        """`part.of` items, which must heed this gap."""
        place = 0
        for number in part.numbers():
            self.number = number - place
            for item in items:
                yield item
                break
            else:
                return
            place = number + 1
        # What is wrong with a file is seen by every part, up to the same place.
        if part.stop is not None and part.stop > place:
            self.number = part.stop - place - 1
            next(items, None)
