"""The row groups of a dataset's shards: pieces that can be read one by one and in any order."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cascaded_dllm.data.manifest import DamagedError
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.shards import RECORDS_FILE, Shard
from cascaded_dllm.errors import DataError
from cascaded_dllm.os_errors import remedy_for

# `token_ids` is the second leaf of the schema of a shard.
_TOKENS_COLUMN = 1


class DocumentBatch(NamedTuple):
    """Documents as tokens, one after another in flat arrays.

    Attributes:
        ids: their names.
        lengths: number of tokens of each.
        token_ids: of all documents.
        importance: one value for every token.
    """

    ids: list[str]
    lengths: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    importance: npt.NDArray[np.float32]


@final
@dataclass(frozen=True, slots=True)
class RowGroup:
    """About a million tokens of a shard: whole documents that are read together.

    Attributes:
        shard: the shard.
        number: its place in the shard, from 0.
        num_documents: number of its documents.
        num_tokens: number of its tokens.
    """

    shard: Shard
    number: int
    num_documents: int
    num_tokens: int

    def read(self) -> DocumentBatch:
        """Its documents.

        Raises:
            DataError: they cannot be read. Changed values are not noticed here, but by `Shard.verify`.
        """
        with _opened(self.shard) as file:
            table = file.read_row_group(self.number).combine_chunks()
        ids, token_ids, importance = (column.chunk(0) for column in table.columns)
        lengths = token_ids.value_lengths().to_numpy().astype(np.int64)
        return DocumentBatch(ids.to_pylist(), lengths, token_ids.flatten().to_numpy(), importance.flatten().to_numpy())

    def read_ids(self) -> list[str]:
        """Only the names of its documents, which is quick.

        Raises:
            DataError: they cannot be read.
        """
        with _opened(self.shard) as file:
            names: list[str] = file.read_row_group(self.number, columns=["id"]).column("id").to_pylist()
        return names


def row_groups(dataset: PreprocessedDataset) -> list[RowGroup]:
    """All row groups in the order of the records; only the footers of the files are read.

    Raises:
        DataError: a shard cannot be read.
        DamagedError: a shard does not have the number of documents or tokens of its manifest.
    """
    return [group for shard in dataset.shards for group in _row_groups(shard)]


def _row_groups(shard: Shard) -> list[RowGroup]:
    with _opened(shard) as file:
        found = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        # A document without tokens is never written, so every value of the column is a token.
        groups = [
            RowGroup(shard, number, group.num_rows, group.column(_TOKENS_COLUMN).num_values)
            for number, group in enumerate(found)
        ]
    counted = sum(group.num_documents for group in groups), sum(group.num_tokens for group in groups)
    if counted != (shard.counts.documents, shard.counts.tokens):
        raise DamagedError(
            f"{shard.folder / RECORDS_FILE} holds {counted[0]} documents of {counted[1]} tokens, the manifest says "
            f"{shard.counts.documents} of {shard.counts.tokens}; remove {shard.folder} and preprocess again"
        )
    return groups


@contextlib.contextmanager
def _opened(shard: Shard) -> Iterator[pq.ParquetFile]:
    """The records file of a shard.

    Raises:
        DataError: it is missing or not a parquet file, or reading it inside the block fails.
    """
    path = shard.folder / RECORDS_FILE
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        again = f"if it is truncated or was changed, remove {shard.folder} and preprocess again"
        raise DataError(f"{path} cannot be read ({reason}); {remedy_for(error, again)}") from error
