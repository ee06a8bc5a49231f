"""One row of a file or a dataset: its document, or what was dropped and why, by the same rules for every format."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped

DEFAULT_TEXT_FIELD = "text"
"""The field or column that holds the text where nobody says which."""
NULL_TEXT = "null text"
"""Why a row is dropped whose text is null."""
NO_TEXT_FIELD = "no text field"
"""Why a row is dropped that lacks the field which other rows have."""
LONE_SURROGATE = "lone surrogate"
"""Why a row is dropped whose text holds half of a surrogate pair, which no encoding and no tokenizer has a form for."""


class BadRecordError(DataError):
    """A record is at fault and not its file: all others can be read.

    Args:
        message: see `DataError`.
        reason: why it is dropped, where such records are: one of those below.
        characters: its length, without the ends of the lines that cannot be read; what is no UTF-8 counts as it is
            shown, with a sign in its place.
    """

    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not JSON"
    NO_OBJECT = "not an object"
    NO_STRING = "text not a string"

    def __init__(self, message: str, *, reason: str = "", characters: int = 0) -> None:
        super().__init__(message)
        self.reason, self.characters = reason, characters


def row_record(row: Mapping[str, object], text_field: str, *, place: str, default: str) -> Document | Dropped:
    """The document of a row, or what was dropped; every text that UTF-8 can hold is kept as it is.

    Args:
        row: its fields.
        text_field: the one that holds the text.
        place: where it stands, for the message.
        default: its name where it has no "id" of its own.

    Raises:
        DataError: the text is a number, a list or something else.
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
    """What to raise where no row has the field.

    Args:
        place: of the first row.
        text_field: what it lacks.
        fields: those that there are.
        others: rows that lack it as well.
    """
    listed = ", ".join(repr(field) for field in fields) or "none"
    where, whose = (f", nor has any of {others:,} others looked at", "their") if others else ("", "its")
    return DataError(
        f"{place} has no field {text_field!r}{where}; {whose} fields are {listed}: choose one as the text field"
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """What to raise where the system does not let a file or folder of a corpus be read."""
    # Not the text of the error itself, in which Arrow repeats the path.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"{path} cannot be read ({reason}); check that you have the right to read it, and the disk "
        "or network that it lies on"
    )


def _name(row: Mapping[str, object], default: str) -> str:
    """The row's own "id"; `default` where it has none, or one that cannot be written."""
    own = row.get("id")
    return default if own is None or not _has_form(str(own)) else str(own)


def _has_form(text: str) -> bool:
    """Whether UTF-8 can hold a text: all but half of a surrogate pair, which JSON can name."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
