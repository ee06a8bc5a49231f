"""Ctrl-C, SIGTERM and SIGUSR1 as a wish that long work can grant at a good moment; a second one is an order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import typer

from cascaded_dllm.cli.console import error_console, warn
from cascaded_dllm.errors import EXIT_AGAIN, StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(slots=True)
class StopRequest:
    """Whether somebody has asked the program to stop, and by which signal first."""

    signal_number: int | None = None
    _is_answered: bool = field(default=False, init=False)

    def is_made(self) -> bool:
        """Whether to stop at the next good moment."""
        return self.signal_number is not None

    def is_made_and_answered(self, answer: str) -> bool:
        """Whether it is made; the first time so, `answer` is printed, not by the signal, which may arrive anywhere."""
        if self.is_made() and not self._is_answered:
            self._is_answered = True
            error_console.print(answer)
        return self.is_made()

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, as shells report it; otherwise `EXIT_AGAIN`, also where another process was told."""
        return 130 if self.signal_number == signal.SIGINT else EXIT_AGAIN


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGUSR1 only make the request inside the block.

    Given a second time, Ctrl-C and SIGTERM do what they did before. SIGUSR1, by which a batch system announces that
    time is running out, never does more than ask.

    Once a request was made SIGUSR1 is ignored, also after the block: whoever sends it then only asks for what is being
    done, and it must not end a program that is about to.

    Nothing is printed here: a signal may arrive while a progress bar holds the terminal. A signal that is ignored, as
    in jobs that a shell has put in the background, stays so.
    """
    request = StopRequest()
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = {number: handler for number, handler in former.items() if handler not in (signal.SIG_IGN, None)}

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = request.signal_number or number
        if number != signal.SIGUSR1:
            signal.signal(number, caught[signal.Signals(number)])

    for number in caught:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in caught.items():
            has_asked = number == signal.SIGUSR1 and request.is_made()
            signal.signal(number, signal.SIG_IGN if has_asked else handler)


@contextmanager
def reported_stop(request: StopRequest) -> Iterator[None]:
    """Ends the command in good order when the work inside the block was stopped.

    Raises:
        typer.Exit: it was.
    """
    try:
        yield
    except StoppedError as stopped:
        warn(str(stopped))
        raise typer.Exit(request.exit_code) from None
