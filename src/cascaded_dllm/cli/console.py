"""The terminal output that all commands share: errors as one line, progress bars, exit codes."""

import errno
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
from cascaded_dllm.os_errors import is_short_of_processes, remedy_for

EXIT_ERROR = 2
"""Exit code of a typed error; an unexpected error exits with 1, Ctrl-C with 130."""

# Paths and texts are printed: "[x]" and ":x:" in them are neither markup nor emoji.
console = Console(markup=False, emoji=False, highlight=False)
error_console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

_NO_SUCH_PLACE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EROFS)
"""Errors of the system about a name that leads nowhere, such as a text where a file was asked for."""

# Control characters of a text are shown as pictures, so that they do not move the cursor or change colours.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
_CONTROLS = _PICTURES | dict.fromkeys(range(128, 160), 0xFFFD)

_NEAR = 40
"""Characters of a text that a message shows before and after the wrong one."""
_WIDE = 110
"""Columns that the progress bar of training needs for all its fields."""


def say(line: str) -> None:
    """Prints a line without wrapping it, so that a path in it can be copied."""
    console.print(line, soft_wrap=True)


def note(line: str) -> None:
    """Prints a line that begins with a coloured "note:"."""
    console.print(Text.assemble(("note:", "yellow"), " ", line), soft_wrap=True)


def heading(line: str) -> None:
    """Prints a line in bold between two rules."""
    console.rule(Text(line, style="bold"))


def warn(line: str) -> None:
    """Prints a line on the error stream, for everything that is not a result."""
    error_console.print(line)


@contextmanager
def reported_errors(debug: bool) -> Iterator[None]:
    """Turns typed errors inside the block into one line and an exit code; with `debug` they keep their traceback.

    So is a file or folder that the user has no right to, or whose name leads nowhere or is not UTF-8, wherever it is
    met, and so is a lack of memory or of processes that no other error explains. Warnings about damaged checkpoints
    that were passed over also become one line each.

    Raises:
        typer.Exit: the block raised such an error, or Ctrl-C interrupted it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DamagedCheckpointWarning)
            warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
            yield
    except CascadeError as error:
        if debug:
            raise
        report(str(error))
        raise typer.Exit(EXIT_ERROR) from None
    except (RuntimeError, BlockingIOError) as error:
        if debug or not is_short_of_processes(error):
            raise
        report(f"the system gives no further process or thread ({error}); {remedy_for(error, '')}")
        raise typer.Exit(EXIT_ERROR) from None
    except OSError as error:
        has_no_right = isinstance(error, PermissionError)
        if debug or error.filename is None or not (has_no_right or error.errno in _NO_SUCH_PLACE):
            raise
        remedy = "give yourself the right to do so, or name" if has_no_right else "name"
        report(f"{error.filename} cannot be read or written ({error.strerror}); {remedy} another file or folder")
        raise typer.Exit(EXIT_ERROR) from None
    except MemoryError as error:
        if debug:
            raise
        report(
            f"memory has run out{f' ({error})' if str(error) else ''}; give the command more of it, or less to do at "
            "once, such as fewer workers, smaller batches or shorter texts"
        )
        raise typer.Exit(EXIT_ERROR) from None
    except UnicodeEncodeError as error:
        if debug or error.reason != "surrogates not allowed":
            raise
        near = error.object[max(error.start - _NEAR, 0) : error.end + _NEAR]
        report(f"{near!r} contains a byte that is not UTF-8; rename the file or folder, or give another text")
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        error_console.print("interrupted")
        raise typer.Exit(130) from None


def visible(text: str) -> str:
    """`text` with control characters replaced by pictures of them, except line feeds and tabs."""
    return text.translate(_CONTROLS)


def report(message: str) -> None:
    """Prints an error as one line that begins with "error:"."""
    error_console.print(Text("error: ", style="bold red"), end="")
    warn(" ".join(message.split()))


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Prints a warning about a damaged checkpoint as one line, and passes all others to `otherwise`."""
    if issubclass(category, DamagedCheckpointWarning):
        warn(str(message))
    else:
        otherwise(message, category, *place, **more)


def say_passed_over(faults: Iterable[str]) -> None:
    """Prints a line for each checkpoint that was passed over because it is damaged."""
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
    """Shows that work goes on whose steps cannot be counted: a spinner on a terminal, a line elsewhere."""
    if not console.is_terminal:
        console.print(what)
        yield
        return
    with console.status(Text(what)):
        yield


def is_wide() -> bool:
    """Whether the terminal has room for all fields of a progress bar."""
    return console.width >= _WIDE


@final
class LogLine:
    """Decides when a log gets a progress line: at intervals, and never on a terminal, where a bar shows the progress.

    Args:
        seconds: time before the first line, and between lines.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds, self._last_line = seconds, time.monotonic()

    def is_due(self) -> bool:
        """Whether to print a line now; if so, the next interval begins."""
        now = time.monotonic()
        if console.is_terminal or now - self._last_line <= self.seconds:
            return False
        self._last_line = now
        return True


class _Left(TimeRemainingColumn):
    """The remaining time and "left", which tells it from the elapsed time; empty while the total is unknown."""

    def render(self, task: Task) -> Text:
        """The text of this column for a task."""
        return Text() if task.total is None else super().render(task).append(" left")


@contextmanager
def progress_bar(
    description: str, *, log: Console | None = None
) -> Iterator[tuple[Progress, Callable[[int, int | None], None]]]:
    """A progress bar on the terminal, and the function that moves it: (done, total or None).

    The bar shows the field `status` of its tasks. Add a task with this field, because it is drawn at once. A narrow
    terminal gets a shorter bar without the elapsed time, so that nothing is cut off.

    Args:
        description: what is being done.
        log: gets a line at intervals when there is no terminal; None for no lines.
    """
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28 if is_wide() else 8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
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
