"""Where lines begin in a file, so that each of many processes finds its own lines without reading the others.

An index is made while the file is hashed. It is stored under that hash, so it is never used for another content.
"""

import contextlib
import hashlib
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
from jaxtyping import UInt64

from cascaded_dllm.atomic import complete_folder, file_sha256, write_json

# If the lines of a part are closer together, reading on is as fast: this is how far Linux reads ahead.
_WORTH_BYTES = 1 << 17
# Distance of noted places: a disk reads 4 to 8 KiB at once, and the index has 1/512 of the size of its file.
_SPACING_BYTES = 1 << 13
# A smaller corpus is read in a few milliseconds.
_LEAST_BYTES = 1 << 20
_FORMAT = 1
_MANIFEST, _PLACES = "manifest.json", "places.npy"


@final
@dataclass(frozen=True, slots=True)
class LineIndex:
    """Some of the places where lines of a file begin, in order.

    Attributes:
        places: row 0, line numbers from 0; row 1, the bytes at which these lines begin. The last column has the number
            of lines and the size of the file.
    """

    places: UInt64[np.ndarray, "2 places"]

    @property
    def num_lines(self) -> int:
        """Number of lines of the file."""
        return int(self.places[0, -1])

    @property
    def num_bytes(self) -> int:
        """The size of the file."""
        return int(self.places[1, -1])

    def before(self, line: int) -> tuple[int, int]:
        """The last noted line up to `line`, and the byte at which it begins; the end of the file if it has fewer lines.

        Args:
            line: a line number, from 0.
        """
        numbers, offsets = self.places
        place = int(np.searchsorted(numbers, np.uint64(line), side="right")) - 1
        return int(numbers[place]), int(offsets[place])

    def pays(self, num_parts: int) -> bool:
        """Whether the lines of one of `num_parts` parts are so far apart that an index saves work."""
        return self.num_bytes * num_parts >= _WORTH_BYTES * self.num_lines


# Folder -> the content of its manifest, and the indexes that were checked against it.
_checked: dict[Path, tuple[bytes, dict[str, LineIndex]]] = {}


@final
class LineNotes:
    """Wraps a file and notes the places of its lines while `hashlib.file_digest` reads it to its end.

    Args:
        stream: the file at its beginning.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._places = array("Q", (0, 0))
        self._num_lines = self._num_bytes = 0
        self._next_place = _SPACING_BYTES
        self._last = b"\n"

    def readable(self) -> bool:
        """Whether bytes can be read."""
        return self._stream.readable()

    def readinto(self, buffer: bytearray) -> int:
        """Reads the next bytes into a buffer and returns their number, 0 at the end."""
        number: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._note(buffer, number)
        return number

    def index(self) -> LineIndex:
        """The places, after the whole file was read; call it once."""
        # The last line may lack a line end. If it has one, the end of the file may be noted already, and is then twice
        # in the index.
        self._places.extend((self._num_lines + (self._last != b"\n"), self._num_bytes))
        # Transposed, so that the line numbers are contiguous and searched without a copy.
        return LineIndex(np.frombuffer(self._places, dtype=np.uint64).reshape(-1, 2).T.copy())

    def _note(self, content: bytearray, length: int) -> None:
        at = 0
        # The first line that begins at or after the next place follows the first line end from the byte before it on.
        while (since := max(self._next_place - self._num_bytes - 1, at)) < length:
            end = content.find(b"\n", since, length)
            if end < 0:
                break
            self._num_lines += content.count(b"\n", at, end) + 1
            at = end + 1
            self._places.extend((self._num_lines, self._num_bytes + at))
            self._next_place = self._num_bytes + at + _SPACING_BYTES
        self._num_lines += content.count(b"\n", at, length)
        self._num_bytes += length
        self._last = bytes(content[length - 1 : length]) or self._last


def keep_indexes(folder: Path, indexes: Mapping[str, LineIndex], num_parts: int) -> None:
    """Writes the indexes of files to `folder` if that saves work and the folder does not exist.

    Args:
        folder: for `kept_indexes`.
        indexes: by the SHA-256 of their files.
        num_parts: number of parts that will be read one by one.

    Raises:
        OutputError: the folder cannot be written.
    """
    useful = {sha256: index for sha256, index in indexes.items() if index.pays(num_parts)}
    if folder.is_dir() or sum(index.num_bytes for index in useful.values()) < _LEAST_BYTES:
        return
    starts = np.cumsum([0, *(index.places.shape[1] for index in useful.values())]).tolist()
    slices = {sha256: [start, end] for sha256, start, end in zip(useful, starts, starts[1:], strict=False)}
    with complete_folder(folder) as temporary:
        np.save(temporary / _PLACES, np.concatenate([index.places for index in useful.values()], axis=1))
        manifest = {"format": _FORMAT, "sha256": _checksum(temporary, slices), "slices": slices}
        write_json(temporary / _MANIFEST, manifest)


def kept_indexes(folder: Path) -> dict[str, LineIndex]:
    """The indexes that `keep_indexes` wrote, by the SHA-256 of their files; empty if they are missing or damaged.

    A process checks them once, and again after their manifest has changed.
    """
    # Nothing is lost without them: files are then read through, with the same result.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        manifest = (folder / _MANIFEST).read_bytes()
        checked, found = _checked.get(folder, (b"", {}))
        if checked != manifest:
            found = _checked_indexes(folder, json.loads(manifest))
            _checked[folder] = manifest, found
        return found
    _checked.pop(folder, None)
    return {}


def _checked_indexes(folder: Path, manifest: Mapping[str, Any]) -> dict[str, LineIndex]:
    """The indexes that a manifest describes; empty if the checksum, the format or the places do not fit it.

    Raises:
        OSError: the places cannot be read; a ValueError, LookupError, TypeError or AttributeError if the manifest or
            the places have another form.
    """
    slices = manifest["slices"]
    if manifest["format"] != _FORMAT or manifest["sha256"] != _checksum(folder, slices):
        return {}
    places = np.load(folder / _PLACES, mmap_mode="r")
    rows, columns = places.shape
    if rows != 2 or places.dtype != np.uint64 or not all(0 <= start < end <= columns for start, end in slices.values()):
        return {}
    return {sha256: LineIndex(places[:, start:end]) for sha256, (start, end) in slices.items()}


def _checksum(folder: Path, slices: object) -> str:
    """A SHA-256 of the places and of the slices that assign them to files."""
    text = file_sha256(folder / _PLACES) + json.dumps(slices, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
