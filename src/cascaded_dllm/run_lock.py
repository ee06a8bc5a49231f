"""Locks that give a run folder, or a piece of work, to one process; the lock of a dead process can be taken.

The network file systems of clusters often lack file locks. So a lock is a file that names its owner, and the next
process finds out whether that owner is alive (`lock_owner.py`).
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from cascaded_dllm.atomic import INCOMPLETE
from cascaded_dllm.errors import FolderInUseError, OutputError, StoppedError
from cascaded_dllm.lock_owner import NOBODY, Owner, is_alive, owner_of, pause, seems_alive, this_process
from cascaded_dllm.os_errors import remedy_for

LOCK_FILE = "run.lock"
SECONDS_BETWEEN_SIGNS = 10.0


@contextlib.contextmanager
def run_lock(
    folder: Path,
    *,
    other: str = "give this one another folder with --out (run_dir)",
    go_on: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Gives the folder to this process inside the block.

    A silent owner on another machine or in another container has a minute to show a sign of life; this waits for it.

    Args:
        folder: of the run.
        other: what the user can do instead while another process has the folder, for the message.
        go_on: called at every look while this waits; what it raises ends the waiting.

    Raises:
        FolderInUseError: another process that is alive has the folder.
        OutputError: the lock cannot be written.
    """
    path = folder / LOCK_FILE
    own = this_process()
    with _errors_told(path, "run folder", go_on) as watched:
        owner = _take(path, own, watched)
    if owner is not None:
        raise FolderInUseError(
            f"{path.parent} belongs to a run that is going on: process {owner.pid} on {owner.host}; wait for it "
            f"or stop it, or {other}. If you are sure that this process is gone, remove {path}"
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
    """Waits for a lock or for the end of the work that it guards; yields True if this process is to do the work.

    Of several processes that come for the same work, one does it, and the others go on when it is done. If that one
    dies or gives up, another takes over.

    Args:
        path: of the lock; its folder is created if necessary.
        is_done: whether the work is done, so that no lock is needed.
        on_wait: called once with the owner that this waits for, such as "process 12 on node3".
        go_on: called at every look while this waits; what it raises ends the waiting.

    Raises:
        OutputError: the lock cannot be written.
    """
    own = this_process()
    has_told = False
    while not is_done():
        with _errors_told(path, "folder", go_on) as watched:
            path.parent.mkdir(parents=True, exist_ok=True)
            owner = _take(path, own, watched)
        if owner is None:
            with _held(path, own):
                # The owner before may have finished the work in between.
                yield not is_done()
            return
        if not has_told and on_wait is not None:
            on_wait(f"process {owner.pid} on {owner.host}")
        has_told = True
        watched()
        pause()
    yield False


@contextlib.contextmanager
def _errors_told(path: Path, what: str, go_on: Callable[[], None] | None) -> Iterator[Callable[[], None]]:
    """Turns errors of the file system inside the block into errors of the lock, except those that `go_on` raises.

    Yields:
        A function to call in place of `go_on`.

    Raises:
        OutputError: the lock cannot be written.
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
        remedy = remedy_for(error, f"name a {what} that you may write to and that has room")
        raise OutputError(f"{path} cannot be written ({error.strerror}); {remedy}") from error


def is_held(folder: Path) -> bool:
    """Whether a living process seems to hold the lock of a folder, without waiting; see `seems_alive`."""
    path = folder / LOCK_FILE
    owner = owner_of(path)
    return owner is not None and owner != NOBODY and seems_alive(path, owner)


def until_told(should_stop: Callable[[], bool], folder: Path) -> Callable[[], None]:
    """A `go_on` that ends the waiting for a run folder once `should_stop` returns True.

    Args:
        should_stop: called at every look.
        folder: of the run.

    Returns:
        A function that then raises StoppedError.
    """

    def go_on() -> None:
        if should_stop():
            raise StoppedError(
                f"told to stop while waiting to see whether the owner of {folder}, a process on another machine, is "
                "alive; nothing was changed, and the same command begins again"
            )

    return go_on


@contextlib.contextmanager
def _held(path: Path, own: Owner) -> Iterator[None]:
    """Gives signs of life inside the block, and releases the lock after it."""
    stop = threading.Event()
    signs = threading.Thread(target=_give_signs, args=(path, stop), daemon=True)
    signs.start()
    try:
        yield
    finally:
        stop.set()
        signs.join()
        if owner_of(path) == own:
            path.unlink(missing_ok=True)


def _take(path: Path, own: Owner, go_on: Callable[[], None]) -> Owner | None:
    """Takes the lock, also from a dead owner; of several processes that try at once, one succeeds.

    Calls `go_on` while it waits, for up to a minute, to see whether an owner is dead.

    Returns:
        None if this process has the lock now; otherwise the living owner.
    """
    while not _create(path, own):
        owner = owner_of(path)
        if owner is None:
            # Released in this moment. Nothing may be removed: the next lock there belongs to a living process.
            continue
        if owner != NOBODY and is_alive(path, owner, go_on):
            return owner
        if (remover := _remove(path, owner, own, go_on)) is not None:
            return remover
    return None


def _remove(path: Path, dead: Owner, own: Owner, go_on: Callable[[], None]) -> Owner | None:
    """Removes the lock of `dead`, and no other: of the processes that found it dead, one at a time looks again.

    A second lock decides whose turn it is; its owner may be dead as well.

    Returns:
        The living owner of the second lock, if that is another process.
    """
    turn = path.with_name(f"{INCOMPLETE}{path.name}-of-{dead.token}")
    if (other := _take(turn, own, go_on)) is not None:
        return other
    try:
        if owner_of(path) == dead:
            path.unlink(missing_ok=True)
    finally:
        turn.unlink(missing_ok=True)
    return None


def _create(path: Path, own: Owner) -> bool:
    """Whether the lock was free and now belongs to `own`. It appears with its content, never half-written."""
    whole = path.with_name(f"{INCOMPLETE}{path.name}-{own.token}")
    try:
        whole.write_text(json.dumps(asdict(own)), encoding="utf-8")
        os.link(whole, path)
    except FileExistsError:
        # A network file system that repeats its request may find its own link there.
        return owner_of(path) == own
    finally:
        whole.unlink(missing_ok=True)
    return True


def _give_signs(path: Path, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):  # a file system may be away for a moment; only lasting silence counts
            os.utime(path)
