"""Rows of files on this machine: plain text, JSON lines and parquet, read as a stream."""

import functools
import gzip
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document

Unit = Literal["paragraph", "line", "file"]
UNITS: tuple[Unit, ...] = ("paragraph", "line", "file")
SUFFIXES = (".txt", ".txt.gz", ".txt.xz", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet")
PARQUET_BATCH_ROWS = 1024


class _Line(NamedTuple):
    """A line as it stands in a file: its number from 1, where it begins, its bytes with the line end."""

    file: Path
    number: int
    offset: int
    content: bytes

    def decode(self) -> str:
        """The line as text; a byte-order mark at the head of the file is dropped.

        Raises:
            DataError: it is binary or not UTF-8.
        """
        if b"\0" in self.content:
            raise DataError(
                f"{self.file} line {self.number} has a NUL byte at byte {self.offset + self.content.index(0)}; "
                "give UTF-8 text, not a binary file"
            )
        try:
            text = self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.file} line {self.number} is not UTF-8 at byte {self.offset + error.start} "
                f"(0x{self.content[error.start]:02x}); convert the file to UTF-8"
            ) from error
        return text.removeprefix("\ufeff") if self.number == 1 else text


def unread_rows(file: Path, *, text_field: str, unit: Unit) -> Iterator[Callable[[], Document]]:
    """The records of a file, found but not parsed, so that one that is not wanted costs next to nothing.

    Each is to be read before the next one is asked for. Only one (of a parquet file, one batch of rows) is in memory.

    Args:
        file: a .txt, .jsonl (either also .gz or .xz) or .parquet file.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.

    Yields:
        Functions that return rows, blank ones too, named "<file>:<index>" or by their own "id".

    Raises:
        DataError: the file is broken, not text or of an unknown kind; with the place and the remedy.
    """
    suffix = checked_suffix(file)
    if suffix == ".parquet":
        return _parquet_rows(file, text_field)
    if suffix.startswith(".jsonl"):
        return _jsonl_rows(file, text_field)
    return _txt_rows(file, unit)


def checked_suffix(file: Path) -> str:
    """The one of `SUFFIXES` that tells the kind of a file.

    Raises:
        DataError: there is none, or the file is empty.
    """
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"{file} is of an unknown kind; it must end in one of {', '.join(SUFFIXES)}")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes); give a file with text, or remove it")
    return suffix


def _txt_rows(file: Path, unit: Unit) -> Iterator[Callable[[], Document]]:
    match unit:
        case "line":
            blocks: Iterable[str] = (line.rstrip("\r\n") for line in text_lines(file))
        case "paragraph":
            blocks = _paragraphs(text_lines(file))
        case "file":
            blocks = iter(["".join(text_lines(file))])
    for index, block in enumerate(blocks):
        yield functools.partial(Document, f"{file.name}:{index}", block)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The blocks between blank lines, without the line end of their last line."""
    for is_blank, block in itertools.groupby(lines, lambda line: not line.strip()):
        if not is_blank:
            yield "".join(block).rstrip("\r\n")


def _jsonl_rows(file: Path, text_field: str) -> Iterator[Callable[[], Document]]:
    for line in _raw_lines(file):
        yield functools.partial(_jsonl_row, line, text_field)


def _jsonl_row(line: _Line, text_field: str) -> Document:
    content = line.decode()
    place, default = f"{line.file} line {line.number}", f"{line.file.name}:{line.number - 1}"
    if not content.strip():
        return Document(default, content.rstrip("\r\n"))
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}); repair or remove the line") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} is a {type(record).__name__}, not an object; write {{{text_field!r}: ...}}")
    if text_field not in record:
        raise missing_field(place, text_field, list(record))
    return Document(row_name(record, default), checked_text(record[text_field], place, text_field))


def _parquet_rows(file: Path, text_field: str) -> Iterator[Callable[[], Document]]:
    import pyarrow.parquet as pq

    first = 0
    with _parquet_errors(file), pq.ParquetFile(file) as table:
        names = list(table.schema_arrow.names)
        if text_field not in names:
            raise missing_field(str(file), text_field, names)
        columns = [text_field] + (["id"] if "id" in names and text_field != "id" else [])
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns):
            for place in range(batch.num_rows):
                yield functools.partial(_parquet_row, file, batch, place, first + place, text_field)
            first += batch.num_rows


def _parquet_row(file: Path, batch: Any, place: int, index: int, text_field: str) -> Document:
    with _parquet_errors(file):
        row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
    text = checked_text(row[text_field], f"{file} row {index}", text_field)
    return Document(row_name(row, f"{file.name}:{index}"), text)


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a whole parquet file ({error}); write or download it again") from error


def row_name(record: Mapping[str, object], default: str) -> str:
    """The row's own "id", or `default` where it has none."""
    own = record.get("id")
    return default if own is None else str(own)


def missing_field(place: str, text_field: str, fields: Iterable[str]) -> DataError:
    """What to raise where rows have no such field."""
    listed = ", ".join(repr(field) for field in fields) or "none"
    return DataError(f"{place} has no field {text_field!r}; its fields are {listed}: choose one as the text field")


def checked_text(value: object, place: str, text_field: str) -> str:
    """The text of a row.

    Raises:
        DataError: it is no string, or one that no UTF-8 file can hold.
    """
    if not isinstance(value, str):
        raise DataError(
            f"{place} has a {type(value).__name__} in the field {text_field!r}, not a string; "
            "choose another text field or repair the record"
        )
    if "\0" in value:
        raise DataError(f"{place} has a NUL character at {value.index(chr(0))}, so it is no text; remove the record")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} has half of a surrogate pair at character {error.start}, which no UTF-8 text can hold; "
            "write the file again with whole characters"
        ) from error
    return value


def text_lines(file: Path) -> Iterator[str]:
    """The lines of a text file with their line ends.

    Raises:
        DataError: the file cannot be read to its end, or is not UTF-8 text.
    """
    return (line.decode() for line in _raw_lines(file))


def _raw_lines(file: Path) -> Iterator[_Line]:
    r"""The lines of a text file with their line ends, which are "\n" or "\r\n" only."""
    offset = 0
    with _opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            yield _Line(file, number, offset, line)
            offset += len(line)


@contextmanager
def _opened(file: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, decompressed by its suffix; an error while reading them names the file."""
    try:
        with _open_bytes(file) as stream:
            yield stream
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise DataError(f"{file} cannot be read to its end ({error}); write or download it again") from error


def _open_bytes(file: Path) -> BufferedIOBase:
    match file.suffix.lower():
        case ".gz":
            return gzip.GzipFile(file, "rb")
        case ".xz":
            return lzma.LZMAFile(file, "rb")
        case _:
            return file.open("rb")
