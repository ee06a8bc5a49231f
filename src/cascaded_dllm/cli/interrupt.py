"""Ctrl-C and SIGTERM as a wish that long work can grant at a good moment; a second one is an order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    """Whether somebody has asked the program to stop, and by which signal."""

    signal_number: int | None = None

    def is_made(self) -> bool:
        """Whether to stop at the next good moment."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """What shells report for a program that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal_number or 0)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Ctrl-C and SIGTERM only make the request inside the block; after the first one they do what they did before.

    Nothing is printed here: a signal may arrive while a progress bar holds the terminal. A signal that is ignored, as
    in jobs that a shell has put in the background, stays so.
    """
    request = StopRequest()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    caught = {number: handler for number, handler in former.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in caught.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        restore()

    for number in caught:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
