"""Files and folders that are either complete or absent, whenever the process that writes them is killed."""

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

from cascaded_dllm.errors import OutputError
from cascaded_dllm.os_errors import remedy_for, write_errors
from cascaded_dllm.pid_space import pid_space

INCOMPLETE = ".incomplete-"
# A living writer changes its folder every few seconds; one that has not done so for a day is dead.
ABANDONED_AFTER_SECONDS = 24 * 3600.0
_READ_BYTES = 1 << 20
_OWNED = re.compile(re.escape(INCOMPLETE) + r"(?P<name>.+)@(?P<host>[^@]+)-(?P<pid>\d+)-[0-9a-f]{8}")


@contextlib.contextmanager
def complete_folder(final: Path, *, exclusive: bool = False, is_locked: bool = False) -> Iterator[Path]:
    """A temporary sibling of `final` to write into; it becomes `final` when the block ends without an exception.

    The files are flushed to the disk before the one rename that makes them visible. If another process has completed
    `final` in the meantime, its folder stays and this one is removed: harmless if both write the same, a loss
    otherwise. What a killed process leaves behind is never read, and the next writer of the same folder removes it.

    Args:
        final: the folder.
        exclusive: whether it is an error if another writer is faster.
        is_locked: whether a lock keeps all other writers away, so that every half-written folder is abandoned.

    Raises:
        OutputError: the folder cannot be created, written (the disk is full) or renamed, or, if `exclusive`,
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
            # The faster writer has removed it.
            return
        if _is_foreign(error, temporary, final):
            raise
        raise _cannot_write(final, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_creatable(folder: Path, fault: str, remedy: str) -> None:
    """Checks, before long work, that a folder can be made or, if it is there, written; leaves nothing there.

    Args:
        folder: that is to be written.
        fault: as of `write_errors`.
        remedy: as of `write_errors`.

    Raises:
        OutputError: it cannot.
    """
    # A link that leads nowhere is there, and no folder can be made in its place.
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    probe = _temporary_sibling(nearest / "probe")
    with write_errors(fault, remedy):
        probe.mkdir()
        probe.rmdir()


def require_writable_file(final: Path) -> None:
    """Checks, before long work, that `write_bytes` can write a file in a folder that exists; leaves nothing there.

    Raises:
        OutputError: it cannot.
    """
    if final.exists() and not final.is_file():
        return  # a pipe or a device: to open it may take its reader's turn
    probe = _temporary_sibling(final)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(final, error) from error


@contextlib.contextmanager
def _still_there(temporary: Path) -> Iterator[None]:
    """Checks after the block that the folder is still the same: one recreated in its place lacks the earlier files.

    Raises:
        FileNotFoundError: another process took this one for dead and removed the folder.
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
    """Renames the folder to `final`, unless that exists already: the first writer to finish wins.

    Raises:
        OutputError: `final` exists, and `exclusive` makes that an error.
    """
    # A rename onto an empty folder succeeds, so `exclusive` needs a check of its own.
    has_lost = exclusive and final.exists()
    if not has_lost:
        try:
            temporary.rename(final)
        except OSError:
            has_lost = final.is_dir()
            if not has_lost:
                raise
    if has_lost and exclusive:
        raise OutputError(
            f"{final} was written by another process in the meantime, and stays; choose another output folder"
        )


def _is_foreign(error: OSError, temporary: Path, final: Path) -> bool:
    """Whether an error inside a block is not about its folder but about a file elsewhere or a connection."""
    if isinstance(error, ConnectionError):
        return True
    # Copying names both files; writing to a full disk names none.
    paths = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return bool(paths) and not any(
        path.is_relative_to(temporary) or path.is_relative_to(final) or temporary.is_relative_to(path) for path in paths
    )


def write_json(final: Path, value: Mapping[str, object]) -> None:
    """Writes `value` as indented JSON, replacing an existing file in one step.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(final: Path, text: str) -> None:
    """Writes `text` as UTF-8, replacing an existing file in one step; creates the folder if necessary.

    Raises:
        OutputError: the file cannot be written.
    """
    write_bytes(final, text.encode())


def write_bytes(final: Path, content: bytes) -> None:
    """Writes `content`, replacing an existing file in one step; creates the folder if necessary.

    A pipe or a device, such as /dev/null, gets the content and stays in its place.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = _temporary_sibling(final)
    try:
        if final.exists() and not (final.is_file() or final.is_dir()):
            final.write_bytes(content)
            return
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
    """Makes `link` a symbolic link to `target`, replacing an existing link in one step.

    Raises:
        OutputError: the link cannot be written.
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
    """The SHA-256 of a file, in hexadecimal; the file is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def remove_abandoned(
    folder: Path, name: str | None = None, *, complete: Collection[str] = (), is_locked: bool = False
) -> None:
    """Removes the half-written files and folders that dead writers have left in `folder`.

    Args:
        folder: the folder that holds them.
        name: only those that were to become this file or folder; None for all.
        complete: names that are complete already, so that what is half-written for them goes even if its writer lives.
        is_locked: whether a lock says that all writers are dead, on other machines too.
    """
    for path in folder.glob(f"{INCOMPLETE}*"):
        # A host name never contains "@".
        owner = _OWNED.fullmatch(path.name)
        if owner is None or name not in (None, owner["name"]):
            continue
        if is_locked or owner["name"] in complete or _is_abandoned(path, owner["host"], int(owner["pid"])):
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):  # what belongs to another user stays, and is in nobody's way
                path.unlink()


def _temporary_sibling(final: Path) -> Path:
    """A new hidden name beside `final` that says which process it belongs to."""
    return final.parent / f"{INCOMPLETE}{final.name}@{_here()}-{os.getpid()}-{secrets.token_hex(4)}"


def _here() -> str:
    """This host and the space in which its process ids are valid; see `pid_space`."""
    return f"{socket.gethostname()}-{pid_space()}"


def _is_abandoned(path: Path, host: str, pid: int) -> bool:
    """Whether the process that made `path` is gone: its id on this host is dead, or it wrote nothing for a day.

    File locks would be more direct, but the network file systems of clusters often lack them.
    """
    if host == _here() and not _is_alive(pid):
        return True
    try:
        newest = max(item.stat().st_mtime for item in (path, *path.glob("*")))
    except FileNotFoundError:
        # Its owner has completed or removed it in this moment.
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
    """Whether a process has ended and its parent has not collected its exit code; False without /proc."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "Z"


def _sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(final: Path, error: OSError) -> OutputError:
    remedy = remedy_for(error, "choose an output folder that you may write to and that has room")
    return OutputError(f"{final} cannot be written ({error.strerror or error}); {remedy}")
