"""Words with their vectors in a folder that any number of processes share.

A process adds to one file of its own and reads those of the others, so that no locks are needed, which network file
systems often lack. A file is a sequence of blocks, each with a checksum: what a killed process left half-written, and
what another one is writing at this moment, is an incomplete block at the end, and is not read.

So that the files do not become more with every run, a process that begins makes one of many small ones. A file goes
only when all its blocks are in another one on the disk; and whoever has added a block looks whether its file is still
there, and adds the block to a new one otherwise.
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
from cascaded_dllm.errors import DataError, OutputExistsError
from cascaded_dllm.importance.word_blocks import Vectors, all_blocks, block_of, blocks, content_of

_SUFFIX = ".words"

# So many small files are made one; to open fewer costs nothing.
_MERGED_FROM = 16
_SMALL_BYTES = 8 << 20
# Bounds the memory of a merge, and how much is written anew.
_MERGED_BYTES = 64 << 20
# A file to which nobody has added for so long is left in peace by its process, as a rule: it saves work, no more.
_SETTLED_SECONDS = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TURN_FILE = "merging"
# Files that vanish while they are read have become another one, which is looked for so often.
_PASSES = 3


@final
class WordFiles:
    """The files of a folder: those of other processes to read, and one of this process to add to.

    Args:
        folder: created when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own, self._has_begun = _fresh_name(folder), False
        self._has_merged = False
        self._is_full = False
        # How far each file has been read; damaged ones are not read again.
        self._read: dict[Path, int] = {}
        self._damaged: set[Path] = set()

    def new_blocks(self) -> Iterator[tuple[list[str], Vectors]]:
        """What the others have added since the last call: words with their vectors, block by block.

        A damaged block, and what follows it in its file, is left out with a warning: its words are embedded again.
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
        """Adds words for other processes and later runs.

        Where the disk is full, or a quota is, a warning says so once, and this process adds no more: the cache saves
        work, and is not worth the work that is done.

        Raises:
            OutputExistsError: the folder cannot be written for another reason.
        """
        if self._is_full:
            return
        block = block_of(words, vectors)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not self._is_added(block):
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
            raise OutputExistsError(
                f"the word cache {self._folder} cannot be written ({error.strerror}); name a folder that is yours to "
                "write and has room, or leave the cache out"
            ) from error

    def _is_added(self, block: bytes) -> bool:
        """Whether a block that was added to the own file is there afterwards: others may have merged or cleared it."""
        new = 0 if self._has_begun else os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(self._own, os.O_WRONLY | os.O_APPEND | new, 0o666)
        except FileNotFoundError:
            if not self._has_begun:
                raise  # It is the folder that is not there.
            return False
        try:
            with os.fdopen(descriptor, "ab") as file:
                file.write(block)
                file.flush()
                written = os.fstat(descriptor)
            self._has_begun = True
            return os.path.samestat(self._own.stat(), written)
        except OSError as error:
            # A network file system may know no more of a file that another machine has removed.
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise

    def _new_blocks_of_all(self) -> Generator[tuple[list[str], Vectors], None, bool]:
        """`new_blocks` of all files that are there, and whether one of them was gone when it was to be read."""
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
                    "the file to see this no more",
                    stacklevel=2,
                )
                return
            self._read[path] = block.end
            yield block.words, block.vectors


def merge_small(folder: Path) -> None:
    """Makes one file of the small ones in a folder to which nobody has added for a while, if there are many.

    One process does so at a time; where two do, words are there twice. What cannot be done is left as it is.
    """
    if len(list(_small(folder))) < _MERGED_FROM:
        return
    # A folder that is read-only, or full, serves as it is.
    with contextlib.suppress(OSError, OutputExistsError), _turn(folder) as now:
        if now is None:
            return
        remove_abandoned(folder)
        while len(settled := [(path, size) for path, size, at in _small(folder) if now - at >= _SETTLED_SECONDS]) > 1:
            if not _is_merged(folder, settled):
                return


def _is_merged(folder: Path, files: Sequence[tuple[Path, int]]) -> bool:
    """Whether some files have become one.

    Args:
        folder: theirs.
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
        # What is damaged stays, with its warning: it is not ours to hide.
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
        # Its process may have added to it meanwhile; if it does so from now on, it notices.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == size:
                path.unlink()
    return True


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[float | None]:
    """The time of the file system while it is this process' turn to merge; None while it is another one's."""
    path = folder / _TURN_FILE
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        if time.time() - path.stat().st_mtime >= _SETTLED_SECONDS:
            path.unlink()  # Its process was killed; the next one that begins has the turn.
        yield None
        return
    try:
        yield path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _fresh_name(folder: Path) -> Path:
    """A name that no file has had."""
    return folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"


def _files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"))


def _small(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """The small files of a folder, each with its size and the time when somebody last added to it."""
    for path in _files_of(folder):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_size < _SMALL_BYTES:
                yield path, status.st_size, status.st_mtime
