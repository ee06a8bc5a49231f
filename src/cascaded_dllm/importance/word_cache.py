"""Vectors of words, each made once: in memory, and in a folder that any number of processes share.

A process adds to one file of its own and reads those of the others, so that no locks are needed, which network file
systems often lack. A file is a sequence of blocks, each with a checksum: what a killed process left half-written, and
what another one is writing at this moment, is an incomplete block at the end, and is not read.
"""

import hashlib
import os
import secrets
import socket
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias, final

import numpy as np
from jaxtyping import Float32

from cascaded_dllm.errors import DataError, OutputExistsError

Vectors: TypeAlias = Float32[np.ndarray, "_ width"]
"""A vector in each row."""

# What a word beyond these costs is that it is embedded again, and a text of many words has few that rare.
MAX_WORDS = 1 << 18
MAX_CHARACTERS = 64

_SUFFIX = ".words"
_MAGIC = b"CDLLMWV1"
# The magic, words, width, bytes of the words' text, and the checksum of all that follows.
_HEADER = struct.Struct("<8sIIQ32s")


@final
class WordCache:
    """Remembers the vectors of words.

    Memory is bounded by MAX_WORDS, whatever the size of a corpus: words in the order in which they first occur, so
    that the frequent ones are all there.

    Args:
        embed: the vectors of words, in their order. A word has the same vector in any company.
        folder: where vectors are kept for other processes and later runs, for one `embed` only; None for memory alone.
        max_words: how many are remembered.
    """

    def __init__(
        self, embed: Callable[[Sequence[str]], Vectors], folder: Path | None, *, max_words: int = MAX_WORDS
    ) -> None:
        self._embed = embed
        self._files = None if folder is None else WordFiles(folder)
        self._places: dict[str, int] = {}
        self._table: Vectors | None = None
        self._max_words = max_words

    def vectors(self, words: Sequence[str]) -> Vectors:
        """The vectors of `words`, in their order.

        Args:
            words: different ones, at least one.

        Raises:
            DataError: a file of the folder cannot be read.
            OutputExistsError: the folder cannot be written.
        """
        missing = self._missing(words)
        if missing and self._files is not None:
            for found, vectors in self._files.new_blocks():
                self._remember(found, vectors)
            missing = self._missing(words)
        fresh = self._embed(missing) if missing else None
        if fresh is not None:
            kept = self._remember(missing, fresh)
            if self._files is not None and kept:
                self._files.append([missing[row] for row in kept], fresh[kept])
        return self._gathered(words, missing, fresh)

    def _missing(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word not in self._places]

    def _remember(self, words: Sequence[str], vectors: Vectors) -> list[int]:
        """Takes in the words that are not there yet, as long as there is room; returns their rows."""
        if self._table is None:
            # The system gives memory to those rows only that are written to.
            self._table = np.empty((self._max_words, vectors.shape[1]), dtype=np.float32)
        kept = [row for row, word in enumerate(words) if len(word) <= MAX_CHARACTERS and word not in self._places][
            : self._max_words - len(self._places)
        ]
        first = len(self._places)
        self._table[first : first + len(kept)] = vectors[kept]
        self._places.update((words[row], first + place) for place, row in enumerate(kept))
        return kept

    def _gathered(self, words: Sequence[str], missing: Sequence[str], fresh: Vectors | None) -> Vectors:
        """The vectors of `words` from the table and, for what it has no room for, from `fresh`."""
        assert self._table is not None
        gathered = self._table[[self._places.get(word, 0) for word in words]]
        if fresh is not None:
            rows = {word: row for row, word in enumerate(missing)}
            for place, word in enumerate(words):
                if word not in self._places:
                    gathered[place] = fresh[rows[word]]
        return gathered


@final
class WordFiles:
    """The files of a folder: those of other processes to read, and one of this process to add to.

    Args:
        folder: created when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        # How far each file has been read; damaged ones are not read again.
        self._read: dict[Path, int] = {}
        self._damaged: set[Path] = set()

    def new_blocks(self) -> Iterator[tuple[list[str], Vectors]]:
        """What the others have added since the last call: words with their vectors, block by block.

        A damaged block, and what follows it in its file, is left out with a warning: its words are embedded again.

        Raises:
            DataError: a file cannot be read.
        """
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path == self._own or path in self._damaged:
                continue
            try:
                with path.open("rb") as file:
                    yield from self._blocks(path, file)
            except FileNotFoundError:
                continue  # Somebody clears the cache.
            except OSError as error:
                raise DataError(
                    f"{path} in the word cache cannot be read ({error.strerror}); remove it, or name another folder"
                ) from error

    def append(self, words: Sequence[str], vectors: Vectors) -> None:
        """Adds words for other processes and later runs.

        Raises:
            OutputExistsError: the folder cannot be written.
        """
        block = _block(words, vectors)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab") as file:
                file.write(block)
        except OSError as error:
            raise OutputExistsError(
                f"the word cache {self._folder} cannot be written ({error.strerror}); name a folder that is yours to "
                "write and has room, or leave the cache out"
            ) from error

    def _blocks(self, path: Path, file: BinaryIO) -> Iterator[tuple[list[str], Vectors]]:
        start, size = self._read.get(path, 0), os.fstat(file.fileno()).st_size
        file.seek(start)
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            magic, num_words, width, num_bytes, checksum = _HEADER.unpack(header)
            length = num_bytes + 4 * num_words * width
            if magic == _MAGIC and start + _HEADER.size + length > size:
                break  # Being written, or its writer was killed.
            payload = file.read(length) if magic == _MAGIC else b""
            if _checksum(header, payload) != checksum:
                self._damaged.add(path)
                warnings.warn(
                    f"{path} in the word cache is damaged at byte {start}; what follows is embedded again. Remove the "
                    "file to see this no more",
                    stacklevel=2,
                )
                break
            start = self._read[path] = file.tell()
            vectors = np.frombuffer(payload, dtype="<f4", offset=num_bytes).reshape(num_words, width)
            yield payload[:num_bytes].decode("utf-8").split("\n"), vectors.astype(np.float32)


def _block(words: Sequence[str], vectors: Vectors) -> bytes:
    # A word of KeyBERT is letters, digits and underscores: no line ends, and nothing that UTF-8 cannot say.
    text = "\n".join(words).encode("utf-8")
    payload = text + vectors.astype("<f4").tobytes()
    header = _HEADER.pack(_MAGIC, *vectors.shape, len(text), bytes(32))
    return _HEADER.pack(_MAGIC, *vectors.shape, len(text), _checksum(header, payload)) + payload


def _checksum(header: bytes, payload: bytes) -> bytes:
    """Of a block without the checksum itself, which stands last in the header."""
    return hashlib.sha256(header[:-32] + payload).digest()
