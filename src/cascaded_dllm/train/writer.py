"""Writing in the background: the loop goes on while what was copied for the disk is written."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import final


@final
class BackgroundWriter:
    """One job at a time, in a thread. What it raises is raised again where the loop next asks, and never lost."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._job: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the job, and raise what it raised, also where the block has ended with an error of its own."""
        try:
            self.finish()
        finally:
            self._pool.shutdown()

    def begin(self, job: Callable[[], None]) -> None:
        """Start `job` once the one before is done, whose error is raised."""
        self.finish()
        self._job = self._pool.submit(job)

    def check(self) -> None:
        """Raise the error of a job that is done, without waiting for one that is not."""
        if self._job is not None and self._job.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the job, and raise its error."""
        job, self._job = self._job, None
        if job is not None:
            job.result()
