"""Who stands beside a study while it works: is told what happens, and says when to stop."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cascaded_dllm.data.stages import Building
from cascaded_dllm.errors import FolderInUseError, StoppedError
from cascaded_dllm.study.place import Place

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Attendant:
    """What happens is told, and a wish to stop is asked for.

    Attributes:
        should_stop: asked after every step of everything.
        say: told a line.
        show: told what is going on, how much of it is done, and how much there is.
    """

    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda _: None
    show: Callable[[str, int, int], None] = lambda *_: None

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A function that is told of the progress of something, and ends it when it should stop.

        Args:
            what: is going on.
        """

        def tell(done: int, total: int) -> None:
            self.show(what, done, total)
            self.go_on()

        return tell

    def go_on(self) -> None:
        """Nothing, unless it is time to stop.

        Raises:
            StoppedError: it is.
        """
        if self.should_stop():
            raise StoppedError("the study was told to stop; what is finished is kept, and the same command goes on")

    def wait(self) -> None:
        """Lets a moment pass in which others work; a StoppedError if it is time to stop."""
        self.go_on()
        time.sleep(_POLL_SECONDS)

    def building(self, what: str) -> Building:
        """Who is told how windows and stages are built, and ends it when it should stop, also while another one builds.

        Args:
            what: is going on.
        """
        tell = self.progress(what)
        return Building(
            on_progress=lambda done, total: tell(done, total or done),
            on_wait=lambda owner: self.say(f"{what}: waiting for {owner}, which builds the same"),
            go_on=self.go_on,
        )

    @contextmanager
    def waiting_for(self, place: Place, part: str) -> Iterator[None]:
        """The part belongs to this process inside the block, once no other one has it."""
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(place.lock(part, self.go_on))
                    break
                except FolderInUseError:
                    self.wait()
            yield
