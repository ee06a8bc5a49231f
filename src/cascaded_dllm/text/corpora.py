"""Corpora by name or path: streams of documents that can be read more than once."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.local import UNITS, Unit, read_documents
from cascaded_dllm.text.python_docs import python_docs_documents
from cascaded_dllm.text.stories import StoryGrammar

BUILT_IN = ("stories", "python-docs")
"""Corpora that are present on every machine."""

SPLITS = ("train", "valid", "test")
_STORIES = {"train": 20_000, "valid": 1_000, "test": 1_000}
_EVERY = 20
"""Of the Python documentation, one document in so many is for validation, and one for test."""


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """A stream of documents that starts again with every call.

    Attributes:
        name: for folders.
        documents: a new stream.
    """

    name: str
    documents: Callable[[], Iterator[Document]]

    def first(self, num: int | None) -> "Corpus":
        """The first `num` documents, or all.

        Raises:
            ConfigError: `num` is less than 1.
        """
        if num is None:
            return self
        if num < 1:
            raise ConfigError(f"the number of documents is {num}; it must be at least 1")
        return Corpus(self.name, lambda: itertools.islice(self.documents(), num))


def open_corpus(dataset: str, *, split: str, text_field: str = "text", unit: str = "paragraph") -> Corpus:
    """The corpus called `dataset`: built in, or a file or folder.

    Args:
        dataset: stories, python-docs, or a path.
        split: of a built-in corpus, train, valid or test; a path holds the split it holds.
        text_field: see `read_documents`.
        unit: see `read_documents`.

    Raises:
        ConfigError: a built-in corpus has no such split, or `unit` is unknown.
        DataError: the path does not exist.
    """
    if dataset in BUILT_IN:
        if split not in SPLITS:
            raise ConfigError(f"{dataset} has no split {split!r}; it must be one of {', '.join(SPLITS)}")
        return _stories(split) if dataset == "stories" else _python_docs(split)
    path = Path(dataset)
    if not path.exists():
        raise DataError(f"{dataset} is no file or folder, nor one of {', '.join(BUILT_IN)}; check the path")
    if unit not in UNITS:
        raise ConfigError(f"unit {unit!r} is unknown; choose one of {', '.join(UNITS)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.split(".")[0]).strip("-._") or "corpus"
    chosen: Unit = next(known for known in UNITS if known == unit)
    return Corpus(name, lambda: read_documents(path, text_field=text_field, unit=chosen))


def _stories(split: str) -> Corpus:
    """Each split has a seed of its own."""
    return Corpus("stories", lambda: StoryGrammar().documents(_STORIES[split], SPLITS.index(split)))


def _python_docs(split: str) -> Corpus:
    remainder = {"valid": 0, "test": 1}.get(split)

    def documents() -> Iterator[Document]:
        for number, document in enumerate(python_docs_documents()):
            place = number % _EVERY
            if place == remainder or (remainder is None and place > 1):
                yield document

    return Corpus("python-docs", documents)
