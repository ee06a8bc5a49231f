"""A corpus that is a file or a folder on this machine."""

import functools
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.forms import Form, described, records_of
from cascaded_dllm.text.local import SUFFIXES, Unit, checked_suffix, text_lines, unread_rows

HINT_LINES = 1000
"""So many lines of a text file without a blank one make it likely that its paragraphs are lines."""


@final
@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A file, or all files of a folder in the order of their names, as a `Reader`.

    Attributes:
        path: a .txt, .jsonl (either also .gz or .xz) or .parquet file, or a folder; hidden files are ignored.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
        form: the form in which the texts are written; None for texts as people write them.
    """

    path: Path
    text_field: str = "text"
    unit: Unit = "paragraph"
    form: Form | None = None

    def files(self) -> list[Path]:
        """The files in the order in which they are read.

        Raises:
            DataError: there is none, or one is empty or of an unknown kind.
        """
        if self.path.is_file():
            files = [self.path]
        elif self.path.is_dir():
            files = sorted(file for file in self.path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            raise DataError(f"there is no file or folder {self.path}; check the name")
        if not files:
            raise DataError(f"the folder {self.path} holds 0 files; put at least one of {', '.join(SUFFIXES)} into it")
        for file in files:
            checked_suffix(file)
        return files

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`; the names and sizes of all files are checked before the first record is yielded.

        Raises:
            DataError: something is missing, empty, broken, not text or of an unknown kind; with the place and remedy.
        """
        return records_of(self._rows, self.form, part)

    def source(self) -> dict[str, object]:
        """See `Reader`; every file is read once per process, to hash it."""
        files = self.files()
        kinds = {checked_suffix(file).split(".")[1] for file in files}
        return {
            "kind": "files",
            "files": [_described(file) for file in files],
            "text_field": self.text_field if kinds - {"txt"} else None,
            "unit": self.unit if "txt" in kinds else None,
            "form": described(self.form),
        }

    def hint(self) -> str | None:
        """What to say where the first text file looks as if its lines were meant to be the documents."""
        texts = (file for file in self.files() if ".txt" in file.suffixes)
        first = next(texts, None)
        if first is None or self.unit != "paragraph":
            return None
        lines = list(itertools.islice(text_lines(first), HINT_LINES))
        if len(lines) < 2 or not all(line.strip() for line in lines):
            return None
        num = f"the first {HINT_LINES:,}" if len(lines) == HINT_LINES else f"all {len(lines)}"
        return f"{num} lines of {first.name} are one document, as no blank line parts them; --unit line makes each one"

    def _rows(self, part: Part) -> Iterator[Document]:
        unread = itertools.chain.from_iterable(
            unread_rows(file, text_field=self.text_field, unit=self.unit) for file in self.files()
        )
        return (read() for read in part.of(unread))


def _described(file: Path) -> dict[str, object]:
    status = file.stat()
    return {"name": file.name, "bytes": status.st_size, "sha256": _sha256(file, status.st_size, status.st_mtime_ns)}


@functools.lru_cache(maxsize=4096)
def _sha256(file: Path, size: int, modified: int) -> str:
    """The hash of a file of this size and time of change, which tell whether it has to be read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
