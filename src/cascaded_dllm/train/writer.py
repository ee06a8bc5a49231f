"""Writing in the background, so that training goes on while a checkpoint is written."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import final


@final
class BackgroundWriter:
    """Runs one job at a time in a thread. An error of a job is never lost: a later call, or the exit, raises it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._job: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the job and raise its error, even if the block ended with another error."""
        try:
            self.finish()
        finally:
            self._pool.shutdown()

    def begin(self, job: Callable[[], None]) -> None:
        """Start `job` once the previous job is done; raise the error of that one."""
        self.finish()
        self._job = self._pool.submit(job)

    def check(self) -> None:
        """Raise the error of a job that has ended; do not wait for one that is running."""
        if self._job is not None and self._job.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the job, and raise its error."""
        job, self._job = self._job, None
        if job is not None:
            job.result()
