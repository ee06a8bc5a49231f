"""What all commands share on the terminal: errors as one line, progress bars, exit codes."""

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cascaded_dllm.errors import CascadeError, DamagedCheckpointWarning

EXIT_ERROR = 2
"""Exit code of a typed error; 1 is an unexpected one, 130 an interruption."""

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)

_WIDE = 110
"""Columns that a bar of training takes with everything that it can show."""


def say(line: str) -> None:
    """Prints a line as it is, however long, so that a path in it can be copied."""
    console.print(line, markup=False, soft_wrap=True)


def warn(line: str) -> None:
    """The same on the error stream, for what is no result."""
    error_console.print(line, markup=False)


@contextmanager
def reported_errors(debug: bool) -> Iterator[None]:
    """Typed errors inside the block end the command with one clear line; with `debug` they keep their traceback.

    Damaged checkpoints that were passed over are told in a line as well.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DamagedCheckpointWarning)
            warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
            yield
    except CascadeError as error:
        if debug:
            raise
        message = " ".join(str(error).split())
        error_console.print("[bold red]error:[/] ", end="")
        warn(message)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        error_console.print("interrupted")
        raise typer.Exit(130) from None


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Prints what concerns the user as a line of this command, and all else as Python does."""
    if issubclass(category, DamagedCheckpointWarning):
        warn(str(message))
    else:
        otherwise(message, category, *place, **more)


def say_passed_over(faults: Iterable[str]) -> None:
    """Prints, a line each, which checkpoints were passed over because they are damaged."""
    for fault in faults:
        warn(f"passed over a damaged checkpoint: {fault}")


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 document", "2,000 documents"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds: "0:07:31"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life during work that cannot count its steps: a spinner on a terminal, a line elsewhere."""
    if not console.is_terminal:
        console.print(what)
        yield
        return
    with console.status(what):
        yield


def is_wide() -> bool:
    """Whether the terminal has room for more than what is needed."""
    return console.width >= _WIDE


@final
class LogLine:
    """When a log hears how far something is: now and then, and never on a terminal, where a bar shows it.

    Args:
        seconds: that pass before a line, the first one and every other.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds, self._told = seconds, time.monotonic()

    def is_due(self) -> bool:
        """Whether to print a line; the time begins anew then."""
        now = time.monotonic()
        if console.is_terminal or now - self._told <= self.seconds:
            return False
        self._told = now
        return True


class _Left(TimeRemainingColumn):
    """The time that remains; nothing where that cannot be known, for a time that has passed would look like it."""

    def render(self, task: Task) -> Text:
        """The column of a task."""
        return Text() if task.total is None else super().render(task).append(" left")


@contextmanager
def progress_bar(
    description: str, *, log: Console | None = None
) -> Iterator[tuple[Progress, Callable[[int, int | None], None]]]:
    """A bar on the terminal, and the function that moves it: (done, total or None).

    Every task has a field `status`, which is shown; a task that is added needs it from the start, since it is drawn at
    once. A narrow terminal gets a shorter bar without the time that has passed, so that nothing is cut.

    Args:
        description: of what is done.
        log: where a line is told now and then while there is no terminal; None for nowhere.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28 if is_wide() else 8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        *([TimeElapsedColumn()] if is_wide() else []),
        _Left(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task(description, total=None, status="")
        line = LogLine()

        def move(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)
            if log is not None and line.is_due():
                log.print(f"{description}: {done:,}" + ("" if total is None else f" of {total:,}"))

        yield progress, move
