"""Processes of this machine that train together, started by torch's elastic launcher and ended together.

They are not restarted, since the memory of a lost process is lost with it. The run goes on from its last checkpoint
when the command is given again.
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
from cascaded_dllm.processes import deaf_to_terminal, end_with_parent, thread_counts, usable_cores

_SECONDS_BETWEEN_LOOKS = 0.1
_RAISED = "raised-"
_WISH = signal.SIGUSR1
"""Asks a process to stop, however often it is sent. A second SIGTERM would end it at once."""


def launch(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    number: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """The results of `function(*arguments)` in `number` new processes, ordered by rank.

    The processes read their ranks from the environment, as torchrun sets it (`world.joined_world`). The first one
    writes to this process's terminal, and the others are silent. If one of them fails, all are ended.

    Args:
        function: a function at the top level of an importable module.
        arguments: its arguments, which can be pickled.
        number: number of processes.
        should_stop: polled while they run. Once it is true, every process gets SIGUSR1, which only asks, however often
            it is sent: whoever sent SIGTERM to this process may have sent it to the whole process group. Ctrl-C and
            SIGHUP do not reach the processes.

    Raises:
        CascadeError: a process raised it.
        StoppedError: a process was asked to stop before it could react to that, and ended.
        WorkerDiedError: a process was killed, or ended without an error.
        RuntimeError: a process failed with an unforeseen error; the message has its traceback.
    """
    others = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="cdllm-processes-") as folder, _silent_launcher():
        launcher = _Launcher(function, arguments, number, Path(folder))
        # Each process computes with its share of the cores.
        with thread_counts(max(1, usable_cores() // number)):
            with deaf_to_terminal():
                launcher.start()
            processes = _started(others, number, launcher)
        try:
            ended, is_told = _watch(processes, launcher, should_stop)
        except BaseException:
            # For example, a second Ctrl-C.
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
            # They ended before `_started` had found all of them, so only the launcher knows how.
            codes = [failures[rank].exitcode if rank in failures else 0 for rank in range(number)]
            ended = [sorted(failures)]
        # A signal to the whole process group may have ended them before `_watch` passed on the wish to stop.
        raise _reason(codes, ended, Path(folder), is_told=is_told or should_stop())


def run_as_worker(function: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """The result of `function`, in a process that ends with its parent.

    A CascadeError is pickled into `folder`, for the parent to raise.
    """
    # A batch script may ignore SIGUSR1, which new processes inherit; the parent asks by this signal.
    signal.signal(_WISH, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        return function(*arguments)
    except CascadeError as error:
        (folder / f"{_RAISED}{os.environ['RANK']}").write_bytes(pickle.dumps(error))
        raise


@final
class _Launcher(threading.Thread):
    """The elastic launcher, in a thread, because in the main thread it would install signal handlers of its own."""

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
    """The processes, ordered by rank, once all have been started; empty if the launcher ends before."""
    while launcher.is_alive():
        processes = [process for process in multiprocessing.active_children() if process not in others]
        if len(processes) == number:
            # They were started by rising rank, and their names end in a counter: ...-1, or ...-3:1 in a child process.
            return sorted(processes, key=lambda process: int(re.split("[-:]", process.name)[-1]))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return []


def _watch(
    processes: list[BaseProcess], launcher: threading.Thread, should_stop: Callable[[], bool]
) -> tuple[list[list[int]], bool]:
    """Watch the processes until the launcher is done, and pass on the wish to stop.

    Returns:
        The ranks that have ended, in order, with those in one list that were seen at once; and whether the wish was
        passed on.
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
        # The sentinels are only polled: the launcher must join the processes itself.
        if running:
            ready = wait(list(running), _SECONDS_BETWEEN_LOOKS)
            now = [running.pop(sentinel) for sentinel in list(running) if sentinel in ready]
            ended += [sorted(now)] if now else []
        else:
            launcher.join(_SECONDS_BETWEEN_LOOKS)
    return ended, is_told


def _reason(codes: list[int], ended: list[list[int]], folder: Path, *, is_told: bool) -> Exception:
    """Why the processes failed, as one error.

    A killed process comes first, because it left no error, and the others only say that they have lost it. Then comes
    a CascadeError, then any other error with its traceback.

    A process cannot handle a wish to stop until it trains: before that, the signal ends it, or something that it uses.

    Args:
        codes: exit codes, by rank.
        ended: ranks in the order in which they ended; those in one list were seen at once.
        folder: where they have left their errors.
        is_told: whether they were asked to stop.
    """
    number = len(codes)
    again = "give the same command again: the run goes on from its last checkpoint"
    stopped = StoppedError(
        f"told to stop, the {number} processes ended before they could save a step; the same command goes on from the "
        "last checkpoint, or begins again if there is none"
    )
    killed = [rank for rank in (ended[0] if ended else []) if codes[rank] < 0]
    for rank in killed:
        if not is_told or codes[rank] not in (-_WISH, -signal.SIGTERM):
            name = signal.Signals(-codes[rank]).name
            return WorkerDiedError(
                f"process {rank} of {number} was ended by {name}, sent by the system for lack of memory or by "
                f"somebody, and the others ended with it; {again}"
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
    """The traceback of a failed process from the elastic launcher's error file; None if there is none."""
    for path in folder.glob(f"*/attempt_0/{rank}/error.json"):
        return str(json.loads(path.read_text(encoding="utf-8"))["message"]["extraInfo"]["py_callstack"])
    return None


@contextlib.contextmanager
def _silent_launcher() -> Iterator[None]:
    """Keeps torch's log messages about the processes from the terminal, since `launch` reports failures once."""
    loggers = [logging.getLogger(name) for name in ("torch.distributed", "torch.multiprocessing")]
    # Torch sets this too, but other libraries may have reset it.
    logging.getLogger("torchelastic-events-null").propagate = False
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagates) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagates
