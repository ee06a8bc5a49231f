"""The rows of local parquet files, as a stream."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped
from cascaded_dllm.text.rows import row_record, unreadable
from cascaded_dllm.text.skipping import Skip

BATCH_ROWS = 1024
"""Rows in memory at a time."""


def parquet_rows(file: Path, text_field: str, name: str, skip: Skip) -> Iterator[Callable[[], Document | Dropped]]:
    """The wanted rows of a file, found but not parsed; row groups without a wanted row are not read.

    Args:
        file: a .parquet file.
        text_field: the column that holds the text.
        name: name of the file in the ids of its rows.
        skip: the rows to skip.

    Raises:
        DataError: the file is broken, has two columns of one name, or its text column does not hold strings.
    """
    import pyarrow.parquet as pq

    first = 0
    with _parquet_errors(file), pq.ParquetFile(file) as table:
        there = table.schema_arrow.names
        columns = [column for column in dict.fromkeys((text_field, "id")) if column in there]
        if twice := next((column for column in columns if there.count(column) > 1), None):
            raise DataError(f"{file} has {there.count(twice)} columns {twice!r}; rename or remove all but one of them")
        for group in range(table.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            if skip.number >= size:
                first += skip.take(size)
                continue
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                place = skip.take(batch.num_rows)
                while place < batch.num_rows:
                    yield functools.partial(_parquet_row, file, batch, place, first + place, text_field, name)
                    place += 1 + skip.take(batch.num_rows - place - 1)
                first += batch.num_rows


def _parquet_row(file: Path, batch: Any, place: int, index: int, text_field: str, name: str) -> Document | Dropped:
    with _parquet_errors(file):
        row = {column: batch.column(column)[place].as_py() for column in batch.schema.names}
    return row_record(row, text_field, place=f"{file} row {index}", default=f"{name}:{index}")


def column_names(file: Path) -> list[str]:
    """The names of the columns of a file.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow.parquet as pq

    with _parquet_errors(file), pq.ParquetFile(file) as table:
        return list(table.schema_arrow.names)


def num_rows(file: Path) -> int:
    """The number of rows of a .parquet file, from its footer.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow.parquet as pq

    with _parquet_errors(file):
        return int(pq.read_metadata(file).num_rows)


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(file, error) from error
        raise DataError(f"{file} is not a whole parquet file ({error}); write or download it again") from error
