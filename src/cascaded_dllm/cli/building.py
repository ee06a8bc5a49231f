"""Windows and stages while they are built: a sign of life, then a bar, and for whom this process waits.

Mostly they are there already. So a log hears of it once something is built, and a terminal has a sign of life at once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import final

from rich.console import Console

from cascaded_dllm.cli.console import LogLine, console, error_console, progress_bar, working
from cascaded_dllm.data.stages import Building

BUILDING = "building windows and stages"


@contextmanager
def shown_building(what: str, *, as_json: bool = False) -> Iterator[Building]:
    """Shows work inside the block, of which building may be a part, or all.

    Args:
        what: is done.
        as_json: whether standard output is for a program; lines go to the error stream then, where it takes long.
    """
    with ExitStack() as shown:
        if console.is_terminal:
            shown.enter_context(working(what))
        display = _Display(what, shown, error_console if as_json else console)
        yield Building(display.progress, display.wait)


@final
class _Display:
    """What is shown: as long as nothing is built, the sign of life that `shown` holds; lines go to `log`."""

    def __init__(self, what: str, shown: ExitStack, log: Console) -> None:
        self._what, self._shown, self._log = what, shown, log
        self._move: Callable[[int, int | None], None] | None = None
        self._line = LogLine()

    def progress(self, done: int, total: int | None) -> None:
        """So many documents are in windows, of all of a dataset."""
        if self._move is None:
            if not console.is_terminal and self._log is console:
                self._log.print(self._what)
            # A terminal has room for one thing that moves.
            self._shown.close()
            _, self._move = self._shown.enter_context(progress_bar(self._what))
        self._move(done, total)
        if self._line.is_due():
            self._log.print(f"{self._what}: {done:,} of {total:,} documents")

    def wait(self, owner: str) -> None:
        """Another process builds the same."""
        self._log.print(f"{self._what}: waiting for {owner}, which builds the same", markup=False, soft_wrap=True)
