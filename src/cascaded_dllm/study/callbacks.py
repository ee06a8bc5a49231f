"""The callbacks of a study at work: one says when to stop, the others receive log lines and progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cascaded_dllm.data.stages import BuildCallbacks
from cascaded_dllm.errors import FolderInUseError, StoppedError
from cascaded_dllm.study.folder import StudyFolder

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class StudyCallbacks:
    """Callbacks of whoever runs a study.

    Attributes:
        should_stop: whether to stop; called after every step of any work.
        say: receives a log line.
        show: receives what is being done, how much of it is done, and how much there is.
    """

    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda _: None
    show: Callable[[str, int, int], None] = lambda *_: None

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A callback that passes on the progress of some work, and raises a StoppedError when it is time to stop.

        Args:
            what: name of the work, for the display.
        """

        def tell(done: int, total: int) -> None:
            self.show(what, done, total)
            self.raise_if_stopping()

        return tell

    def raise_if_stopping(self) -> None:
        """Returns unless it is time to stop.

        Raises:
            StoppedError: it is time to stop.
        """
        if self.should_stop():
            raise StoppedError("the study was told to stop; what is finished is kept, and the same command goes on")

    def wait(self) -> None:
        """Sleeps for a moment while other processes work; raises a StoppedError if it is time to stop."""
        self.raise_if_stopping()
        time.sleep(_POLL_SECONDS)

    def building(self, what: str) -> BuildCallbacks:
        """Callbacks for building windows and stages, which stop the build, or the wait for another process's build.

        Args:
            what: name of the work, for the display.
        """
        tell = self.progress(what)
        return BuildCallbacks(
            on_progress=lambda done, total: tell(done, total or done),
            on_wait=lambda owner: self.say(f"{what}: waiting for {owner}, which builds the same"),
            go_on=self.raise_if_stopping,
        )

    @contextmanager
    def waiting_for(self, folder: StudyFolder, part: str) -> Iterator[None]:
        """Waits until no other process has the part, and locks it inside the block."""
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(folder.lock(part, self.raise_if_stopping))
                    break
                except FolderInUseError:
                    self.wait()
            yield
