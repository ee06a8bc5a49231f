"""The rows of local plain text, JSON lines and parquet files, as a stream."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import READ_ONCE_FROM, Document, Dropped
from cascaded_dllm.text.line_index import LineIndex
from cascaded_dllm.text.lines import COMPRESSED, Line, raw_lines, text_lines
from cascaded_dllm.text.parquet_rows import column_names, parquet_rows
from cascaded_dllm.text.rows import BadRecordError, row_record, unreadable
from cascaded_dllm.text.skipping import Skip

Unit = Literal["paragraph", "line", "file"]
UNITS: tuple[Unit, ...] = ("paragraph", "line", "file")
DEFAULT_UNIT: Unit = "paragraph"
SUFFIXES = (*(kind + packed for kind in (".txt", ".jsonl", ".json") for packed in ("", *COMPRESSED)), ".parquet")
BadRecords = Literal["refuse", "drop"]
BAD_RECORDS: tuple[BadRecords, ...] = ("refuse", "drop")

# See `read_once_from`.
_READ_ONCE_FROM = {".parquet": 10, ".jsonl": 32, ".json": 32}

LazyRecord: TypeAlias = Callable[[], Document | Dropped]
"""A record that was found but not parsed."""


def lazy_rows(
    file: Path,
    *,
    text_field: str,
    unit: Unit,
    name: str | None = None,
    bad_records: BadRecords = "refuse",
    skip: Skip | None = None,
    index: LineIndex | None = None,
) -> Iterator[LazyRecord]:
    """The wanted records of a file, found but not parsed, so that skipping a record costs next to nothing.

    Call each one before asking for the next. Only one record (of a parquet file, one batch of rows) is in memory.

    Args:
        file: a .txt, .jsonl (either also .gz, .xz or .zst) or .parquet file; .json stands for .jsonl.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
        name: name of the file in the ids of its rows; None for its own name.
        bad_records: what becomes of records of a .txt or .jsonl file that cannot be read. A .parquet file checks its
            rows when it is written, so a fault in it is a fault of the whole file.
        skip: the records to skip; None for none.
        index: of the lines of a file with `has_lines`; None to read through the skipped records.

    Yields:
        Functions that return rows, blank ones included, named "<name>:<index>" or by their own "id"; a row without a
        text is a `Dropped`. They raise BadRecordError if bad records are refused.

    Raises:
        DataError: the file is empty, broken, not text or of an unknown kind.
    """
    suffix, name = checked_suffix(file), file.name if name is None else name
    skip = Skip() if skip is None else skip
    if suffix == ".parquet":
        return parquet_rows(file, text_field, name, skip)
    if not suffix.startswith(".txt"):
        rows = _jsonl_rows(raw_lines(file, skip, index), text_field, name)
    elif unit == "line":
        rows = _line_rows(raw_lines(file, skip, index), name)
    else:
        rows = skip.over(_text_rows(file, unit, name))
    if bad_records == "refuse":
        return (read for _, read in rows)
    return (functools.partial(_or_dropped, read, f"{name}:{number}") for number, read in rows)


def has_lines(file: Path, unit: Unit) -> bool:
    """Whether each record of a file is one of its lines, so that an index of its lines is one of its records.

    Blocks between blank lines have no index: a line must be decoded to know whether it is blank, which takes as long as
    reading it. Neither have compressed files.
    """
    suffix = suffix_of(file)
    return suffix in (".jsonl", ".json") or (suffix == ".txt" and unit == "line")


def _or_dropped(read: LazyRecord, name: str) -> Document | Dropped:
    """The record, or a `Dropped` if it cannot be read."""
    try:
        return read()
    except BadRecordError as error:
        return Dropped(name, error.reason, error.characters)


def suffix_of(file: Path) -> str:
    """The one of `SUFFIXES` in which the name of a file ends.

    Raises:
        DataError: it ends in none of them.
    """
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise DataError(
            f"{file} is of an unknown kind; it must end in one of {', '.join(SUFFIXES)} (a pattern such as "
            f"'{file.parent}/*.txt' leaves other files out)"
        )
    return suffix


def checked_suffix(file: Path) -> str:
    """`suffix_of` a file that exists and is not empty.

    Raises:
        DataError: the suffix is unknown, or the file is empty or out of reach.
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
    """From how many parts on it is less work to read a file once for all of them; None for never.

    Reading 342 MB of text in 150,000 records, storing it for 8 shards and reading that took 7 to 10 s of a core.
    Skipping through it for the records of one shard took 0.6 s as .jsonl, 2.1 s as .parquet, and nearly as long as
    reading it as .jsonl.xz. Skipping is spread over processes and takes no room on the disk, so the numbers are twice
    those at which the work is equal.
    """
    suffix = suffix_of(file)
    if suffix.startswith(".txt"):
        return None if unit == "file" else READ_ONCE_FROM
    if suffix.endswith(COMPRESSED):
        return READ_ONCE_FROM
    return _READ_ONCE_FROM[suffix]


