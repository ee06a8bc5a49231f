"""The format of files of words with their vectors: blocks, each with a checksum."""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32

Vectors: TypeAlias = Float32[np.ndarray, "_ width"]
"""One vector per row."""

_MAGIC = b"CDLLMWV1"
# The magic, the number of words, the width, the bytes of the words' text, and the checksum of the block without itself.
_HEADER = struct.Struct("<8sIIQ32s")
_BLOCK_WORDS = 4096


class Block(NamedTuple):
    """A block of a file; without vectors, the place where the file is damaged.

    Attributes:
        end: the byte at which the next block, or the damage, begins.
        words: in order.
        vectors: of the words; None for damage.
    """

    end: int
    words: list[str]
    vectors: Vectors | None


def blocks(file: BinaryIO, start: int) -> Iterator[Block]:
    """The complete blocks of a file from the byte `start` on; at damage, a last block without vectors."""
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        magic, num_words, width, num_bytes, checksum = _HEADER.unpack(header)
        length = num_bytes + 4 * num_words * width
        if magic == _MAGIC and start + _HEADER.size + length > size:
            return  # It is being written, or its writer was killed.
        payload = file.read(length) if magic == _MAGIC else b""
        if _checksum(header, payload) != checksum:
            yield Block(start, [], None)
            return
        start = file.tell()
        vectors = np.frombuffer(payload, dtype="<f4", offset=num_bytes).reshape(num_words, width)
        yield Block(start, payload[:num_bytes].decode("utf-8").split("\n"), vectors.astype(np.float32))


def all_blocks(path: Path) -> list[tuple[list[str], Vectors]] | None:
    """All complete blocks of a file; None if it is damaged or cannot be read."""
    found = []
    try:
        with path.open("rb") as file:
            for block in blocks(file, 0):
                if block.vectors is None:
                    return None
                found.append((block.words, block.vectors))
    except OSError:
        return None
    return found


def content_of(words: Sequence[str], vectors: Vectors) -> bytes:
    """The content of a file of words, in blocks."""
    return b"".join(
        block_of(words[start : start + _BLOCK_WORDS], vectors[start : start + _BLOCK_WORDS])
        for start in range(0, len(words), _BLOCK_WORDS)
    )


def block_of(words: Sequence[str], vectors: Vectors) -> bytes:
    """The bytes of a block of words, with a vector for each."""
    # A word of KeyBERT consists of letters, digits and underscores: no line ends, and nothing that UTF-8 cannot encode.
    text = "\n".join(words).encode("utf-8")
    payload = text + vectors.astype("<f4").tobytes()
    header = _HEADER.pack(_MAGIC, *vectors.shape, len(text), bytes(32))
    return _HEADER.pack(_MAGIC, *vectors.shape, len(text), _checksum(header, payload)) + payload


def _checksum(header: bytes, payload: bytes) -> bytes:
    """The checksum of a block without the checksum itself, which is last in the header."""
    return hashlib.sha256(header[:-32] + payload).digest()
