"""A local corpus: a file, a folder, or the files that a pattern matches."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import READ_ONCE_FROM, Document, Dropped, Part
from cascaded_dllm.text.file_choice import chosen_files, kinds_of, names_of
from cascaded_dllm.text.file_hashes import hashed, known_hash, pop_index
from cascaded_dllm.text.forms import Form, described, is_title, numbered_records, records_of
from cascaded_dllm.text.line_index import LineIndex, keep_indexes, kept_indexes
from cascaded_dllm.text.lines import text_lines
from cascaded_dllm.text.local import (
    DEFAULT_UNIT,
    BadRecords,
    Unit,
    has_lines,
    lazy_rows,
    read_once_from,
    row_fields,
    suffix_of,
)
from cascaded_dllm.text.parquet_rows import num_rows
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD, BadRecordError, missing_field
from cascaded_dllm.text.skipping import Skip

HINT_LINES = 1000
"""If none of this many lines of a text file is blank, its documents are probably lines, not paragraphs."""
ROWS_LOOKED_AT = 1000
"""If none of this many rows has the text field, the name of the field is wrong, not the rows."""


@final
@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A file, or all files of a folder or a pattern in the order of their names, as a `Reader`.

    Attributes:
        path: a .txt, .jsonl, .json (with lines as in .jsonl; all three also .gz, .xz or .zst) or .parquet file, a
            folder of such files, or a pattern with "*", "?" or "[...]", in which "**" stands for folders inside
            folders. Hidden files are ignored.
        text_field: the field or column that holds the text; .txt files have none.
        unit: what one record of a .txt file is: a block between blank lines, a line, or the whole file.
        form: the form in which the texts are written; None for texts as people write them.
        bad_records: what becomes of records that cannot be read, see `lazy_rows`.
        indexes: folder of the indexes of the files' lines, see `keep_indexes`; None for none. Indexes save reading and
            change no record.
    """

    path: Path
    text_field: str = DEFAULT_TEXT_FIELD
    unit: Unit = DEFAULT_UNIT
    form: Form | None = None
    bad_records: BadRecords = "refuse"
    indexes: Path | None = None

    def files(self) -> list[Path]:
        """The files in the order in which they are read.

        Raises:
            DataError: there is none, or one is empty, of an unknown kind or out of reach.
        """
        return chosen_files(self.path)

    def kinds(self) -> set[str]:
        """Which of txt, jsonl and parquet there are.

        Raises:
            DataError: as in `files`.
        """
        return kinds_of(self.files())

    def checked_files(self) -> list[Path]:
        """`files`, after a check of the text field, so that a wrong name is reported before any work.

        Rows without the field are dropped, but if the first `ROWS_LOOKED_AT` rows all lack it, its name is wrong.

        Raises:
            BadRecordError: a row cannot be read, and such rows are refused.
            DataError: a file is missing, empty, of an unknown kind or out of reach, or no row looked at has the text
                field or can be read.
        """
        files = self.files()
        with_fields = (file for file in files if not suffix_of(file).startswith(".txt"))
        rows = itertools.chain.from_iterable(row_fields(file, self.text_field) for file in with_fields)
        first_place, fields, number, faults = "", dict[str, None](), 0, []
        for place, names in itertools.islice(rows, ROWS_LOOKED_AT):
            if isinstance(names, BadRecordError):
                self._refuse(names)
                faults.append(names)
                continue
            if self.text_field in names:
                return files
            first_place, number = first_place or place, number + 1
            fields |= dict.fromkeys(names)
        if number:
            raise missing_field(first_place, self.text_field, fields, others=number - 1)
        if faults:
            raise DataError(f"none of {len(faults):,} lines checked can be read; the first error: {faults[0]}")
        return files

    def _refuse(self, fault: BadRecordError) -> None:
        """Raises the error of an unreadable record, unless such records are dropped."""
        if self.bad_records == "refuse":
            raise fault

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`; the checks of `checked_files` precede the first record.

        Raises:
            BadRecordError: a record cannot be read, and such records are refused.
            DataError: a file is missing, empty, broken, not text or of an unknown kind.
        """
        return records_of(self._rows, self.form, part)

    def read_once_from(self) -> int | None:
        """See `WholeReader`; of several kinds of files, the one that is slowest to skip records in decides.

        A file with an index does not count: its unwanted records are not read.
        """
        if self.form == "wikitext":
            return READ_ONCE_FROM
        files = self.files()
        indexed = self._kept_indexes(files)
        numbers = (read_once_from(file, self.unit) for file in files if file not in indexed)
        return min((number for number in numbers if number is not None), default=None)

    def numbered(self, stop: int | None) -> Iterator[tuple[int, Document | Dropped]]:
        """See `WholeReader`."""
        return numbered_records(self._rows, self.form, Part(stop=stop))

    def source(self) -> dict[str, object]:
        """See `Reader`; a file is read to hash it, unless its hash is known."""
        files = self.files()
        kinds = kinds_of(files)
        known = [
            # Only reading shows which lines begin an article, so `keep_indexes` has no use for the places of lines.
            (name, hashed(file, has_lines=has_lines(file, self.unit) and self.form != "wikitext"))
            for name, file in zip(names_of(files, self.path), files, strict=True)
        ]
        return {
            "kind": "files",
            "files": [{"name": name, "bytes": file.bytes, "sha256": file.sha256} for name, file in known],
            "text_field": self.text_field if kinds - {"txt"} else None,
            "unit": self.unit if "txt" in kinds else None,
            "form": described(self.form),
            # Absent for "refuse", so that datasets from before this option keep their source.
            **({} if self.bad_records == "refuse" else {"bad_records": self.bad_records}),
        }

    def hint(self) -> str | None:
        """A message if the documents of the first .txt file should probably be lines or WikiText articles; else None.

        Raises:
            BadRecordError: a line cannot be read, and such records are refused.
            DataError: as in `files`.
        """
        texts = (file for file in self.files() if suffix_of(file).startswith(".txt"))
        first = next(texts, None)
        if first is None or self.form is not None or self.unit == "file":
            return None
        lines = list(self._readable(itertools.islice(text_lines(first), HINT_LINES)))
        if heading := next((line.strip() for line in lines if is_title(line)), None):
            return (
                f"{first.name} has headings like those of WikiText, such as {heading!r}, which are documents of their "
                "own; --form wikitext makes each article a document"
            )
        if self.unit != "paragraph":
            return None
        if len(lines) < 2 or not all(line.strip() for line in lines):
            return None
        num = f"the first {HINT_LINES:,}" if len(lines) == HINT_LINES else f"all {len(lines)}"
        return (
            f"{num} lines of {first.name} are one document, as no blank line separates them; --unit line makes each "
            "line a document"
        )

    def _readable(self, lines: Iterable[str | BadRecordError]) -> Iterator[str]:
        for line in lines:
            if isinstance(line, str):
                yield line
            else:
                self._refuse(line)

    def keep_indexes(self, num_parts: int) -> None:
        """Writes the indexes of the files that this process has read to hash them, if that saves work.

        It also removes them from memory.

        Args:
            num_parts: number of parts that will be read one by one.

        Raises:
            DataError: as in `files`.
            OutputError: the folder cannot be written.
        """
        if self.indexes is None or self.form == "wikitext":
            return
        known = (known_hash(file) for file in self.files())
        noted = ((file.sha256, pop_index(file.sha256)) for file in known if file is not None)
        keep_indexes(self.indexes, {sha256: index for sha256, index in noted if index is not None}, num_parts)

    def num_rows(self) -> int | None:
        """The number of rows of all files; None if it is not known without reading them.

        Raises:
            DataError: a file cannot be read.
        """
        files, total = self.files(), 0
        indexed = self._kept_indexes(files)
        for file in files:
            if suffix_of(file) == ".parquet":
                total += num_rows(file)
            elif file in indexed:
                total += indexed[file].num_lines
            else:
                return None
        return total

    def _kept_indexes(self, files: Iterable[Path]) -> dict[Path, LineIndex]:
        """The indexes of the files with their present content; a file whose hash is not known has none."""
        kept = {} if self.indexes is None else kept_indexes(self.indexes)
        if not kept:
            return {}
        known = ((file, known_hash(file)) for file in files if has_lines(file, self.unit))
        found = ((file, kept.get(now.sha256), now.bytes) for file, now in known if now is not None)
        return {file: index for file, index, size in found if index is not None and index.num_bytes == size}

    def _rows(self, part: Part) -> Iterator[Document | Dropped]:
        files = self.checked_files()
        indexes = self._kept_indexes(files) if part.num_parts > 1 else {}
        skip = Skip()
        records = itertools.chain.from_iterable(
            lazy_rows(
                file,
                text_field=self.text_field,
                unit=self.unit,
                name=name,
                bad_records=self.bad_records,
                skip=skip,
                index=indexes.get(file),
            )
            for file, name in zip(files, names_of(files, self.path), strict=True)
        )
        yield from (read() for read in skip.wanted(part, records))
