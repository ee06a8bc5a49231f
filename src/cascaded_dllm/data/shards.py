"""A shard: a folder with the records of its documents and a manifest, which exists completely or not at all."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cascaded_dllm.atomic import complete_folder, file_sha256, write_json
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.data.manifest import Counts, DamagedError, Settings
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.os_errors import write_errors

KIND = "shard"
RECORDS_FILE = "documents.parquet"
# Bounds the memory of a writer and of a reader: about 8 MiB.
ROW_GROUP_TOKENS = 1 << 20
_READ_DOCUMENTS = 4096
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("importance", pa.list_(pa.float32()), nullable=False),
    ]
)


class Record(NamedTuple):
    """A document as tokens, with the importance of each token."""

    id: str
    token_ids: npt.NDArray[np.int32]
    importance: npt.NDArray[np.float32]


class SourceHash:
    """Hash of the documents of a shard; its manifest keeps it, to tell from which texts the shard was made."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document_id: str, text: str) -> None:
        """Adds a document.

        Raises:
            DataError: the id or the text contains half of a surrogate pair, which no encoding represents.
        """
        for part in (document_id, text):
            try:
                data = part.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"document {document_id!r} holds the lone surrogate {part[error.start]!r} at character "
                    f"{error.start}; repair the text or leave the document out"
                ) from error
            # With the length in front, different sequences of documents give different bytes.
            self._digest.update(len(data).to_bytes(8, "little") + data)

    def hexdigest(self) -> str:
        """The hash of all documents so far."""
        return self._digest.hexdigest()


@final
class ShardWriter:
    """Writes records in the order of the calls, with one row group at a time in memory; made by `write_shard`."""

    def __init__(self, path: Path) -> None:
        self.counts = Counts()
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd", write_statistics=False)
        self._ids: list[str] = []
        self._token_ids: list[npt.NDArray[np.int32]] = []
        self._importance: list[npt.NDArray[np.float32]] = []
        self._held = 0

    def add(
        self,
        document_id: str,
        token_ids: Sequence[int] | npt.NDArray[np.int32],
        importance: Sequence[float] | npt.NDArray[np.float32],
        *,
        num_characters: int,
    ) -> None:
        """Adds one document; one without tokens is counted as dropped.

        Args:
            document_id: its name, which need not be unique.
            token_ids: its tokens.
            importance: one value per token.
            num_characters: length of its text, for the counts.

        Raises:
            DataError: there is not one finite importance for every token.
        """
        if len(token_ids) == 0:
            self.drop("empty", num_characters)
            return
        values = np.asarray(importance, dtype=np.float32)
        if len(values) != len(token_ids) or not np.isfinite(values).all():
            raise DataError(
                f"document {document_id!r} has {len(token_ids)} tokens but {int(np.isfinite(values).sum())} finite "
                "importance values; the scorer must give one finite number for every token"
            )
        self.counts += Counts(1, len(token_ids), num_characters)
        self._ids.append(document_id)
        self._token_ids.append(np.asarray(token_ids, dtype=np.int32))
        self._importance.append(values)
        self._held += len(token_ids)
        if self._held >= ROW_GROUP_TOKENS:
            self._flush()

    def drop(self, reason: str, num_characters: int) -> None:
        """Counts a dropped record."""
        self.counts += Counts(dropped={reason: 1}, dropped_characters=num_characters)

    def close(self) -> None:
        """Writes the held documents and the end of the file."""
        self._flush()
        self._file.close()

    def abandon(self) -> None:
        """Closes the file without writing the held documents."""
        self._file.close()

    def _flush(self) -> None:
        """Writes the held documents as one row group."""
        if not self._ids:
            return
        lengths = [len(token_ids) for token_ids in self._token_ids]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        columns = [
            pa.array(self._ids, pa.string()),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(self._token_ids))),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(self._importance))),
        ]
        self._file.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
        self._ids, self._token_ids, self._importance, self._held = [], [], [], 0


