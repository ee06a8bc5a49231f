"""Progress of building windows and stages: a spinner, then a bar, and which process this one waits for.

Mostly they exist already. So a log gets a line only when something is built, while a terminal shows a spinner at once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import final

from rich.console import Console

from cascaded_dllm.cli.console import LogLine, console, error_console, progress_bar, working
from cascaded_dllm.data.stages import BuildCallbacks

BUILDING = "building windows and stages"


@contextmanager
def shown_building(what: str, *, as_json: bool = False) -> Iterator[BuildCallbacks]:
    """Shows the work inside the block, some or all of which may be building; yields the callbacks for it.

    Args:
        what: the work.
        as_json: whether standard output is for a program; lines, printed if it takes long, then go to the error stream.
    """
    with ExitStack() as shown:
        if console.is_terminal:
            shown.enter_context(working(what))
        display = _Display(what, shown, error_console if as_json else console)
        yield BuildCallbacks(display.progress, display.wait)


@final
class _Display:
    """Shows the spinner in `shown` until something is built, then a bar; lines go to `log`."""

    def __init__(self, what: str, shown: ExitStack, log: Console) -> None:
        self._what, self._shown, self._log = what, shown, log
        self._move: Callable[[int, int | None], None] | None = None
        self._line = LogLine()

    def progress(self, done: int, total: int | None) -> None:
        """Shows how many documents of the dataset have been cut into windows."""
        if self._move is None:
            if not console.is_terminal and self._log is console:
                self._log.print(self._what)
            # A terminal can show only one live display.
            self._shown.close()
            _, self._move = self._shown.enter_context(progress_bar(self._what))
        self._move(done, total)
        if self._line.is_due():
            self._log.print(f"{self._what}: {done:,} of {total:,} documents")

    def wait(self, owner: str) -> None:
        """Says that this process waits for `owner`, which builds the same."""
        self._log.print(f"{self._what}: waiting for {owner}, which builds the same", soft_wrap=True)
