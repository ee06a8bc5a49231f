"""Rows of files on this machine: plain text, JSON lines and parquet, read as a stream."""

import functools
import gzip
import itertools
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import READ_ONCE_FROM, Document, Dropped
from cascaded_dllm.text.rows import BadRecordError, row_record

Unit = Literal["paragraph", "line", "file"]
UNITS: tuple[Unit, ...] = ("paragraph", "line", "file")
DEFAULT_UNIT: Unit = "paragraph"
_COMPRESSED = (".gz", ".xz", ".zst")
SUFFIXES = (*(kind + packed for kind in (".txt", ".jsonl", ".json") for packed in ("", *_COMPRESSED)), ".parquet")
BadRecords = Literal["refuse", "drop"]
BAD_RECORDS: tuple[BadRecords, ...] = ("refuse", "drop")
PARQUET_BATCH_ROWS = 1024
_ZST_BUFFER_BYTES = 1 << 16
# A file with a NUL byte among its first ones is taken for a binary one, as other tools do; further on it is text.
_BINARY_WITHIN_BYTES = 8000

# See `read_once_from`.
_READ_ONCE_FROM = {".parquet": 10, ".jsonl": 32, ".json": 32}

Unread: TypeAlias = Callable[[], Document | Dropped]
"""A record that was found but not parsed."""


class _Line(NamedTuple):
    """A line as it stands in a file: its number from 1, where it begins, its bytes with the line end."""

    file: Path
    number: int
    offset: int
    content: bytes

    def decode(self) -> str:
        """The line as text; a byte-order mark at the head of the file is dropped.

        Raises:
            BadRecordError: the line is not UTF-8.
            DataError: the file is binary.
        """
        nul = self.offset + self.content.find(b"\0")
        if self.offset <= nul < _BINARY_WITHIN_BYTES:
            raise DataError(
                f"{self.file} line {self.number} has a NUL byte at byte {nul}; give UTF-8 text, not a binary file "
                "(texts that begin with NUL characters can be given as .parquet, or escaped in .jsonl)"
            )
        try:
            text = self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRecordError(
                f"{self.file} line {self.number} is not UTF-8 at byte {self.offset + error.start} "
                f"(0x{self.content[error.start]:02x}); convert the file to UTF-8",
                reason=BadRecordError.NOT_UTF8,
                characters=len(self.content.decode("utf-8", "replace").rstrip("\r\n")),
            ) from error
        return text.removeprefix("\ufeff") if self.number == 1 else text


def unread_rows(
    file: Path, *, text_field: str, unit: Unit, name: str | None = None, bad_records: BadRecords = "refuse"
) -> Iterator[Unread]:
    """The records of a file, found but not parsed, so that one that is not wanted costs next to nothing.

    Each is to be read before the next one is asked for. Only one (of a parquet file, one batch of rows) is in memory.

    Args:
        file: a .txt, .jsonl (either also .gz, .xz or .zst) or .parquet file; .json stands for .jsonl.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
        name: what the file is called in the ids of its rows; None for its own name.
        bad_records: what becomes of records of a .txt or .jsonl file that cannot be read. A .parquet file checks its
            rows when it is written, so that what is wrong in it is wrong with the file.

    Yields:
        Functions that return rows, blank ones too, named "<name>:<index>" or by their own "id"; those without a text
        as what was dropped. They raise BadRecordError where bad records are refused.

    Raises:
        DataError: the file is broken, not text or of an unknown kind; with the place and the remedy.
    """
    suffix, name = checked_suffix(file), file.name if name is None else name
    if suffix == ".parquet":
        return _parquet_rows(file, text_field, name)
    rows = _txt_rows(file, unit, name) if suffix.startswith(".txt") else _jsonl_rows(file, text_field, name)
    if bad_records == "refuse":
        return rows
    return (functools.partial(_or_dropped, read, f"{name}:{index}") for index, read in enumerate(rows))


def _or_dropped(read: Unread, name: str) -> Document | Dropped:
    """A record, as dropped where it cannot be read."""
    try:
        return read()
    except BadRecordError as error:
        return Dropped(name, error.reason, error.characters)


