"""Documents from files and folders on this machine, read as a stream."""

import functools
import gzip
import hashlib
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped, Part, as_record

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


@final
@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A file, or all files of a folder in the order of their names, as a `Reader`.

    Only one document (of a parquet file, one batch of rows) is in memory at a time. Records are named
    "<file>:<index>", or by their own "id"; the index counts dropped ones too.

    Attributes:
        path: a .txt, .jsonl (either also .gz or .xz) or .parquet file, or a folder; hidden files are ignored.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
    """

    path: Path
    text_field: str = "text"
    unit: Unit = "paragraph"

    def files(self) -> list[Path]:
        """The files in the order in which they are read.

        Raises:
            DataError: there is none, or one is empty or of an unknown kind.
        """
        files = _files(self.path)
        for file in files:
            _checked_suffix(file)
        return files

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`; the names and sizes of all files are checked before the first record is yielded.

        Raises:
            DataError: something is missing, empty, broken, not text or of an unknown kind; with the place and remedy.
        """
        unread = itertools.chain.from_iterable(map(self._unread, self.files()))
        return (as_record(read()) for read in part.of(unread))

    def source(self) -> dict[str, object]:
        """See `Reader`; every file is read once per process."""
        files = self.files()
        suffixes = {_checked_suffix(file).split(".")[1] for file in files}
        return {
            "kind": "files",
            "files": [_described(file) for file in files],
            "text_field": self.text_field if suffixes - {"txt"} else None,
            "unit": self.unit if "txt" in suffixes else None,
        }

    def _unread(self, file: Path) -> Iterator[Callable[[], Document]]:
        """The records of a file, found but not parsed; each is to be read before the next one is asked for."""
        suffix = _checked_suffix(file)
        if suffix == ".parquet":
            return _parquet_rows(file, self.text_field)
        if suffix.startswith(".jsonl"):
            return _jsonl_rows(file, self.text_field)
        return _txt_rows(file, self.unit)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}; check the name")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise DataError(f"the folder {path} holds 0 files; put at least one of {', '.join(SUFFIXES)} into it")
    return files


def _checked_suffix(file: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"{file} is of an unknown kind; it must end in one of {', '.join(SUFFIXES)}")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes); give a file with text, or remove it")
    return suffix


def _described(file: Path) -> dict[str, object]:
    status = file.stat()
    return {"name": file.name, "bytes": status.st_size, "sha256": _sha256(file, status.st_size, status.st_mtime_ns)}


@functools.lru_cache(maxsize=4096)
def _sha256(file: Path, size: int, modified: int) -> str:
    """The hash of a file of this size and time of change, which tell whether it has to be read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _txt_rows(file: Path, unit: Unit) -> Iterator[Callable[[], Document]]:
    match unit:
        case "line":
            blocks: Iterable[str] = (line.rstrip("\r\n") for line in _lines(file))
        case "paragraph":
            blocks = _paragraphs(_lines(file))
        case "file":
            blocks = iter(["".join(_lines(file))])
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
        raise _missing_field(place, text_field, list(record))
    return Document(_name(record, default), _checked_text(record[text_field], place, text_field))


def _parquet_rows(file: Path, text_field: str) -> Iterator[Callable[[], Document]]:
    import pyarrow.parquet as pq

    first = 0
    with _parquet_errors(file), pq.ParquetFile(file) as table:
        names = list(table.schema_arrow.names)
        if text_field not in names:
            raise _missing_field(str(file), text_field, names)
        columns = [text_field] + (["id"] if "id" in names and text_field != "id" else [])
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns):
            for place in range(batch.num_rows):
                yield functools.partial(_parquet_row, file, batch, place, first + place, text_field)
            first += batch.num_rows


def _parquet_row(file: Path, batch: Any, place: int, index: int, text_field: str) -> Document:
    with _parquet_errors(file):
        row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
    text = _checked_text(row[text_field], f"{file} row {index}", text_field)
    return Document(_name(row, f"{file.name}:{index}"), text)


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a whole parquet file ({error}); write or download it again") from error


def _name(record: dict[str, object], default: str) -> str:
    own = record.get("id")
    return default if own is None else str(own)


def _missing_field(place: str, text_field: str, fields: list[str]) -> DataError:
    listed = ", ".join(repr(field) for field in fields) or "none"
    return DataError(f"{place} has no field {text_field!r}; its fields are {listed}: choose one as the text field")


def _checked_text(value: object, place: str, text_field: str) -> str:
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


def _lines(file: Path) -> Iterator[str]:
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
