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
from collections.abc import Iterator, Mapping
from pathlib import Path

from cascaded_dllm.errors import OutputExistsError

INCOMPLETE = ".incomplete-"
# A living writer touches its folder every few seconds; after a day nobody comes back to it.
ABANDONED_AFTER_SECONDS = 24 * 3600.0
_READ_BYTES = 1 << 20


@contextlib.contextmanager
def complete_folder(final: Path) -> Iterator[Path]:
    """A temporary sibling of `final` to write into; it becomes `final` when the block ends without an exception.

    The files are flushed to the disk before the one rename that makes them visible. Where another process has
    completed `final` in the meantime, that one stays and this one is removed. What a killed process leaves behind
    is never read, and the next writer of the same folder removes it.

    Raises:
        OutputExistsError: the folder cannot be created.
    """
    _remove_abandoned(final)
    temporary = _temporary_sibling(final)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(final, error) from error
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            _sync(path)
        _sync(temporary)
        try:
            temporary.rename(final)
        except OSError as error:
            # A folder cannot be renamed onto one that holds files: the first to finish wins.
            if not final.is_dir():
                raise _cannot_write(final, error) from error
        _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(final: Path, value: Mapping[str, object]) -> None:
    """Writes `value` as readable JSON, replacing what was there in one step.

    Raises:
        OutputExistsError: the file cannot be written.
    """
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(final: Path, text: str) -> None:
    """Writes `text` as UTF-8, replacing what was there in one step.

    Raises:
        OutputExistsError: the file cannot be written.
    """
    _remove_abandoned(final)
    temporary = _temporary_sibling(final)
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        temporary.replace(final)
        _sync(final.parent)
    except OSError as error:
        raise _cannot_write(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _temporary_sibling(final: Path) -> Path:
    """A fresh hidden name beside `final` that tells which process it belongs to."""
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return final.parent / f"{INCOMPLETE}{final.name}-{owner}"


def _remove_abandoned(final: Path) -> None:
    """Removes the temporary siblings of `final` whose writer is dead."""
    pattern = re.compile(rf"{re.escape(INCOMPLETE + final.name)}-(.+)-(\d+)-[0-9a-f]{{8}}")
    for path in final.parent.glob(f"{INCOMPLETE}*"):
        owner = pattern.fullmatch(path.name)
        if owner and _is_abandoned(path, owner[1], int(owner[2])):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


def _is_abandoned(path: Path, host: str, pid: int) -> bool:
    """Whether the process that made `path` is gone: known on this host, otherwise judged by its silence.

    File locks would tell more directly, but network file systems of clusters often lack them.
    """
    if host == socket.gethostname() and not _is_alive(pid):
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
    return True


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