_NumberedRows: TypeAlias = Iterator[tuple[int, LazyRecord]]
"""Records that were not parsed, each with its number in the file, from 0."""


def _line_rows(lines: Iterable[Line], name: str) -> _NumberedRows:
    """The lines of a .txt file, decoded when they are called."""
    for line in lines:
        yield line.number - 1, functools.partial(_line_row, line, name)


def _line_row(line: Line, name: str) -> Document:
    return Document(f"{name}:{line.number - 1}", line.decode().rstrip("\r\n"))


def _text_rows(file: Path, unit: Unit, name: str) -> _NumberedRows:
    """The paragraphs of a .txt file, or the whole file as one record."""
    if unit == "file":
        yield 0, lambda: _document(f"{name}:0", _joined(list(text_lines(file))))
        return
    for index, block in enumerate(_paragraphs(text_lines(file))):
        yield index, functools.partial(_document, f"{name}:{index}", block)


def _paragraphs(lines: Iterable[str | BadRecordError]) -> Iterator[str | BadRecordError]:
    """The blocks between blank lines; a line that cannot be read is not blank."""
    for is_blank, block in itertools.groupby(lines, lambda line: isinstance(line, str) and not line.strip()):
        if not is_blank:
            yield _block(list(block))


def _block(lines: Sequence[str | BadRecordError]) -> str | BadRecordError:
    """The lines as one text without the last line end, or the error of `_joined`."""
    text = _joined(lines)
    return text.rstrip("\r\n") if isinstance(text, str) else text


def _joined(lines: Sequence[str | BadRecordError]) -> str | BadRecordError:
    """The lines as one text, or the error of the first one that cannot be read, with the length of all."""
    fault = next((line for line in lines if isinstance(line, BadRecordError)), None)
    if fault is None:
        return "".join(map(str, lines))
    length = sum(len(line) if isinstance(line, str) else line.characters for line in lines)
    return BadRecordError(str(fault), reason=fault.reason, characters=length)


def _document(name: str, text: str | BadRecordError) -> Document:
    """The document of a text.

    Raises:
        BadRecordError: `text` is this error.
    """
    if isinstance(text, BadRecordError):
        raise text
    return Document(name, text)


def _jsonl_rows(lines: Iterable[Line], text_field: str, name: str) -> _NumberedRows:
    for line in lines:
        yield line.number - 1, functools.partial(_jsonl_row, line, text_field, name)


def _jsonl_row(line: Line, text_field: str, name: str) -> Document | Dropped:
    place, default = f"{line.file} line {line.number}", f"{name}:{line.number - 1}"
    fields = _json_object(line, text_field)
    if isinstance(fields, str):
        return Document(default, fields)
    try:
        return row_record(fields, text_field, place=place, default=default)
    except DataError as error:
        raise BadRecordError(str(error), reason=BadRecordError.NOT_STRING) from error


def _json_object(line: Line, text_field: str) -> dict[str, object] | str:
    """The object in a line, or the line itself if it is blank.

    Raises:
        BadRecordError: the line is not UTF-8, not JSON or not an object.
        DataError: the file is a .json with a single array.
    """
    content, place = line.decode(), f"{line.file} line {line.number}"
    if line.number == 1 and content.lstrip().startswith("[") and suffix_of(line.file).split(".")[1] == "json":
        raise DataError(
            f"{line.file} is one JSON array, but each of its lines must be an object, one for each record; convert it "
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
            reason=BadRecordError.NOT_OBJECT,
            characters=len(content.rstrip("\r\n")),
        )
    return found


def row_fields(file: Path, text_field: str) -> Iterator[tuple[str, list[str] | BadRecordError]]:
    """The field names of the rows of a .jsonl or .parquet file, each with its place.

    A .jsonl file yields an item for every line that is not blank, with the error of a line that is not an object. A
    .parquet file yields one item, since all of its rows have the same fields.

    Raises:
        DataError: the file cannot be read.
    """
    if suffix_of(file) == ".parquet":
        yield str(file), column_names(file)
        return
    for line in raw_lines(file):
        place = f"{line.file} line {line.number}"
        try:
            fields = _json_object(line, text_field)
        except BadRecordError as error:
            yield place, error
            continue
        if not isinstance(fields, str):
            yield place, list(fields)
