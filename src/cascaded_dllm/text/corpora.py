"""Corpora by name or path: streams of documents that can be read more than once, whole or in parts."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.document import Document, Dropped, Part, Reader, as_record
from cascaded_dllm.text.local import UNITS, LocalFiles, Unit
from cascaded_dllm.text.python_docs import PythonDocs
from cascaded_dllm.text.stories import Stories

BUILT_IN = ("stories", "python-docs")
"""Corpora that are present on every machine."""

SPLITS = ("train", "valid", "test")


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """A stream of records that starts again with every call.

    Attributes:
        name: for folders.
        reader: where the records come from.
        num_records: only the first so many, dropped ones counted; None for all.
    """

    name: str
    reader: Reader
    num_records: int | None = None

    @classmethod
    def from_documents(cls, name: str, documents: Sequence[Document]) -> "Corpus":
        """A corpus of documents in memory."""
        return cls(name, _InMemory(tuple(documents)))

    @property
    def source(self) -> Mapping[str, object]:
        """Everything that decides the documents, as plain JSON values; no path of this machine.

        Files are read once per process to hash them.
        """
        source = self.reader.source()
        return source if self.num_records is None else source | {"first": self.num_records}

    def documents(self) -> Iterator[Document]:
        """All documents, in order.

        Raises:
            DataError: there are none, or the input is broken.
        """
        num = 0
        for record in self.part(0, 1):
            if isinstance(record, Document):
                num += 1
                yield record
        if num == 0:
            raise DataError(f"the corpus {self.name!r} holds 0 documents that are not blank; give one with text in it")

    def part(self, index: int, num_parts: int) -> Iterator[Document | Dropped]:
        """Every `num_parts`-th record from number `index` on, without parsing the others where the format allows.

        The parts of 0 .. `num_parts` - 1 are together `part(0, 1)`. A record is one document or one `Dropped`; an
        article also brings its headings, as `Dropped` in front of it.

        Raises:
            ConfigError: there is no such part.
            DataError: the input is broken.
        """
        if not 0 <= index < num_parts:
            raise ConfigError(f"part {index} of {num_parts} does not exist; it must be one of 0..{num_parts - 1}")
        return self.reader.records(Part(index, num_parts, self.num_records))

    def first(self, num: int | None) -> "Corpus":
        """The corpus of the first `num` records, dropped ones counted, or of all.

        Raises:
            ConfigError: `num` is less than 1.
        """
        if num is None:
            return self
        if num < 1:
            raise ConfigError(f"the number of documents is {num}; it must be at least 1")
        return replace(self, num_records=num if self.num_records is None else min(num, self.num_records))


def open_corpus(dataset: str, *, split: str, text_field: str = "text", unit: str = "paragraph") -> Corpus:
    """The corpus called `dataset`: built in, or a file or folder.

    Args:
        dataset: stories, python-docs, or a path.
        split: of a built-in corpus, train, valid or test; a path holds the split it holds.
        text_field: see `LocalFiles`.
        unit: see `LocalFiles`.

    Raises:
        ConfigError: a built-in corpus has no such split, or `unit` is unknown.
        DataError: the path does not exist, or a file below it is empty or of an unknown kind.
    """
    if dataset in BUILT_IN:
        if split not in SPLITS:
            raise ConfigError(f"{dataset} has no split {split!r}; it must be one of {', '.join(SPLITS)}")
        return Corpus(dataset, Stories.of_split(split) if dataset == "stories" else PythonDocs(split))
    path = Path(dataset)
    if not path.exists():
        raise DataError(f"{dataset} is no file or folder, nor one of {', '.join(BUILT_IN)}; check the path")
    if unit not in UNITS:
        raise ConfigError(f"unit {unit!r} is unknown; choose one of {', '.join(UNITS)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.split(".")[0]).strip("-._") or "corpus"
    chosen: Unit = next(known for known in UNITS if known == unit)
    reader = LocalFiles(path, text_field=text_field, unit=chosen)
    reader.files()  # What is missing is said now, not by the worker that reads it.
    return Corpus(name, reader)


@final
@dataclass(frozen=True, slots=True)
class _InMemory:
    """Documents handed over by a program; blank ones are dropped."""

    documents: tuple[Document, ...]

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`."""
        return map(as_record, part.of(self.documents))

    def source(self) -> dict[str, object]:
        """See `Reader`."""
        sha256 = hashlib.sha256()
        for document in self.documents:
            sha256.update(json.dumps([document.id, document.text]).encode())
        return {"kind": "memory", "documents": len(self.documents), "sha256": sha256.hexdigest()}
