"""One process a run folder, or a work: a lock that a dead owner does not keep, however it died.

File locks of the system would do it, but network file systems of clusters often lack them. So the lock is a file that
names its owner. Where the owner's number means the same process to both, it is asked whether that process lives, and is
the same one (numbers of processes are given out again). From another machine, and from another container, the owner is
judged by its silence: it touches the file now and then, and one that has not done so for a minute is gone. Times are
those of the file system, so that clocks may differ.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cascaded_dllm.atomic import INCOMPLETE
from cascaded_dllm.errors import FolderInUseError, OutputExistsError, StoppedError
from cascaded_dllm.pid_space import pid_space

LOCK_FILE = "run.lock"
SECONDS_BETWEEN_SIGNS = 10.0
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


_NOBODY = Owner("", 0, "", "nobody")
"""Whose lock it is where something else has written the file."""


@contextlib.contextmanager
def run_lock(
    folder: Path,
    *,
    other: str = "give this one another folder with --out (run_dir)",
    go_on: Callable[[], None] | None = None,
) -> Iterator[None]:
    """The folder belongs to this process inside the block.

    Where the owner is on another machine, or in another container, and silent, this waits until a minute of silence has
    passed.

    Args:
        folder: of the run.
        other: what else may be done while another process has it, for the message.
        go_on: called at every look while this waits; what it raises ends the waiting.

    Raises:
        FolderInUseError: another process that lives has the folder.
        OutputExistsError: it cannot be written.
    """
    path = folder / LOCK_FILE
    own = _this_process()
    with _errors_told(path, "run folder", go_on) as watched:
        owner = _take(path, own, watched)
    if owner is not None:
        raise FolderInUseError(
            f"{path.parent} belongs to a run that is going on: process {owner.pid} on {owner.host}; wait for it "
            f"or stop it, or {other}. If that process is gone for sure, remove {path}"
        )
    with _held(path, own):
        yield


@contextlib.contextmanager
def waited_lock(
    path: Path,
    *,
    is_done: Callable[[], bool],
    on_wait: Callable[[str], None] | None = None,
    go_on: Callable[[], None] | None = None,
) -> Iterator[bool]:
    """Whether the lock belongs to this process inside the block: so as soon as it is free, unless the work is done.

    Of several that come for the same work one does it, and the others go on when it is done. Where it dies or gives up,
    another one takes its place.

    Args:
        path: of the lock; its folder is created if need be.
        is_done: whether there is nothing left to do, so that no lock is needed.
        on_wait: told once whom this waits for, such as "process 12 on node3".
        go_on: called at every look while this waits; what it raises ends the waiting.

    Raises:
        OutputExistsError: the lock cannot be written.
    """
    own = _this_process()
    has_told = False
    while not is_done():
        with _errors_told(path, "folder", go_on) as watched:
            path.parent.mkdir(parents=True, exist_ok=True)
            owner = _take(path, own, watched)
        if owner is None:
            with _held(path, own):
                # Whoever had the lock may have ended in between.
                yield not is_done()
            return
        if not has_told and on_wait is not None:
            on_wait(f"process {owner.pid} on {owner.host}")
        has_told = True
        watched()
        time.sleep(_POLL_SECONDS)
    yield False


@contextlib.contextmanager
def _errors_told(path: Path, what: str, go_on: Callable[[], None] | None) -> Iterator[Callable[[], None]]:
    """Tells an error of the file system inside the block as one of the lock; what `go_on` raises is none.

    Yields:
        What is to be called in place of `go_on`.

    Raises:
        OutputExistsError: the lock cannot be written.
    """
    raised: list[OSError] = []

    def watched() -> None:
        try:
            if go_on is not None:
                go_on()
        except OSError as error:
            raised.append(error)
            raise

    try:
        yield watched
    except OSError as error:
        if error in raised:
            raise
        raise OutputExistsError(
            f"{path} cannot be written ({error.strerror}); name a {what} that is yours to write, and has room"
        ) from error


def is_held(folder: Path) -> bool:
    """Whether a living process seems to hold the lock of a folder, by one look that waits for nothing.

    One on another machine is judged by the clocks of this one and of the disk, which may differ by a minute.
    """
    path = folder / LOCK_FILE
    owner = _owner(path)
    if owner is None or owner == _NOBODY:
        return False
    if owner.space == pid_space():
        return _start_of(owner.pid) == owner.started
    try:
        return abs(time.time() - path.stat().st_mtime) < 2 * SECONDS_OF_SILENCE
    except FileNotFoundError:
        return False


def until_told(should_stop: Callable[[], bool], folder: Path) -> Callable[[], None]:
    """A `go_on` that ends the waiting for a run folder when somebody wishes so.

    Args:
        should_stop: asked at every look.
        folder: of the run.

    Returns:
        A function that raises a StoppedError once it should stop.
    """

    def go_on() -> None:
        if should_stop():
            raise StoppedError(
                f"told to stop while another machine's process, which has {folder} and may be dead, was watched; "
                "nothing was changed, and the same command begins again"
            )

    return go_on


def _this_process() -> Owner:
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _start_of(pid) or "", secrets.token_hex(8), pid_space())


@contextlib.contextmanager
def _held(path: Path, own: Owner) -> Iterator[None]:
    """Gives signs of life inside the block, and gives the lock back after it."""
    stop = threading.Event()
    signs = threading.Thread(target=_give_signs, args=(path, stop), daemon=True)
    signs.start()
    try:
        yield
    finally:
        stop.set()
        signs.join()
        if _owner(path) == own:
            path.unlink(missing_ok=True)


def _take(path: Path, own: Owner, go_on: Callable[[], None]) -> Owner | None:
    """Writes the lock, over that of a dead owner if need be; of several that try at once one succeeds.

    Whether an owner is dead may take a minute to see, in which `go_on` is called now and then.

    Returns:
        None where it is taken; otherwise the living owner that has it.
    """
    while not _create(path, own):
        owner = _owner(path)
        if owner is None:
            # Given back at this moment. Nothing is removed then: the next lock there belongs to somebody who lives.
            continue
        if owner != _NOBODY and _is_alive(path, owner, go_on):
            return owner
        if (remover := _remove(path, owner, own, go_on)) is not None:
            return remover
    return None


def _remove(path: Path, dead: Owner, own: Owner, go_on: Callable[[], None]) -> Owner | None:
    """Removes the lock of `dead`, and no other: of those that found it dead, one at a time looks again.

    Whose turn it is, a lock tells, which may have a dead owner in its turn.

    Returns:
        The living owner whose turn it is, if that is another one.
    """
    turn = path.with_name(f"{INCOMPLETE}{path.name}-of-{dead.token}")
    if (other := _take(turn, own, go_on)) is not None:
        return other
    try:
        if _owner(path) == dead:
            path.unlink(missing_ok=True)
    finally:
        turn.unlink(missing_ok=True)
    return None


def _create(path: Path, own: Owner) -> bool:
    """Whether the lock was free. It appears with its content: half of one would belong to nobody."""
    whole = path.with_name(f"{INCOMPLETE}{path.name}-{own.token}")
    try:
        whole.write_text(json.dumps(asdict(own)), encoding="utf-8")
        os.link(whole, path)
    except FileExistsError:
        # A network file system that asks its server twice is told so of its own link.
        return _owner(path) == own
    finally:
        whole.unlink(missing_ok=True)
    return True


def _owner(path: Path) -> Owner | None:
    """Whose lock it is; None if it is gone."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return _NOBODY
    except OSError as error:
        if error.errno != errno.ESTALE:  # removed on another machine while it was read
            raise
        return None


def _is_alive(path: Path, owner: Owner, go_on: Callable[[], None]) -> bool:
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
        time.sleep(_POLL_SECONDS)
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


def _give_signs(path: Path, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):  # a file system that is away for a moment; silence will tell
            os.utime(path)


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
