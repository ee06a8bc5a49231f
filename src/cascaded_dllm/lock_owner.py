"""Who has a lock, and whether that process lives.

Where the owner's number means the same process to both, it is asked whether that process lives, and is the same one
(numbers of processes are given out again). From another machine, and from another container, the owner is judged by its
silence: it touches the file now and then, and one that has not done so for a minute is gone. Times are those of the
file system, so that clocks may differ.
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
"""After which an owner on another machine, or in another container, counts as dead."""

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told from all others.

    Attributes:
        host: its machine.
        pid: its number there.
        started: when it began, as its machine writes it; processes that had the same number before have another.
        token: of this lock; two runs of one process differ in it.
        space: where its number is its own, see `pid_space`; empty if unknown.
    """

    host: str
    pid: int
    started: str
    token: str
    space: str = ""


NOBODY = Owner("", 0, "", "nobody")
"""Whose lock it is where something else has written the file."""


def this_process() -> Owner:
    """A new owner, which is this process."""
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _start_of(pid) or "", secrets.token_hex(8), pid_space())


def owner_of(path: Path) -> Owner | None:
    """Whose lock it is; None if it is gone."""
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
    """Whether the owner of a lock lives, by one look that waits for nothing.

    One on another machine is judged by the clocks of this one and of the disk, which may differ by a minute.
    """
    if owner.space == pid_space():
        return _start_of(owner.pid) == owner.started
    try:
        return abs(time.time() - path.stat().st_mtime) < 2 * SECONDS_OF_SILENCE
    except FileNotFoundError:
        return False


def is_alive(path: Path, owner: Owner, go_on: Callable[[], None]) -> bool:
    """Whether the owner of a lock lives, which may take a minute to see, in which `go_on` is called now and then."""
    if owner.space == pid_space():
        return _start_of(owner.pid) == owner.started
    return _gives_signs(path, go_on)


def _gives_signs(path: Path, go_on: Callable[[], None]) -> bool:
    """Whether the lock is touched within the time of silence, counted from its last sign of life."""
    looked = _look(path)
    first = None if looked is None else looked[1]
    while looked is not None:
        now, last = looked
        if last != first:
            return True
        if now - last >= SECONDS_OF_SILENCE:
            return False
        go_on()
        pause()
        looked = _look(path)
    return False


def _look(path: Path) -> tuple[float, float] | None:
    """The time, and when the lock was last touched; None if it is gone."""
    try:
        return _now(path), path.stat().st_mtime
    except FileNotFoundError:
        return None


def _now(path: Path) -> float:
    """The time as the file system of `path` has it."""
    probe = path.with_name(f"{INCOMPLETE}{path.name}-time-{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def pause() -> None:
    """Between two looks at a lock."""
    time.sleep(_POLL_SECONDS)


def _start_of(pid: int) -> str | None:
    """When process `pid` of this machine began; None if there is none, or it is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold anything; state and start are fields 3 and 22.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else fields[19]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True)
    return listed.stdout.strip() or None
