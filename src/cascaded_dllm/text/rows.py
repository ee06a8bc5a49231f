"""A row of a file or a dataset as a document, or as what was dropped and why; the same rules for every format."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped

DEFAULT_TEXT_FIELD = "text"
"""The field or column that holds the text by default."""
NULL_TEXT = "null text"
"""Reason for dropping a row whose text is null."""
NO_TEXT_FIELD = "no text field"
"""Reason for dropping a row that lacks the text field, which other rows have."""
LONE_SURROGATE = "lone surrogate"
"""Reason for dropping a row whose text holds half of a surrogate pair, which no encoding or tokenizer represents."""


class BadRecordError(DataError):
    """A record cannot be read, but the other records of its file can.

    Args:
        message: see `DataError`.
        reason: one of the reasons below, for `Dropped`.
        characters: length of the record, for `Dropped`, without the ends of unreadable lines. Bytes that are not UTF-8
            count as the replacement characters that they decode to; a text that is not a string counts 0.
    """

    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not JSON"
    NOT_OBJECT = "not an object"
    NOT_STRING = "text not a string"

    def __init__(self, message: str, *, reason: str = "", characters: int = 0) -> None:
        super().__init__(message)
        self.reason, self.characters = reason, characters


def row_record(row: Mapping[str, object], text_field: str, *, place: str, default: str) -> Document | Dropped:
    """The document of a row, or what was dropped; every text that UTF-8 can encode is kept unchanged.

    Args:
        row: its fields.
        text_field: the field that holds the text.
        place: of the row, for the message.
        default: name of a row without an "id" field.

    Raises:
        DataError: the text is neither a string nor null.
    """
    name, text = _name(row, default), row.get(text_field)
    match text:
        case None:
            return Dropped(name, NULL_TEXT if text_field in row else NO_TEXT_FIELD, 0)
        case str():
            return Document(name, text) if _has_form(text) else Dropped(name, LONE_SURROGATE, len(text))
    raise DataError(
        f"{place} has a {type(text).__name__} in the field {text_field!r}, not a string; "
        "choose another text field or repair the record"
    )


def missing_field(place: str, text_field: str, fields: Iterable[str], *, others: int = 0) -> DataError:
    """The error for a corpus in which no row has the text field.

    Args:
        place: of the first row.
        text_field: the missing field.
        fields: those that the rows have.
        others: number of further rows that were looked at and lack it too.
    """
    listed = ", ".join(repr(field) for field in fields) or "none"
    where, whose = (f", nor has any of the {others:,} other rows checked", "their") if others else ("", "its")
    return DataError(
        f"{place} has no field {text_field!r}{where}; {whose} fields are {listed}: choose one as the text field"
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder of a corpus that the system cannot read."""
    # Not str(error), in which Arrow repeats the path.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"{path} cannot be read ({reason}); check that you have the right to read it, and the disk "
        "or network that it lies on"
    )


def _name(row: Mapping[str, object], default: str) -> str:
    """The row's "id"; `default` if it has none, or one that UTF-8 cannot encode."""
    own = row.get("id")
    return default if own is None or not _has_form(str(own)) else str(own)


def _has_form(text: str) -> bool:
    """Whether UTF-8 can encode a text, which fails only for half of a surrogate pair; JSON can contain one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
