"""Processes of this machine that work for another one: each on one core, and none outlives the one it works for."""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
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

_OWN = {"place": 0}


def usable_cores() -> int:
    """The cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_place() -> int:
    """The number of this process among those at work beside it, from 0; see `at_place`."""
    return _OWN["place"]


@contextlib.contextmanager
def at_place(place: int) -> Iterator[None]:
    """Gives this process another place, from which those of a pool that it starts are counted.

    Only who has started all processes knows how many stand before the first of this one's.
    """
    before = _OWN["place"]
    _OWN["place"] = place
    try:
        yield
    finally:
        _OWN["place"] = before


@contextlib.contextmanager
def process_pool(num_processes: int, *, error_log: Path | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes use one thread each, where there are several; their places begin at that of this one.

    They do not import the main module of the program, which may be none that can be imported: nothing of what they are
    given may be defined in it. When the block ends with an exception, what runs is ended too: shards that are not
    complete were never there.

    Args:
        num_processes: how many.
        error_log: where the error streams of the processes go, in place of the terminal.
    """
    # A forked process would inherit the locks of threads that it does not have.
    context = _ContextWithoutMain()
    others = set(multiprocessing.active_children())
    with thread_counts(1 if num_processes > 1 else None):
        begun = context.Value("i", own_place())
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
    """What `function` gives for every item, in their order; of what is to come, no more than `ahead` are given out.

    A process that was killed is a BrokenProcessPool, and the caller knows what was lost with it.
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
        """Starts it while another main module stands in, which has no file to import."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _ContextWithoutMain(SpawnContext):
    """Spawns processes that import only what they are given needs."""

    Process = _ProcessWithoutMain


@contextlib.contextmanager
def thread_counts(number: int | None) -> Iterator[None]:
    """Processes started inside use so many threads, unless the environment says otherwise already."""
    names = [name for name in _THREAD_COUNTS if number is not None and name not in os.environ]
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _begin(error_log: Path | None, begun: "Synchronized[int]") -> None:
    """The first thing a process does.

    Args:
        error_log: see `process_pool`.
        begun: the place of the next process; a pool starts no process in the place of one that has ended.
    """
    with begun.get_lock():
        _OWN["place"] = begun.value
        begun.value += 1
    threading.Thread(target=end_with_parent, daemon=True).start()
    if error_log is not None:
        file = os.open(error_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 2)
        os.close(file)


def end_with_parent() -> None:
    """Ends this process when its parent is gone: a pool's own processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(_EXIT_ORPHANED)
