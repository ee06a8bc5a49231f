"""Rows of files on this machine: plain text, JSON lines and parquet, read as a stream."""

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
from cascaded_dllm.text.passing_over import Gap
from cascaded_dllm.text.rows import BadRecordError, row_record, unreadable

Unit = Literal["paragraph", "line", "file"]
UNITS: tuple[Unit, ...] = ("paragraph", "line", "file")
DEFAULT_UNIT: Unit = "paragraph"
SUFFIXES = (*(kind + packed for kind in (".txt", ".jsonl", ".json") for packed in ("", *COMPRESSED)), ".parquet")
BadRecords = Literal["refuse", "drop"]
BAD_RECORDS: tuple[BadRecords, ...] = ("refuse", "drop")

# See `read_once_from`.
_READ_ONCE_FROM = {".parquet": 10, ".jsonl": 32, ".json": 32}

Unread: TypeAlias = Callable[[], Document | Dropped]
"""A record that was found but not parsed."""


def unread_rows(
    file: Path,
    *,
    text_field: str,
    unit: Unit,
    name: str | None = None,
    bad_records: BadRecords = "refuse",
    gap: Gap | None = None,
    index: LineIndex | None = None,
) -> Iterator[Unread]:
    """The wanted records of a file, found but not parsed, so that one that is not wanted costs next to nothing.

    Each is to be read before the next one is asked for. Only one (of a parquet file, one batch of rows) is in memory.

    Args:
        file: a .txt, .jsonl (either also .gz, .xz or .zst) or .parquet file; .json stands for .jsonl.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
        name: what the file is called in the ids of its rows; None for its own name.
        bad_records: what becomes of records of a .txt or .jsonl file that cannot be read. A .parquet file checks its
            rows when it is written, so that what is wrong in it is wrong with the file.
        gap: the records that are not wanted; None where all are.
        index: of the lines of a file with `has_lines`; None to read through what is not wanted.

    Yields:
        Functions that return rows, blank ones too, named "<name>:<index>" or by their own "id"; those without a text
        as what was dropped. They raise BadRecordError where bad records are refused.

    Raises:
        DataError: the file is broken, not text or of an unknown kind; with the place and the remedy.
    """
    suffix, name = checked_suffix(file), file.name if name is None else name
    gap = Gap() if gap is None else gap
    if suffix == ".parquet":
        return parquet_rows(file, text_field, name, gap)
    if not suffix.startswith(".txt"):
        rows = _jsonl_rows(raw_lines(file, gap, index), text_field, name)
    elif unit == "line":
        rows = _line_rows(raw_lines(file, gap, index), name)
    else:
        rows = gap.over(_text_rows(file, unit, name))
    if bad_records == "refuse":
        return (read for _, read in rows)
    return (functools.partial(_or_dropped, read, f"{name}:{number}") for number, read in rows)


def has_lines(file: Path, unit: Unit) -> bool:
    """Whether each record of a file is a line of it, so that an index of its lines is one of its records.

    Blocks between blank lines have none: which lines are blank is known when they are decoded, and that takes as long
    as to read them.
    """
    suffix = suffix_of(file)
    return suffix in (".jsonl", ".json") or (suffix == ".txt" and unit == "line")


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
    if suffix.endswith(COMPRESSED):
        return READ_ONCE_FROM
    return _READ_ONCE_FROM[suffix]


_NumberedRows: TypeAlias = Iterator[tuple[int, Unread]]
"""Each with its number in the file, from 0."""


def _line_rows(lines: Iterable[Line], name: str) -> _NumberedRows:
    """The lines of a .txt file, decoded when they are read."""
    for line in lines:
        yield line.number - 1, functools.partial(_line_row, line, name)


def _line_row(line: Line, name: str) -> Document:
    return Document(f"{name}:{line.number - 1}", line.decode().rstrip("\r\n"))


def _text_rows(file: Path, unit: Unit, name: str) -> _NumberedRows:
    """The paragraphs of a .txt file, or all of it."""
    if unit == "file":
        yield 0, lambda: _document(f"{name}:0", _joined(list(text_lines(file))))
        return
    for index, block in enumerate(_paragraphs(text_lines(file))):
        yield index, functools.partial(_document, f"{name}:{index}", block)


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
        raise BadRecordError(str(error), reason=BadRecordError.NO_STRING) from error


def _json_object(line: Line, text_field: str) -> dict[str, object] | str:
    """The object in a line, or the line itself where it is blank.

    Raises:
        BadRecordError: it is something else, or not UTF-8.
        DataError: the file is a .json that is one array.
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


def row_fields(file: Path, text_field: str) -> Iterator[tuple[str, list[str] | BadRecordError]]:
    """What the rows of a .jsonl or .parquet file are made of: a place and the names of the fields there.

    Every line of a .jsonl that is not blank has fields of its own, or is no object; a .parquet file has the same in all
    rows.

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
