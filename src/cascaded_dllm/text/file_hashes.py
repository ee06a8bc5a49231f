"""The SHA-256 of corpus files, each read once for as long as its size and its time of change stay what they were.

Who knows a hash hands it on: a plan to the processes that work by it, a task to the tasks after it. So a corpus of
terabytes is read once to be hashed, and not once by every process. While a file is read, its lines can be noted.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cascaded_dllm.text.line_index import LineIndex, LineNotes
from cascaded_dllm.text.rows import unreadable

# A file may change twice between two ticks of the clock of a file system, and bear the same time of change after it.
# The coarsest clock still in use has ticks of two seconds.
_SETTLED_NS = 2_000_000_000


class HashedFile(NamedTuple):
    """A file, what tells whether it has changed, and its hash.

    Attributes:
        path: absolute.
        bytes: its size.
        modified_ns: its time of change, in nanoseconds since 1970.
        sha256: of its content, when it had this size and this time of change.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str


_known: dict[str, HashedFile] = {}
_indexes: dict[str, LineIndex] = {}


def hashed(file: Path, *, has_lines: bool = False) -> HashedFile:
    """A file with its hash; it is read if it is not known, or has changed since.

    Args:
        file: which one.
        has_lines: whether its lines are noted when it is read, for `take_index`.

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


def take_index(sha256: str) -> LineIndex | None:
    """The lines of a file that this process has read to hash it, which are not kept in memory any longer."""
    return _indexes.pop(sha256, None)


def known_hash(file: Path) -> HashedFile | None:
    """A file with its hash, if that is known and the file has not changed since; it is not read.

    Raises:
        DataError: the system does not tell.
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
    """What this process knows of files, to be handed on."""
    found = (_known.get(str(file.absolute())) for file in files)
    return tuple(file for file in found if file is not None)


def remember(files: Iterable[HashedFile]) -> None:
    """Takes what another process knows; a file that is not what it was then is read all the same."""
    _known.update((file.path, file) for file in files)
