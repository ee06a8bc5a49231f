"""The SHA-256 of corpus files, each read once as long as its size and modification time do not change.

Known hashes are handed on: by a plan to the processes that carry it out, by a task to the tasks after it. So a corpus
of terabytes is read once for hashing, not once by every process. The same reading can index the lines of a file.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cascaded_dllm.text.line_index import LineIndex, LineNotes
from cascaded_dllm.text.rows import unreadable

# A file that changes twice within a tick of the file system's clock keeps the same modification time. The coarsest
# clock still in use ticks every two seconds.
_SETTLED_NS = 2_000_000_000


class HashedFile(NamedTuple):
    """A file with its hash, and the size and modification time that show whether it has changed since.

    Attributes:
        path: absolute.
        bytes: its size.
        modified_ns: its modification time, in nanoseconds since 1970.
        sha256: of its content at this size and modification time.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str


_known: dict[str, HashedFile] = {}
_indexes: dict[str, LineIndex] = {}


def hashed(file: Path, *, has_lines: bool = False) -> HashedFile:
    """A file with its hash; the file is read only if its hash is not known, or it has changed since.

    Args:
        file: the file.
        has_lines: whether to index its lines if it is read, for `pop_index`.

    Raises:
        DataError: it cannot be read.
    """
    if (known := known_hash(file)) is not None:
        return known
    try:
        status = file.stat()
        is_settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        with file.open("rb") as stream:
            notes = LineNotes(stream) if has_lines else None
            sha256 = hashlib.file_digest(stream if notes is None else notes, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(file, error) from error
    found = HashedFile(str(file.absolute()), status.st_size, status.st_mtime_ns, sha256)
    if is_settled:
        _known[found.path] = found
    if notes is not None:
        _indexes[sha256] = notes.index()
    return found


def pop_index(sha256: str) -> LineIndex | None:
    """Removes from memory, and returns, the index of a file that this process has read to hash it; None if none."""
    return _indexes.pop(sha256, None)


def known_hash(file: Path) -> HashedFile | None:
    """A file with its hash, without reading it; None if the hash is not known or the file has changed since.

    Raises:
        DataError: the system cannot tell its size and modification time.
    """
    known = _known.get(str(file.absolute()))
    try:
        status = file.stat()
    except OSError as error:
        raise unreadable(file, error) from error
    return (
        known
        if known is not None and (known.bytes, known.modified_ns) == (status.st_size, status.st_mtime_ns)
        else None
    )


def known_hashes(files: Sequence[Path]) -> tuple[HashedFile, ...]:
    """The hashes of files that this process knows, whether or not they have changed since, for `remember`."""
    found = (_known.get(str(file.absolute())) for file in files)
    return tuple(file for file in found if file is not None)


def remember(files: Iterable[HashedFile]) -> None:
    """Takes the hashes that another process knows; a file that has changed since is read again."""
    _known.update((file.path, file) for file in files)
