"""Documents from files and folders on this machine, read as a stream."""

import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.document import Document

Unit = Literal["paragraph", "line", "file"]
UNITS: tuple[Unit, ...] = ("paragraph", "line", "file")
SUFFIXES = (".txt", ".txt.gz", ".txt.xz", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet")
PARQUET_BATCH_ROWS = 1024


def read_documents(path: Path, *, text_field: str = "text", unit: Unit = "paragraph") -> Iterator[Document]:
    """The documents of a file, or of all files of a folder in the order of their names.

    Only one document (of a parquet file, one batch of rows) is in memory at a time. Blank documents are left out. The
    names and sizes of all files are checked before the first document is yielded.

    Args:
        path: a .txt, .jsonl (either also .gz or .xz) or .parquet file, or a folder; hidden files are ignored.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one document of a .txt file is: a block between blank lines, a line, or the whole file.

    Yields:
        Documents named "<file>:<index>", or by the record's own "id"; the index counts left-out documents too.

    Raises:
        ConfigError: `unit` is unknown.
        DataError: something is missing, empty, broken, not text or of an unknown kind; with the place and the remedy.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit {unit!r} is unknown; choose one of {', '.join(UNITS)}")
    suffixes = {file: _checked_suffix(file) for file in _files(path)}
    num_documents = 0
    for file, suffix in suffixes.items():
        for document in _read_file(file, suffix, text_field, unit):
            num_documents += 1
            yield document
    if num_documents == 0:
        raise DataError(f"{path} holds 0 documents that are not blank; give a file with at least one")


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


def _read_file(file: Path, suffix: str, text_field: str, unit: Unit) -> Iterator[Document]:
    if suffix == ".parquet":
        return _read_parquet(file, text_field)
    if suffix.startswith(".jsonl"):
        return _read_jsonl(file, text_field)
    return _read_txt(file, unit)


def _read_txt(file: Path, unit: Unit) -> Iterator[Document]:
    block: list[str] = []
    index = 0
    for line in _lines(file):
        if unit == "paragraph" and not line.strip():
            if block:
                yield Document(f"{file.name}:{index}", "".join(block).rstrip("\r\n"))
                index += 1
            block = []
            continue
        block.append(line)
        if unit == "line":
            if line.strip():
                yield Document(f"{file.name}:{index}", line.rstrip("\r\n"))
            index += 1
            block = []
    text = "".join(block)
    if text.strip():
        yield Document(f"{file.name}:{index}", text if unit == "file" else text.rstrip("\r\n"))


def _read_jsonl(file: Path, text_field: str) -> Iterator[Document]:
    for index, line in enumerate(_lines(file)):
        if not line.strip():
            continue
        place = f"{file} line {index + 1}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place} is not JSON ({error}); repair or remove the line") from error
        if not isinstance(record, dict):
            raise DataError(f"{place} is a {type(record).__name__}, not an object; write {{{text_field!r}: ...}}")
        if text_field not in record:
            raise _missing_field(place, text_field, list(record))
        text = _checked_text(record[text_field], place, text_field)
        if text.strip():
            yield Document(_name(record, f"{file.name}:{index}"), text)


def _read_parquet(file: Path, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = 0
    try:
        with pq.ParquetFile(file) as table:
            names = list(table.schema_arrow.names)
            if text_field not in names:
                raise _missing_field(str(file), text_field, names)
            columns = [text_field] + (["id"] if "id" in names and text_field != "id" else [])
            for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    text = _checked_text(row[text_field], f"{file} row {index}", text_field)
                    if text.strip():
                        yield Document(_name(row, f"{file.name}:{index}"), text)
                    index += 1
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
    r"""The lines of a text file with their line ends, which are "\n" or "\r\n" only; a byte-order mark is dropped."""
    offset = 0
    with _opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            if b"\0" in line:
                position = offset + line.index(b"\0")
                raise DataError(
                    f"{file} line {number} has a NUL byte at byte {position}; give UTF-8 text, not a binary file"
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file} line {number} is not UTF-8 at byte {offset + error.start} "
                    f"(0x{line[error.start]:02x}); convert the file to UTF-8"
                ) from error
            yield text.removeprefix("\ufeff") if number == 1 else text
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
