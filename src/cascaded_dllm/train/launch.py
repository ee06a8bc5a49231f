"""Processes of this machine that train together, started by torch's elastic launcher and ended together.

They are not restarted: what a lost process had in memory is gone, and the run goes on from its last checkpoint when the
command is given again.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import re
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, final

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cascaded_dllm.errors import CascadeError, StoppedError, WorkerDiedError
from cascaded_dllm.processes import end_with_parent, thread_counts, usable_cores

_SECONDS_BETWEEN_LOOKS = 0.1
_RAISED = "raised-"
_WISH = signal.SIGUSR1
"""Asks a process to stop. A second SIGTERM would be an order."""


def launch(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    number: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """What `function(*arguments)` returns in each of `number` new processes, in the order of their ranks.

    The processes find their places in the environment, as torchrun sets it (`world.joined_world`). The first one has
    this one's terminal, the others are silent. When one of them fails, all are ended.

    Args:
        function: at the top level of a module that can be imported.
        arguments: that can be pickled.
        number: of processes.
        should_stop: asked now and then; once it says so, every process is sent SIGUSR1, which only asks, however often
            it comes: who tells this one by SIGTERM may have told its whole group. Ctrl-C is kept from them.

    Raises:
        CascadeError: the one that a process has raised.
        StoppedError: the wish to stop came before a process could heed it, and has ended it.
        WorkerDiedError: a process was killed, or ended without a word.
        RuntimeError: it failed in a way that nobody has foreseen; the message has its traceback.
    """
    others = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="cdllm-processes-") as folder, _silent_launcher():
        launcher = _Launcher(function, arguments, number, Path(folder))
        # Each computes with its part of the cores.
        with thread_counts(max(1, usable_cores() // number)):
            launcher.start()
            processes = _started(others, number, launcher)
        try:
            ended, is_told = _watch(processes, launcher, should_stop)
        except BaseException:
            # A second Ctrl-C, for instance.
            for process in processes:
                process.kill()
            launcher.join()
            raise
        launcher.join()
        if launcher.error is None:
            return [launcher.results[rank] for rank in range(number)]
        failures = launcher.error.failures
        codes = [process.exitcode or 0 for process in processes]
        if not processes:
            # They were gone before all of them had been seen, and what the launcher knows has to do.
            codes = [failures[rank].exitcode if rank in failures else 0 for rank in range(number)]
            ended = [sorted(failures)]
        # Who has told the whole group may have ended them before they were watched.
        raise _reason(codes, ended, Path(folder), is_told=is_told or should_stop())


def run_as_worker(function: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """What `function` returns, in a process that ends with the one that started it, and that Ctrl-C does not reach.

    An error of ours is left in `folder` as it is, for the process that reports it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A batch script may have had it ignored, and with it the wishes of the process that started this one.
    signal.signal(_WISH, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        return function(*arguments)
    except CascadeError as error:
        (folder / f"{_RAISED}{os.environ['RANK']}").write_bytes(pickle.dumps(error))
        raise


@final
class _Launcher(threading.Thread):
    """The elastic launcher, in a thread, since it would take the signals of the main one for itself."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], number: int, folder: Path) -> None:
        super().__init__(name="launcher", daemon=True)
        self.results: dict[int, Any] = {}
        self.error: ChildFailedError | None = None
        self._arguments = (function, folder, *arguments)
        self._config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=_SECONDS_BETWEEN_LOOKS,
            logs_specs=DefaultLogsSpecs(str(folder), redirects=dict.fromkeys(range(1, number), Std.ALL)),
        )

    def run(self) -> None:
        """Start the processes and wait for them."""
        try:
            self.results = elastic_launch(self._config, run_as_worker)(*self._arguments)
        except ChildFailedError as error:
            self.error = error


def _started(others: set[BaseProcess], number: int, launcher: threading.Thread) -> list[BaseProcess]:
    """The processes once all have been started, by rank; none if the launcher ends before."""
    while launcher.is_alive():
        processes = [process for process in multiprocessing.active_children() if process not in others]
        if len(processes) == number:
            # They were started by rising rank, and are counted: ...-1, or ...-3:1 inside of another such process.
            return sorted(processes, key=lambda process: int(re.split("[-:]", process.name)[-1]))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return []


def _watch(
    processes: list[BaseProcess], launcher: threading.Thread, should_stop: Callable[[], bool]
) -> tuple[list[list[int]], bool]:
    """Pass on the wish to stop until the launcher is done.

    Returns:
        The ranks that have ended, together with each other, and whether the wish was passed on.
    """
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    ended: list[list[int]] = []
    is_told = False
    while launcher.is_alive():
        if should_stop() and not is_told:
            is_told = True
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid or 0, _WISH)
        # Only looked at: the launcher wants to learn of the end of a process itself.
        if running:
            ready = wait(list(running), _SECONDS_BETWEEN_LOOKS)
            now = [running.pop(sentinel) for sentinel in list(running) if sentinel in ready]
            ended += [sorted(now)] if now else []
        else:
            launcher.join(_SECONDS_BETWEEN_LOOKS)
    return ended, is_told


def _reason(codes: list[int], ended: list[list[int]], folder: Path, *, is_told: bool) -> Exception:
    """Why processes have failed, as one error.

    A process that was killed goes first: it says nothing itself, and the others only that they have lost it. Then one
    of our errors, then any other, of which the traceback is told.

    Until it trains, a process does not know of wishes: the signal that says one ends it, or something that it works
    with.

    Args:
        codes: how they ended, by rank.
        ended: their ranks in the order in which they did, those together that were seen at once.
        folder: where they have left what they raised.
        is_told: whether they were told to stop.
    """
    number = len(codes)
    again = "give the same command again: the run goes on from its last checkpoint"
    stopped = StoppedError(
        f"told to stop, the {number} processes have ended before they could keep a step; the same command goes on from "
        "the last checkpoint, or begins again where there is none"
    )
    killed = [rank for rank in (ended[0] if ended else []) if codes[rank] < 0]
    for rank in killed:
        if not is_told or codes[rank] not in (-_WISH, -signal.SIGTERM):
            name = signal.Signals(-codes[rank]).name
            return WorkerDiedError(
                f"process {rank} of {number} was ended by {name}, by the system for want of memory or by somebody, and "
                f"the others with it; {again}"
            )
    if killed:
        return stopped
    order = [rank for ranks in ended for rank in ranks]
    paths = [folder / f"{_RAISED}{rank}" for rank in order]
    raised: list[CascadeError] = [pickle.loads(path.read_bytes()) for path in paths if path.exists()]
    for error in raised:
        if not isinstance(error, WorkerDiedError):
            return error
    for rank in order:
        traceback = _traceback(rank, folder)
        if traceback is not None and not (folder / f"{_RAISED}{rank}").exists():
            return RuntimeError(f"process {rank} of {number} has failed:\n{traceback}")
    if raised:
        return stopped if is_told else raised[0]
    rank = next((rank for rank in order if codes[rank] != 0), 0)
    return WorkerDiedError(f"process {rank} of {number} ended with exit code {codes[rank]} and said nothing; {again}")


def _traceback(rank: int, folder: Path) -> str | None:
    """The traceback of a process that has failed, as the elastic launcher had it written."""
    for path in folder.glob(f"*/attempt_0/{rank}/error.json"):
        return str(json.loads(path.read_text(encoding="utf-8"))["message"]["extraInfo"]["py_callstack"])
    return None


@contextlib.contextmanager
def _silent_launcher() -> Iterator[None]:
    """What torch logs of the processes that it starts and ends is kept from the terminal: it is told once, by us."""
    loggers = [logging.getLogger(name) for name in ("torch.distributed", "torch.multiprocessing")]
    # As torch has it, unless another library has opened all loggers.
    logging.getLogger("torchelastic-events-null").propagate = False
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagates) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagates
