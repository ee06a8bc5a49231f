"""Files and folders that are there completely or not at all, whatever kills the process in between."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from cascaded_dllm.errors import OutputExistsError
from cascaded_dllm.pid_space import pid_space

INCOMPLETE = ".incomplete-"
# A living writer touches its folder every few seconds; after a day nobody comes back to it.
ABANDONED_AFTER_SECONDS = 24 * 3600.0
_READ_BYTES = 1 << 20
_OWNED = re.compile(re.escape(INCOMPLETE) + r"(?P<name>.+)@(?P<host>[^@]+)-(?P<pid>\d+)-[0-9a-f]{8}")


@contextlib.contextmanager
def complete_folder(final: Path, *, exclusive: bool = False, is_locked: bool = False) -> Iterator[Path]:
    """A temporary sibling of `final` to write into; it becomes `final` when the block ends without an exception.

    The files are flushed to the disk before the one rename that makes them visible. Where another process has
    completed `final` in the meantime, that one stays and this one is removed: harmless for what two processes write
    alike, a loss for anything else. What a killed process leaves behind is never read, and the next writer of the same
    folder removes it.

    Args:
        final: the folder.
        exclusive: whether losing against another writer is an error.
        is_locked: whether a lock keeps all other writers away, so that what is half-written belongs to none.

    Raises:
        OutputExistsError: the folder cannot be created, written (the disk is full) or renamed, or, if `exclusive`,
            another writer was faster.
    """
    temporary = _temporary_sibling(final)
    try:
        remove_abandoned(final.parent, final.name, is_locked=is_locked)
        temporary.mkdir(parents=True)
        with _still_there(temporary):
            yield temporary
        for path in sorted(temporary.rglob("*")):
            _sync(path)
        _sync(temporary)
        _rename(temporary, final, exclusive=exclusive)
        _sync(final.parent)
    except OSError as error:
        if not exclusive and final.is_dir() and not temporary.exists():
            # Whoever was faster has removed it.
            return
        if _is_foreign(error, temporary, final):
            raise
        raise _cannot_write(final, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def write_errors(fault: str, remedy: str) -> Iterator[None]:
    """What the disk refuses inside the block is an error of ours.

    Args:
        fault: what cannot be done, "<path> cannot be written" for example.
        remedy: what the user can do.

    Raises:
        OutputExistsError: the disk refuses something.
    """
    try:
        yield
    except OSError as error:
        raise OutputExistsError(f"{fault} ({error.strerror or error}); {remedy}") from error


@contextlib.contextmanager
def _still_there(temporary: Path) -> Iterator[None]:
    """A folder is the same one after the block: one in its place holds only what was written last.

    Raises:
        FileNotFoundError: somebody who took this process for dead has removed it.
    """
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        yield
        if not os.path.samestat(os.fstat(descriptor), temporary.stat()):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.stat()
    finally:
        os.close(descriptor)


def _rename(temporary: Path, final: Path, *, exclusive: bool) -> None:
    """Gives the folder its name, unless another one has it already: the first to finish wins.

    Raises:
        OutputExistsError: another one has it, and that is an error.
    """
    # The rename itself refuses only a folder that holds files.
    has_lost = exclusive and final.exists()
    if not has_lost:
        try:
            temporary.rename(final)
        except OSError:
            has_lost = final.is_dir()
            if not has_lost:
                raise
    if has_lost and exclusive:
        raise OutputExistsError(
            f"{final} was written by another process in the meantime, and stays; choose another output folder"
        )


def _is_foreign(error: OSError, temporary: Path, final: Path) -> bool:
    """Whether an error inside a block is about something else: a file elsewhere, or a connection."""
    if isinstance(error, ConnectionError):
        return True
    # Copying names both files; writing to a full disk names none.
    paths = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return bool(paths) and not any(
        path.is_relative_to(temporary) or path.is_relative_to(final) or temporary.is_relative_to(path) for path in paths
    )


def write_json(final: Path, value: Mapping[str, object]) -> None:
    """Writes `value` as readable JSON, replacing what was there in one step.

    Raises:
        OutputExistsError: the file cannot be written.
    """
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(final: Path, text: str) -> None:
    """Writes `text` as UTF-8, replacing what was there in one step; the folder is created if need be.

    Raises:
        OutputExistsError: the file cannot be written.
    """
    write_bytes(final, text.encode())


def write_bytes(final: Path, content: bytes) -> None:
    """Writes `content`, replacing what was there in one step; the folder is created if need be.

    Raises:
        OutputExistsError: the file cannot be written.
    """
    temporary = _temporary_sibling(final)
    try:
        remove_abandoned(final.parent, final.name)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            _sync(temporary)
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(final.parent)
    except OSError as error:
        raise _cannot_write(final, error) from error


def write_link(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target`, in one step if it is one already.

    Raises:
        OutputExistsError: it cannot be written.
    """
    temporary = _temporary_sibling(link)
    try:
        remove_abandoned(link.parent, link.name)
        try:
            temporary.symlink_to(target)
            temporary.replace(link)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(link, error) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def remove_abandoned(
    folder: Path, name: str | None = None, *, complete: Collection[str] = (), is_locked: bool = False
) -> None:
    """Removes from `folder` what writers that are dead have left there half-written.

    Args:
        folder: what they wrote into.
        name: of what it was to become; None for whatever it was.
        complete: names of folders that are there, so that whoever still writes one of them has lost, dead or not.
        is_locked: whether a lock says that all of them are dead, on other machines as well.
    """
    for path in folder.glob(f"{INCOMPLETE}*"):
        # No name of a machine holds an "@".
        owner = _OWNED.fullmatch(path.name)
        if owner is None or name not in (None, owner["name"]):
            continue
        if is_locked or owner["name"] in complete or _is_abandoned(path, owner["host"], int(owner["pid"])):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


def _temporary_sibling(final: Path) -> Path:
    """A fresh hidden name beside `final` that tells which process it belongs to."""
    return final.parent / f"{INCOMPLETE}{final.name}@{_here()}-{os.getpid()}-{secrets.token_hex(4)}"


def _here() -> str:
    """This host, and where on it the number of this process means something."""
    return f"{socket.gethostname()}-{pid_space()}"


def _is_abandoned(path: Path, host: str, pid: int) -> bool:
    """Whether the process that made `path` is gone: known where its number tells, otherwise judged by its silence.

    File locks would tell more directly, but network file systems of clusters often lack them.
    """
    if host == _here() and not _is_alive(pid):
        return True
    try:
        newest = max(item.stat().st_mtime for item in (path, *path.glob("*")))
    except FileNotFoundError:
        # Completed or removed by its owner at this moment.
        return False
    return time.time() - newest > ABANDONED_AFTER_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to ask how, where the system tells."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "Z"


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(final: Path, error: OSError) -> OutputExistsError:
    return OutputExistsError(
        f"{final} cannot be written ({error.strerror or error}); choose an output folder that is yours to write "
        "and has room"
    )
