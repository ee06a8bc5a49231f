"""Words with their vectors in a folder that any number of processes share.

A process appends to a file of its own and reads those of the others. So no locks are needed, which network file systems
often lack. A file is a sequence of blocks, each with a checksum. An incomplete block at the end, which another process
is writing or a killed one has left, is not read.

A process that begins merges small files if there are many, so that their number does not grow with every run. A file is
removed only when all its blocks are in another file on the disk. After appending a block, a process checks that its
file still exists, and otherwise appends the block to a new one.
"""

import contextlib
import errno
import os
import secrets
import socket
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from cascaded_dllm.atomic import remove_abandoned, write_bytes
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.importance.word_blocks import Vectors, all_blocks, block_of, blocks, content_of
from cascaded_dllm.os_errors import remedy_for

_SUFFIX = ".words"

# From this many small files on, they are merged; opening fewer costs nothing.
_MERGED_FROM = 16
_SMALL_BYTES = 8 << 20
# Bounds the memory of a merge, and how much is written again.
_MERGED_BYTES = 64 << 20
# The process of a file that has not grown for this long has probably finished. If not, merging loses work, not words.
_SETTLED_SECONDS = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TURN_FILE = "merging"
# Files that vanish while they are read were merged into another one: the folder is read up to this many times.
_PASSES = 3


@final
class WordFiles:
    """The files of a folder: those of other processes, which are read, and one to which this process appends.

    Args:
        folder: created when something is appended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own, self._has_begun = _fresh_name(folder), False
        self._has_merged = False
        self._is_full = False
        # The byte up to which each file has been read; damaged files are not read again.
        self._read: dict[Path, int] = {}
        self._damaged: set[Path] = set()

    def new_blocks(self) -> Iterator[tuple[list[str], Vectors]]:
        """The words with their vectors that other processes have appended since the last call, block by block.

        A damaged block and all that follows it in its file are left out with a warning; their words are embedded again.
        Words may come twice.

        Raises:
            DataError: a file cannot be read.
        """
        if not self._has_merged:
            self._has_merged = True
            merge_small(self._folder)
        for _ in range(_PASSES):
            has_lost = yield from self._new_blocks_of_all()
            if not has_lost:
                return

    def append(self, words: Sequence[str], vectors: Vectors) -> None:
        """Appends words for other processes and later runs.

        If the disk or a quota is full, this process warns once and appends nothing more: the cache only saves work, so
        it should not end a job.

        Raises:
            OutputError: the folder cannot be written for another reason.
        """
        if self._is_full:
            return
        block = block_of(words, vectors)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not self._append_block(block):
                self._own, self._has_begun = _fresh_name(self._folder), False
        except OSError as error:
            if error.errno in _FULL:
                self._is_full = True
                warnings.warn(
                    f"the word cache {self._folder} cannot be written ({error.strerror}); its words are kept in the "
                    "memory of this process, and others embed them again. Make room, or name another --word-cache",
                    stacklevel=2,
                )
                return
            remedy = remedy_for(error, "name a folder that you may write to and that has room, or leave the cache out")
            fault = f"the word cache {self._folder} cannot be written ({error.strerror})"
            raise OutputError(f"{fault}; {remedy}") from error

    def _append_block(self, block: bytes) -> bool:
        """Appends a block to the own file; False if the file has been removed, since others may merge or clear it."""
        new = 0 if self._has_begun else os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(self._own, os.O_WRONLY | os.O_APPEND | new, 0o666)
        except FileNotFoundError:
            if not self._has_begun:
                raise  # The folder is missing, not the file.
            return False
        try:
            with os.fdopen(descriptor, "ab") as file:
                file.write(block)
                file.flush()
                written = os.fstat(descriptor)
            self._has_begun = True
            return os.path.samestat(self._own.stat(), written)
        except OSError as error:
            # A network file system may have lost a file that another machine has removed.
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise

    def _new_blocks_of_all(self) -> Generator[tuple[list[str], Vectors], None, bool]:
        """`new_blocks` of all files that exist; returns whether one of them vanished before it was read."""
        has_lost = False
        for path in _files_of(self._folder):
            if path == self._own or path in self._damaged:
                continue
            try:
                with path.open("rb") as file:
                    yield from self._new_blocks_of(path, file)
            except FileNotFoundError:
                has_lost = True
            except OSError as error:
                raise DataError(
                    f"{path} in the word cache cannot be read ({error.strerror}); remove it, or name another folder"
                ) from error
        return has_lost

    def _new_blocks_of(self, path: Path, file: BinaryIO) -> Iterator[tuple[list[str], Vectors]]:
        for block in blocks(file, self._read.get(path, 0)):
            if block.vectors is None:
                self._damaged.add(path)
                warnings.warn(
                    f"{path} in the word cache is damaged at byte {block.end}; what follows is embedded again. Remove "
                    "the file to stop this warning",
                    stacklevel=2,
                )
                return
            self._read[path] = block.end
            yield block.words, block.vectors


def merge_small(folder: Path) -> None:
    """Merges the small files of a folder that have not grown for a while, if there are many.

    One process does so at a time; if two do, words are stored twice. Files that cannot be merged stay as they are.
    """
    if len(list(_small(folder))) < _MERGED_FROM:
        return
    # A folder that is read-only or full is used as it is.
    with contextlib.suppress(OSError, OutputError), _turn(folder) as now:
        if now is None:
            return
        remove_abandoned(folder)
        while len(settled := [(path, size) for path, size, at in _small(folder) if now - at >= _SETTLED_SECONDS]) > 1:
            if not _merge(folder, settled):
                return


def _merge(folder: Path, files: Sequence[tuple[Path, int]]) -> bool:
    """Merges as many files as _MERGED_BYTES allows, at least two; False if fewer than two can be merged.

    Args:
        folder: of the files.
        files: each with its size.
    """
    words: dict[str, None] = {}
    rows: list[Vectors] = []
    whole: list[tuple[Path, int]] = []
    total = 0
    for path, size in files:
        total += size
        if whole and total > _MERGED_BYTES:
            break
        whole_blocks = all_blocks(path)
        # A damaged file stays, so that its warning does too.
        if whole_blocks is None:
            continue
        for found, vectors in whole_blocks:
            new = [row for row, word in enumerate(found) if word not in words]
            words.update(dict.fromkeys(found))
            rows.append(vectors[new])
        whole.append((path, size))
    if len(whole) < 2:
        return False
    if words:
        content = content_of(list(words), np.concatenate(rows))
        write_bytes(_fresh_name(folder), content)
    for path, size in whole:
        # Its process may have appended to it meanwhile. If it does so from now on, it notices that the file is gone.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == size:
                path.unlink()
    return True


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[float | None]:
    """The time of the file system, if this process may merge inside the block; None if another one is merging."""
    path = folder / _TURN_FILE
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        if time.time() - path.stat().st_mtime >= _SETTLED_SECONDS:
            path.unlink()  # Its process was killed; the next one that begins may merge.
        yield None
        return
    try:
        yield path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _fresh_name(folder: Path) -> Path:
    """A name that no file has had before."""
    return folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"


def _files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"))


def _small(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """The small files of a folder, each with its size and modification time."""
    for path in _files_of(folder):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_size < _SMALL_BYTES:
                yield path, status.st_size, status.st_mtime
