"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 as a request to stop, which long work answers at a good moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import typer

from cascaded_dllm.cli.console import error_console, warn
from cascaded_dllm.errors import EXIT_AGAIN, StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_ONLY_ASK = (signal.SIGHUP, signal.SIGUSR1)
"""Signals that come several times without anybody being impatient: of a closed terminal, both the shell and the system
tell; a batch system announces more than once that time is running out."""


@dataclass(slots=True)
class StopRequest:
    """Whether the program was asked to stop, and by which signal first."""

    signal_number: int | None = None
    _is_answered: bool = field(default=False, init=False)

    def is_made(self) -> bool:
        """Whether the work should stop at the next good moment."""
        return self.signal_number is not None

    def is_made_and_answered(self, answer: str) -> bool:
        """Whether the request is made; prints `answer` once, because the signal handler itself must not print."""
        if self.is_made() and not self._is_answered:
            self._is_answered = True
            error_console.print(answer)
        return self.is_made()

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, as shells report it; otherwise `EXIT_AGAIN`, also if only another process got the signal."""
        return 130 if self.signal_number == signal.SIGINT else EXIT_AGAIN


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 inside the block only make the request that is yielded.

    A second Ctrl-C or SIGTERM does what it did before the block, which usually ends the program. SIGHUP, by which a
    closed terminal is told, and SIGUSR1, by which a batch system announces that time is running out, never do more than
    ask. After a request, these two are ignored even when the block has ended, so that they do not kill a program that
    is already stopping.

    The handler prints nothing, because a signal may arrive while a progress bar is being drawn. Signals that were
    ignored before, as in background jobs of a shell and under nohup, stay ignored.
    """
    request = StopRequest()
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = {number: handler for number, handler in former.items() if handler not in (signal.SIG_IGN, None)}

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = request.signal_number or number
        if number not in _ONLY_ASK:
            signal.signal(number, caught[signal.Signals(number)])

    for number in caught:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in caught.items():
            has_asked = number in _ONLY_ASK and request.is_made()
            signal.signal(number, signal.SIG_IGN if has_asked else handler)


@contextmanager
def reported_stop() -> Iterator[StopRequest]:
    """`stop_request`, which also ends the command with a message and an exit code if the block was stopped.

    Raises:
        typer.Exit: it was stopped.
    """
    with stop_request() as request:
        try:
            yield request
        except StoppedError as stopped:
            warn(str(stopped))
            raise typer.Exit(request.exit_code) from None
