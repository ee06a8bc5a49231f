"""Blocks of words with their vectors, each with a checksum: what a file of them is made of."""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32

Vectors: TypeAlias = Float32[np.ndarray, "_ width"]
"""A vector in each row."""

_MAGIC = b"CDLLMWV1"
# The magic, words, width, bytes of the words' text, and the checksum of all that follows.
_HEADER = struct.Struct("<8sIIQ32s")
_BLOCK_WORDS = 4096


class Block(NamedTuple):
    """A block of a file, or, without vectors, the place where the file is damaged.

    Attributes:
        end: where the next block begins.
        words: in order.
        vectors: theirs; None where there is damage.
    """

    end: int
    words: list[str]
    vectors: Vectors | None


def blocks(file: BinaryIO, start: int) -> Iterator[Block]:
    """The complete blocks of a file from a place on, up to damage."""
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        magic, num_words, width, num_bytes, checksum = _HEADER.unpack(header)
        length = num_bytes + 4 * num_words * width
        if magic == _MAGIC and start + _HEADER.size + length > size:
            return  # Being written, or its writer was killed.
        payload = file.read(length) if magic == _MAGIC else b""
        if _checksum(header, payload) != checksum:
            yield Block(start, [], None)
            return
        start = file.tell()
        vectors = np.frombuffer(payload, dtype="<f4", offset=num_bytes).reshape(num_words, width)
        yield Block(start, payload[:num_bytes].decode("utf-8").split("\n"), vectors.astype(np.float32))


def all_blocks(path: Path) -> list[tuple[list[str], Vectors]] | None:
    """All complete blocks of a file; None where it is damaged or cannot be read."""
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
    """A file of words, in blocks."""
    return b"".join(
        block_of(words[start : start + _BLOCK_WORDS], vectors[start : start + _BLOCK_WORDS])
        for start in range(0, len(words), _BLOCK_WORDS)
    )


def block_of(words: Sequence[str], vectors: Vectors) -> bytes:
    """A block of words, with a vector for each."""
    # A word of KeyBERT is letters, digits and underscores: no line ends, and nothing that UTF-8 cannot say.
    text = "\n".join(words).encode("utf-8")
    payload = text + vectors.astype("<f4").tobytes()
    header = _HEADER.pack(_MAGIC, *vectors.shape, len(text), bytes(32))
    return _HEADER.pack(_MAGIC, *vectors.shape, len(text), _checksum(header, payload)) + payload


def _checksum(header: bytes, payload: bytes) -> bytes:
    """Of a block without the checksum itself, which stands last in the header."""
    return hashlib.sha256(header[:-32] + payload).digest()
