"""One process a run folder, or a work: a lock that a dead owner does not keep, however it died.

File locks of the system would do it, but network file systems of clusters often lack them. So the lock is a file that
names its owner, of whom the next one judges whether it lives (`lock_owner.py`).
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from cascaded_dllm.atomic import INCOMPLETE
from cascaded_dllm.errors import FolderInUseError, OutputExistsError, StoppedError
from cascaded_dllm.lock_owner import NOBODY, Owner, is_alive, owner_of, pause, seems_alive, this_process

LOCK_FILE = "run.lock"
SECONDS_BETWEEN_SIGNS = 10.0


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
    own = this_process()
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
    own = this_process()
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
        pause()
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
    """Whether a living process seems to hold the lock of a folder, by one look; see `seems_alive`."""
    path = folder / LOCK_FILE
    owner = owner_of(path)
    return owner is not None and owner != NOBODY and seems_alive(path, owner)


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
        if owner_of(path) == own:
            path.unlink(missing_ok=True)


def _take(path: Path, own: Owner, go_on: Callable[[], None]) -> Owner | None:
    """Writes the lock, over that of a dead owner if need be; of several that try at once one succeeds.

    Whether an owner is dead may take a minute to see, in which `go_on` is called now and then.

    Returns:
        None where it is taken; otherwise the living owner that has it.
    """
    while not _create(path, own):
        owner = owner_of(path)
        if owner is None:
            # Given back at this moment. Nothing is removed then: the next lock there belongs to somebody who lives.
            continue
        if owner != NOBODY and is_alive(path, owner, go_on):
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
        if owner_of(path) == dead:
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
        return owner_of(path) == own
    finally:
        whole.unlink(missing_ok=True)
    return True


def _give_signs(path: Path, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):  # a file system that is away for a moment; silence will tell
            os.utime(path)
