"""Who has a lock, and whether that process is alive.

If the owner's process id is valid here (`pid_space`), the process with this id is looked up; its start time tells it
from a later process with the same id. On another machine or in another container, the owner is judged by its silence:
it touches the file now and then, and one that has not done so for a minute counts as dead. Times are those of the file
system, so the clocks of the machines may differ.
"""

import errno
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cascaded_dllm.atomic import INCOMPLETE
from cascaded_dllm.pid_space import pid_space

SECONDS_OF_SILENCE = 60.0
"""Silence after which an owner on another machine or in another container counts as dead."""

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a lock, identified uniquely.

    Attributes:
        host: its machine.
        pid: its process id.
        started: when it started, as its machine writes it; another process with the same id has another time.
        token: random for each lock, so that two locks of one process differ.
        space: where the process id is valid, see `pid_space`; empty if unknown.
    """

    host: str
    pid: int
    started: str
    token: str
    space: str = ""


NOBODY = Owner("", 0, "", "nobody")
"""The owner of a lock file whose content is not an owner."""


def this_process() -> Owner:
    """This process as the owner of a new lock."""
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _start_of(pid) or "", secrets.token_hex(8), pid_space())


def owner_of(path: Path) -> Owner | None:
    """The owner of a lock; None if the lock is gone."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return NOBODY
    except OSError as error:
        if error.errno != errno.ESTALE:  # removed on another machine while it was read
            raise
        return None


def seems_alive(path: Path, owner: Owner) -> bool:
    """Whether the owner of a lock seems alive, without waiting.

    An owner on another machine is judged by the clocks of this machine and of the file system, which may differ by a
    minute.
    """
    if owner.space == pid_space():
        return _start_of(owner.pid) == owner.started
    try:
        return abs(time.time() - path.stat().st_mtime) < 2 * SECONDS_OF_SILENCE
    except FileNotFoundError:
        return False


def is_alive(path: Path, owner: Owner, go_on: Callable[[], None]) -> bool:
    """Whether the owner of a lock is alive; calls `go_on` while it waits, for up to a minute, for a sign of life."""
    if owner.space == pid_space():
        return _start_of(owner.pid) == owner.started
    return _gives_signs(path, go_on)


def _gives_signs(path: Path, go_on: Callable[[], None]) -> bool:
    """Whether the lock is touched again within `SECONDS_OF_SILENCE` of the last time.

    The last time may lie ahead, if the clock was set back since; so nobody is watched for more than twice as long.
    """
    looked, began = _look(path), time.monotonic()
    first = None if looked is None else looked[1]
    while looked is not None:
        now, last = looked
        if last != first:
            return True
        if now - last >= SECONDS_OF_SILENCE or time.monotonic() - began >= 2 * SECONDS_OF_SILENCE:
            return False
        go_on()
        pause()
        looked = _look(path)
    return False


def _look(path: Path) -> tuple[float, float] | None:
    """The time now, and that at which the lock was last touched; None if the lock is gone."""
    try:
        return _now(path), path.stat().st_mtime
    except FileNotFoundError:
        return None


def _now(path: Path) -> float:
    """The time by the clock of the file system of `path`."""
    probe = path.with_name(f"{INCOMPLETE}{path.name}-time-{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def pause() -> None:
    """Sleeps between two looks at a lock."""
    time.sleep(_POLL_SECONDS)


def _start_of(pid: int) -> str | None:
    """When process `pid` of this machine started; None if there is no such process, or it is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may contain anything; state and start time are fields 3 and 22.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else fields[19]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True)
    return listed.stdout.strip() or None