def suffix_of(file: Path) -> str:
    """The one of `SUFFIXES` that tells the kind of a file.

    Raises:
        DataError: there is none.
    """
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise DataError(
            f"{file} is of an unknown kind; it must end in one of {', '.join(SUFFIXES)} (a pattern such as "
            f"'{file.parent}/*.txt' leaves other files out)"
        )
    return suffix


def checked_suffix(file: Path) -> str:
    """`suffix_of` a file, after a look at its size.

    Raises:
        DataError: there is none, or the file is empty or out of reach.
    """
    suffix = suffix_of(file)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise unreadable(file, error) from error
    if size == 0:
        raise DataError(f"{file} is empty (0 bytes); give a file with text, or remove it")
    return suffix


def read_once_from(file: Path, unit: Unit) -> int | None:
    """The number of parts from which on it is less work to read a file once for all of them; None for no number.

    To read 342 MB of text in 150,000 records, lay it down for 8 shards and read that again took 7 to 10 s of a core. To
    pass over it for the records of one shard took 0.6 s as .jsonl, 2.1 s as .parquet, and as .jsonl.xz nearly as long
    as to read it. Passing over is spread over processes and takes no room on the disk, so that the numbers are twice
    those at which the work is equal.
    """
    suffix = suffix_of(file)
    if suffix.startswith(".txt"):
        return None if unit == "file" else READ_ONCE_FROM
    if suffix.endswith(_COMPRESSED):
        return READ_ONCE_FROM
    return _READ_ONCE_FROM[suffix]


def _txt_rows(file: Path, unit: Unit, name: str) -> Iterator[Unread]:
    match unit:
        case "line":
            blocks: Iterable[str | BadRecordError] = (_block([line]) for line in text_lines(file))
        case "paragraph":
            blocks = _paragraphs(text_lines(file))
        case "file":
            yield lambda: _document(f"{name}:0", _joined(list(text_lines(file))))
            return
    for index, block in enumerate(blocks):
        yield functools.partial(_document, f"{name}:{index}", block)


def _paragraphs(lines: Iterable[str | BadRecordError]) -> Iterator[str | BadRecordError]:
    """The blocks between blank lines; a line that cannot be read is none of those."""
    for is_blank, block in itertools.groupby(lines, lambda line: isinstance(line, str) and not line.strip()):
        if not is_blank:
            yield _block(list(block))


def _block(lines: Sequence[str | BadRecordError]) -> str | BadRecordError:
    """`_joined` lines without the line end of the last one."""
    text = _joined(lines)
    return text.rstrip("\r\n") if isinstance(text, str) else text


def _joined(lines: Sequence[str | BadRecordError]) -> str | BadRecordError:
    """Lines as one text, or what is wrong with the first that cannot be read."""
    fault = next((line for line in lines if isinstance(line, BadRecordError)), None)
    if fault is None:
        return "".join(map(str, lines))
    length = sum(len(line) if isinstance(line, str) else line.characters for line in lines)
    return BadRecordError(str(fault), reason=fault.reason, characters=length)


def _document(name: str, text: str | BadRecordError) -> Document:
    """The document of a text.

    Raises:
        BadRecordError: it could not be read.
    """
    if isinstance(text, BadRecordError):
        raise text
    return Document(name, text)


def _jsonl_rows(file: Path, text_field: str, name: str) -> Iterator[Unread]:
    for line in _raw_lines(file):
        yield functools.partial(_jsonl_row, line, text_field, name)


def _jsonl_row(line: _Line, text_field: str, name: str) -> Document | Dropped:
    place, default = f"{line.file} line {line.number}", f"{name}:{line.number - 1}"
    fields = _json_object(line, text_field)
    if isinstance(fields, str):
        return Document(default, fields)
    try:
        return row_record(fields, text_field, place=place, default=default)
    except DataError as error:
        raise BadRecordError(str(error), reason=BadRecordError.NO_STRING) from error


