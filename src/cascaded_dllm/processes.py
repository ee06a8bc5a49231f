"""Worker processes on this machine, none of which outlives its parent; several use one thread each."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_THREAD_COUNTS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS")
_EXIT_ORPHANED = 70

MOST_WORKERS = 10_000
"""More processes than the cores of any machine, and than it starts without failing in an obscure way."""

_OWN = {"index": 0}


def usable_cores() -> int:
    """The number of cores that this process may use; the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_index() -> int:
    """The number of this process among those at work beside it, from 0; see `workers_from`."""
    return _OWN["index"]


@contextlib.contextmanager
def workers_from(first: int) -> Iterator[None]:
    """Gives this process another number inside the block, from which the numbers of its pools are counted.

    Only the caller that starts all processes knows how many come before the first one of this process.
    """
    before = _OWN["index"]
    _OWN["index"] = first
    try:
        yield
    finally:
        _OWN["index"] = before


@contextlib.contextmanager
def process_pool(num_processes: int, *, error_log: Path | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, which use one thread each if there are several; their numbers start at that of this process.

    They do not import the main module of the program, which may not be importable: nothing that is sent to them may be
    defined in it. If the block ends with an exception, running work is terminated; incomplete shards leave no trace.

    Args:
        num_processes: how many.
        error_log: file for the error streams of the processes; None for the terminal.
    """
    # A forked process would inherit locks held by threads that it does not have.
    context = _ContextWithoutMain()
    others = set(multiprocessing.active_children())
    with thread_counts(1 if num_processes > 1 else None):
        with deaf_to_terminal():
            begun = context.Value("i", worker_index())
            pool = ProcessPoolExecutor(num_processes, context, _begin, (error_log, begun))
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(
    pool: ProcessPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], *, ahead: int
) -> Iterator[_Result]:
    """`function` of every item, in their order; at most `ahead` items are submitted beyond the one that is awaited.

    If a process is killed, BrokenProcessPool comes out; the caller knows what was lost.
    """
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _ProcessWithoutMain(SpawnProcess):
    """A process that does not import the main module."""

    def start(self) -> None:
        """Starts the process while an empty module, which has no file to import, stands in for the main module."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            with deaf_to_terminal():
                super().start()
        finally:
            sys.modules["__main__"] = main


class _ContextWithoutMain(SpawnContext):
    """Spawns processes that import only what their work needs."""

    Process = _ProcessWithoutMain


@contextlib.contextmanager
def deaf_to_terminal() -> Iterator[None]:
    """Processes and threads started inside the block never get SIGINT and SIGHUP.

    By these a terminal tells all its processes at once that somebody pressed Ctrl-C or closed it. What follows is for
    this process to decide, which gets them at the end of the block at the latest: it may ask its workers to stop, and
    ends them by its own end. A worker that ignored the signals by itself would still get them while it begins. The
    process that multiprocessing starts by itself, to free what others leave behind, would otherwise be missed with a
    warning.
    """
    of_terminal = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, of_terminal)
    try:
        # Where this thread begins that process, multiprocessing lets SIGINT through again.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, of_terminal)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def thread_counts(number: int | None) -> Iterator[None]:
    """Processes started inside the block use `number` threads, unless the environment sets a number already."""
    names = [name for name in _THREAD_COUNTS if number is not None and name not in os.environ]
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _begin(error_log: Path | None, begun: "Synchronized[int]") -> None:
    """Sets up a new process of a pool.

    Args:
        error_log: see `process_pool`.
        begun: the number of the next process; a pool never replaces a process that has ended.
    """
    with begun.get_lock():
        _OWN["index"] = begun.value
        begun.value += 1
    threading.Thread(target=end_with_parent, daemon=True).start()
    if error_log is not None:
        file = os.open(error_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 2)
        os.close(file)


def end_with_parent() -> None:
    """Waits until the parent is gone, and ends this process, which would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(_EXIT_ORPHANED)
