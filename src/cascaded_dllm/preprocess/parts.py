"""The records of a corpus written in one pass to one file for each shard, if every task would have to read all of it.

A compressed file can only be read from its start, so N tasks would unpack it N times. Other files can be skipped faster
than they are read, but with many tasks even that is more work. Every task reads its own file instead; the files are
removed when the last shard is complete.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, final

from cascaded_dllm.atomic import complete_folder, file_sha256, write_json
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.errors import DataError
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "parts of a corpus"
FORMAT = 2
"""Of the files; files of another format are ignored, and the corpus is read again."""
# A file is a sequence of blocks, so that no file has to stay open. A block is its compressed length, its uncompressed
# length, and the compressed records.
_LENGTHS = struct.Struct("<QQ")
# Opening a file and compressing a block costs as much as writing some ten thousand bytes, so blocks should not shrink
# as the number of parts grows. The held bytes grow instead, up to a bound that fits into any machine.
_HELD_BYTES = 1 << 24
_HELD_BYTES_PER_PART = 1 << 16
_HELD_BYTES_AT_MOST = 1 << 28


def write_parts(
    corpus: Corpus, num_parts: int, wanted: Collection[int], folder: Path, on_progress: Callable[[int], None]
) -> None:
    """Reads the corpus once and writes the wanted ones of its parts to `folder`, completely or not at all.

    Args:
        corpus: the records.
        num_parts: of the corpus, see `Corpus.part`.
        wanted: the numbers of the parts that are written.
        folder: where they go, for `read_part`.
        on_progress: called now and then with the number of records read.

    Raises:
        DataError: the input is broken.
        OutputError: the folder cannot be written.
    """
    with complete_folder(folder) as temporary:
        parts = {part: _Part(temporary / _file_name(part)) for part in sorted(wanted)}
        most = held_bytes(len(parts))
        held = number = 0
        for number, (part, record) in enumerate(corpus.dealt(num_parts), start=1):
            if part not in parts:
                continue
            held += parts[part].hold(record)
            if held >= most:
                _append(parts.values())
                held = 0
                on_progress(number)
        _append(parts.values())
        on_progress(number)
        sha256 = {str(part): at.sha256.hexdigest() for part, at in parts.items()}
        write_json(temporary / manifests.FILE_NAME, manifests.header(KIND) | {"sha256": sha256})


def held_bytes(num_parts: int) -> int:
    """The bytes of records that are held in memory before they are written to `num_parts` files: 16 to 256 MiB."""
    return max(_HELD_BYTES, min(num_parts * _HELD_BYTES_PER_PART, _HELD_BYTES_AT_MOST))


def read_part(folder: Path, part: int) -> Iterator[Document | Dropped] | None:
    """The records of a part that `write_parts` has written; None if it has not.

    Raises:
        DataError: the file is damaged.
    """
    if not (folder / manifests.FILE_NAME).is_file():
        return None
    expected = manifests.read_manifest(folder, KIND)["sha256"].get(str(part))
    if expected is None:
        return None
    path = folder / _file_name(part)
    if not path.is_file() or file_sha256(path) != expected:
        raise DataError(f"{path} is missing, truncated or was changed; remove {folder}, and the corpus is read again")
    return _records(path)


def _file_name(part: int) -> str:
    return f"{part}.zst"


@final
class _Part:
    """One part while it is written: its file, which exists from the start, and the records that are held for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = hashlib.sha256()
        self._waiting = bytearray()
        path.touch()

    def hold(self, record: Document | Dropped) -> int:
        """Holds a record for `append`, and returns the bytes that this takes."""
        fields: list[str | int]
        if isinstance(record, Document):
            fields = [record.id, record.text]
        else:
            fields = [record.id, record.reason, record.characters]
        # JSON escapes line ends within a text.
        line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
        self._waiting += line
        return len(line)

    def append(self, codec: "pa.Codec") -> None:
        """Appends the held records to the file."""
        if not self._waiting:
            return
        packed = codec.compress(self._waiting, asbytes=True)
        block = _LENGTHS.pack(len(packed), len(self._waiting)) + packed
        with self.path.open("ab") as file:
            file.write(block)
        self.sha256.update(block)
        self._waiting = bytearray()


def _append(parts: Iterable[_Part]) -> None:
    """Appends the held records of all parts to their files."""
    codec = _codec()
    for part in parts:
        part.append(codec)


def _codec() -> "pa.Codec":
    import pyarrow as pa

    return pa.Codec("zstd")


def _records(path: Path) -> Iterator[Document | Dropped]:
    codec = _codec()
    with path.open("rb") as file:
        while header := file.read(_LENGTHS.size):
            packed, length = _LENGTHS.unpack(header)
            for line in codec.decompress(file.read(packed), length, asbytes=True).splitlines():
                name, *rest = json.loads(line)
                yield Document(name, *rest) if len(rest) == 1 else Dropped(name, *rest)
