"""Processes for tests in no time: forked from one that has imported everything and done nothing else.

They are real processes, with a number, output, signals and an exit code of their own. A test of how Python itself
starts the program takes `subprocess` instead.
"""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.repo.source_tree import CHECKOUT

SECONDS = 240.0


@dataclass(frozen=True)
class Finished:
    """How a process ended and what it has printed."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """A process that has been started; leaving the block kills it."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], place: "_Place", output: Path) -> None:
        self._output = output
        # Not a daemon: it may start processes itself.
        self._process = context().Process(target=_begin, args=(place, function, arguments), daemon=False)
        with _without_main():
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, that of a signal below 0; None while it runs."""
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = SECONDS) -> Finished:
        """How it ended, once it has."""
        self._process.join(seconds)
        code = self.poll()
        assert code is not None, f"it still runs after {seconds} seconds: {self.stdout}{self.stderr}"
        return Finished(code, self.stdout, self.stderr)

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.join()

    @property
    def stdout(self) -> str:
        return (self._output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._output / "stderr").read_text()


@dataclass(frozen=True)
class _Place:
    """Where a process runs."""

    folder: Path
    environment: dict[str, str]
    streams: tuple[Path, Path, Path]
    leads_session: bool


@contextlib.contextmanager
def started(
    function: Callable[..., Any],
    *arguments: Any,
    folder: Path = CHECKOUT,
    environment: Mapping[str, str] | None = None,
    terminal: Path | None = None,
    leads_session: bool = False,
) -> Iterator[Process]:
    """A process that calls `function(*arguments)`; the function stands at the top of a module.

    Args:
        function: what it does; SystemExit ends it as it ends a program.
        arguments: that can be pickled.
        folder: that it runs in.
        environment: all of it; by default the one of now.
        terminal: that it reads from and prints on, instead of keeping what it prints.
        leads_session: whether it and what it starts are a session of their own.
    """
    with tempfile.TemporaryDirectory(prefix="cdllm-tests-") as output:
        stdout, stderr = Path(output, "stdout"), Path(output, "stderr")
        for path in (stdout, stderr):
            path.touch()
        streams = (Path(os.devnull), stdout, stderr) if terminal is None else (terminal, terminal, terminal)
        place = _Place(folder, dict(os.environ if environment is None else environment), streams, leads_session)
        process = Process(function, arguments, place, Path(output))
        try:
            yield process
        finally:
            process.end()


def run(function: Callable[..., Any], *arguments: Any, seconds: float = SECONDS, **place: Any) -> Finished:
    """How a process that calls `function(*arguments)` ended; `place` as for `started`."""
    with started(function, *arguments, **place) as process:
        return process.wait(seconds)


def cdllm(*words: object) -> None:
    """In a process: the command `cdllm`, as its entry point runs it."""
    from cascaded_dllm.cli.main import app

    sys.argv = ["cdllm", *map(str, words)]
    app()


@functools.cache
def context() -> ForkServerContext:
    """Whose processes are forked from the one with everything, which is started now."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.preloaded"])
    before = os.environ.get("PYTHONPATH")
    # Python 3.11 does not tell it our sys.path, and what it cannot import it leaves out without a word.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return found


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started inside do not import the script that runs the tests."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(place: _Place, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The whole of a process."""
    if place.leads_session:
        os.setsid()
    for number, path in enumerate(place.streams):
        mode = (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)[number]
        file = os.open(path, mode | os.O_NOCTTY)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # multiprocessing has put another one there
    # Under nohup it is ignored, which processes inherit.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(place.folder)
    os.environ.clear()
    os.environ.update(place.environment)
    try:
        function(*arguments)
    finally:
        # multiprocessing would leave out what a program does at its end.
        atexit._run_exitfuncs()