@contextlib.contextmanager
def write_shard(folder: Path, settings: Settings, index: int, source: SourceHash) -> Iterator[ShardWriter]:
    """A writer whose records become the shard `folder` when the block ends without an exception.

    Args:
        folder: the shard.
        settings: with which the shard is made.
        index: its number in the dataset.
        source: hash to which the caller adds every document of the shard.
    """
    with complete_folder(folder) as temporary:
        path = temporary / RECORDS_FILE
        writer = ShardWriter(path)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.close()
        write_json(
            temporary / manifests.FILE_NAME,
            manifests.header(KIND)
            | {
                "fingerprint": shard_fingerprint(settings, index),
                "shard": index,
                "settings": asdict(settings.brief()),
                "counts": asdict(writer.counts),
                "source_sha256": source.hexdigest(),
                "records_sha256": file_sha256(path),
            },
        )


def shard_fingerprint(settings: Settings, index: int) -> str:
    """A hash of what decides whether a complete shard may be kept: the settings, and which part of the corpus it is."""
    return manifests.fingerprint({"settings": asdict(settings), "shard": index})


@final
@dataclass(frozen=True, slots=True)
class Shard:
    """A complete shard on disk.

    Attributes:
        folder: its folder.
        settings: with which it was made, in the form of `Settings.brief`.
        counts: of its content.
        fingerprint: of the full settings and its number.
        source_sha256: hash of the documents from which it was made.
        records_sha256: hash of its records file.
    """

    folder: Path
    settings: Settings
    counts: Counts
    fingerprint: str
    source_sha256: str
    records_sha256: str

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        """The shard in `folder`; its records are checked when they are read.

        Raises:
            DamagedError: there is no manifest, or it is broken.
            DataError: the manifest cannot be read, is incomplete, or is of another kind or format.
        """
        manifest = manifests.read_manifest(folder, KIND, whole=folder.parent)
        return cls(
            folder,
            manifests.parse_settings(manifest, folder),
            manifests.parse_counts(manifest, folder),
            manifests.parse_text(manifest, "fingerprint", folder),
            manifests.parse_text(manifest, "source_sha256", folder),
            manifests.parse_text(manifest, "records_sha256", folder),
        )

    def verify(self) -> None:
        """Compares the records file with the hash in the manifest.

        Raises:
            DamagedError: the file is missing, truncated, changed or foreign.
            DataError: it cannot be read.
        """
        path = self.folder / RECORDS_FILE
        try:
            found = file_sha256(path)
        except FileNotFoundError as error:
            raise DamagedError(f"{path} is missing; remove {self.folder} and preprocess again") from error
        except OSError as error:
            raise manifests.unreadable(path, error) from error
        if found != self.records_sha256:
            raise DamagedError(
                f"{path} has SHA-256 {found[:16]}, the manifest says {self.records_sha256[:16]}: it is truncated or "
                f"was changed; remove {self.folder} and preprocess again"
            )

    def records(self) -> Iterator[Record]:
        """The records in the order in which they were written, in constant memory, after `verify`."""
        self.verify()
        with pq.ParquetFile(self.folder / RECORDS_FILE) as file:
            for batch in file.iter_batches(batch_size=_READ_DOCUMENTS):
                yield from _records(batch)


def remove_damaged(path: Path) -> None:
    """Removes a damaged shard file by file, so that nothing else is deleted.

    Raises:
        OutputError: the folder holds other files, or cannot be removed.
    """
    own = (manifests.FILE_NAME, RECORDS_FILE)
    with write_errors(f"the damaged shard {path} cannot be removed", "remove it or choose another output folder"):
        foreign = sorted(item.name for item in path.iterdir() if item.name not in own)
        if foreign:
            raise OutputError(
                f"{path} is not a shard and holds other files ({', '.join(foreign[:3])}); move it away or choose "
                "another output folder"
            )
        for name in own:
            (path / name).unlink(missing_ok=True)
        path.rmdir()


def _records(batch: pa.RecordBatch) -> Iterator[Record]:
    """The rows of one batch; their arrays share its memory."""
    ids, token_ids, importance = batch.columns
    ends = np.cumsum(token_ids.value_lengths().to_numpy())
    flat_ids = token_ids.flatten().to_numpy()
    flat_importance = importance.flatten().to_numpy()
    start = 0
    for document_id, end in zip(ids.to_pylist(), ends.tolist(), strict=True):
        yield Record(document_id, flat_ids[start:end], flat_importance[start:end])
        start = end
