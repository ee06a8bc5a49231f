"""The records of a corpus laid down shard by shard in one pass, where each shard would have to read all of it.

A compressed file can only be read from its beginning, so that N tasks would unpack it N times. What is laid down here
is what they read instead, each its own file; it is removed with the last shard.
"""

import io
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from cascaded_dllm.atomic import complete_folder, file_sha256, write_json
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.errors import DataError
from cascaded_dllm.text.corpora import Corpus
from cascaded_dllm.text.document import Document, Dropped

KIND = "parts of a corpus"
# What is held in memory before it is written, in characters; a record without any counts as so many.
_HELD_CHARACTERS = 1 << 24
_RECORD_CHARACTERS = 256
# A file is a sequence of blocks, so that no file has to stay open: the length of a block, and the block.
_LENGTH = struct.Struct("<Q")
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.large_string(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("reason", pa.string()),
        pa.field("characters", pa.int64()),
    ]
)


def write_parts(
    corpus: Corpus, num_parts: int, wanted: Collection[int], folder: Path, on_progress: Callable[[int], None]
) -> None:
    """Reads the corpus once and writes the wanted ones of its parts to `folder`, completely or not at all.

    Args:
        corpus: the records.
        num_parts: of the corpus, see `Corpus.part`.
        wanted: the numbers of the parts that are written.
        folder: what `read_part` reads.
        on_progress: told now and then how many records have been read.

    Raises:
        DataError: the input is broken.
        OutputExistsError: the folder cannot be written.
    """
    with complete_folder(folder) as temporary:
        held: defaultdict[int, list[Document | Dropped]] = defaultdict(list)
        weight = number = 0
        for number, (part, record) in enumerate(corpus.dealt(num_parts), start=1):
            if part not in wanted:
                continue
            held[part].append(record)
            weight += _RECORD_CHARACTERS + (len(record.text) if isinstance(record, Document) else 0)
            if weight >= _HELD_CHARACTERS:
                _append(temporary, held)
                weight = 0
                on_progress(number)
        _append(temporary, held)
        on_progress(number)
        paths = {part: _file(temporary, part) for part in sorted(wanted)}
        for path in paths.values():
            path.touch()  # A part may have no record.
        sha256 = {str(part): file_sha256(path) for part, path in paths.items()}
        write_json(temporary / manifests.FILE_NAME, manifests.header(KIND) | {"sha256": sha256})


def read_part(folder: Path, part: int) -> Iterator[Document | Dropped] | None:
    """The records of a part that `write_parts` wrote; None where it did not.

    Raises:
        DataError: it is damaged.
    """
    if not (folder / manifests.FILE_NAME).is_file():
        return None
    expected = manifests.read_manifest(folder, KIND)["sha256"].get(str(part))
    if expected is None:
        return None
    path = _file(folder, part)
    if not path.is_file() or file_sha256(path) != expected:
        raise DataError(f"{path} is missing, truncated or was changed; remove {folder}, and the corpus is read again")
    return _records(path)


def _file(folder: Path, part: int) -> Path:
    return folder / f"{part}.arrow"


def _append(folder: Path, held: defaultdict[int, list[Document | Dropped]]) -> None:
    """Adds the held records to the files of their parts, and holds them no longer."""
    for part, records in held.items():
        block = _block(records)
        with _file(folder, part).open("ab") as file:
            file.write(_LENGTH.pack(block.size))
            file.write(block)
    held.clear()


def _block(records: Sequence[Document | Dropped]) -> pa.Buffer:
    columns = [
        [record.id for record in records],
        [record.text if isinstance(record, Document) else None for record in records],
        [record.reason if isinstance(record, Dropped) else None for record in records],
        [record.characters if isinstance(record, Dropped) else None for record in records],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    return sink.getvalue()


def _records(path: Path) -> Iterator[Document | Dropped]:
    with path.open("rb") as file:
        while header := file.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(header)
            for batch in pa.ipc.open_stream(io.BytesIO(file.read(length))):
                rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                for name, text, reason, characters in rows:
                    yield Document(name, text) if reason is None else Dropped(name, reason, characters)