def _json_object(line: _Line, text_field: str) -> dict[str, object] | str:
    """The object in a line, or the line itself where it is blank.

    Raises:
        BadRecordError: it is something else, or not UTF-8.
        DataError: the file is binary, or a .json that is one array.
    """
    content, place = line.decode(), f"{line.file} line {line.number}"
    if line.number == 1 and content.lstrip().startswith("[") and suffix_of(line.file).split(".")[1] == "json":
        raise DataError(
            f"{line.file} is one JSON array, and its lines have to be objects, one a record; write it so "
            "(jq -c '.[]' OLD > NEW)"
        )
    if not content.strip():
        return content.rstrip("\r\n")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRecordError(
            f"{place} is not JSON ({error}); repair or remove the line",
            reason=BadRecordError.NOT_JSON,
            characters=len(content.rstrip("\r\n")),
        ) from error
    if not isinstance(found, dict):
        raise BadRecordError(
            f"{place} is a {type(found).__name__}, not an object; write {{{text_field!r}: ...}}",
            reason=BadRecordError.NO_OBJECT,
            characters=len(content.rstrip("\r\n")),
        )
    return found


def _parquet_rows(file: Path, text_field: str, name: str) -> Iterator[Unread]:
    import pyarrow.parquet as pq

    first = 0
    with _parquet_errors(file), pq.ParquetFile(file) as table:
        there = table.schema_arrow.names
        columns = [column for column in dict.fromkeys((text_field, "id")) if column in there]
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns):
            for place in range(batch.num_rows):
                yield functools.partial(_parquet_row, file, batch, place, first + place, text_field, name)
            first += batch.num_rows


def _parquet_row(file: Path, batch: Any, place: int, index: int, text_field: str, name: str) -> Document | Dropped:
    with _parquet_errors(file):
        row = {column: batch.column(column)[place].as_py() for column in batch.schema.names}
    return row_record(row, text_field, place=f"{file} row {index}", default=f"{name}:{index}")


def num_rows(file: Path) -> int:
    """The rows of a .parquet file, which its end tells.

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


def row_fields(file: Path, text_field: str) -> Iterator[tuple[str, list[str] | BadRecordError]]:
    """What the rows of a .jsonl or .parquet file are made of: a place and the names of the fields there.

    Every line of a .jsonl that is not blank has fields of its own, or is no object; a .parquet file has the same in all
    rows.

    Raises:
        DataError: the file cannot be read.
    """
    if suffix_of(file) == ".parquet":
        import pyarrow.parquet as pq

        with _parquet_errors(file), pq.ParquetFile(file) as table:
            yield str(file), list(table.schema_arrow.names)
        return
    for line in _raw_lines(file):
        place = f"{line.file} line {line.number}"
        try:
            fields = _json_object(line, text_field)
        except BadRecordError as error:
            yield place, error
            continue
        if not isinstance(fields, str):
            yield place, list(fields)


def unreadable(path: Path, error: OSError) -> DataError:
    """What to raise where the system does not let a file or folder of a corpus be read."""
    # Not the text of the error itself, in which Arrow repeats the path.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"{path} cannot be read ({reason}); check that you have the right to read it, and the disk "
        "or network that it lies on"
    )


def text_lines(file: Path) -> Iterator[str | BadRecordError]:
    """The lines of a text file with their line ends, and what is wrong with those that cannot be read.

    Raises:
        DataError: the file cannot be read to its end, or is binary.
    """
    for line in _raw_lines(file):
        try:
            yield line.decode()
        except BadRecordError as error:
            yield error


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
        # A foreign or broken archive is none of the system's errors, which have numbers.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(file, error) from error
        raise DataError(f"{file} cannot be read to its end ({error}); write or download it again") from error


def _open_bytes(file: Path) -> BufferedIOBase:
    match file.suffix.lower():
        case ".gz":
            return gzip.GzipFile(file, "rb")
        case ".xz":
            return lzma.LZMAFile(file, "rb")
        case ".zst":
            import pyarrow as pa

            return BufferedReader(pa.CompressedInputStream(pa.OSFile(str(file)), "zstd"), _ZST_BUFFER_BYTES)
        case _:
            return file.open("rb")
