"""A corpus: a stream of documents that can be read more than once, whole or in parts."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from cascaded_dllm.checks import require_whole
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.document import Document, Dropped, Holdout, Part, Reader, WholeReader
from cascaded_dllm.text.file_hashes import HashedFile, known_hashes
from cascaded_dllm.text.forms import records_of
from cascaded_dllm.text.local_files import LocalFiles


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """A stream of records that starts again with every call.

    Attributes:
        name: used in names of folders.
        reader: where the records come from.
        num_records: how many of the first records to take, dropped ones counted; None for all.
        holdout: which side of those to take; None for both.
    """

    name: str
    reader: Reader
    num_records: int | None = None
    holdout: Holdout | None = None

    @classmethod
    def from_documents(cls, name: str, documents: Sequence[Document]) -> "Corpus":
        """A corpus of documents in memory."""
        return cls(name, _InMemory(tuple(documents)))

    @property
    def source(self) -> Mapping[str, object]:
        """Everything that decides the documents, as plain JSON values and without paths of this machine.

        Files whose hashes are not known are read to hash them, see `file_hashes`.
        """
        source = self.reader.source()
        if self.num_records is not None:
            source |= {"first": self.num_records}
        return source if self.holdout is None else source | {"holdout": asdict(self.holdout)}

    def hashes(self) -> tuple[HashedFile, ...]:
        """The hashes of its files that this process knows, for other processes that need `source`."""
        return known_hashes(self.reader.files()) if isinstance(self.reader, LocalFiles) else ()

    def with_indexes(self, folder: Path) -> "Corpus":
        """The same corpus, with `folder` as the place of the indexes of its files' lines, see `LocalFiles`."""
        if not isinstance(self.reader, LocalFiles):
            return self
        return replace(self, reader=replace(self.reader, indexes=folder))

    def keep_indexes(self, num_parts: int) -> None:
        """Writes the indexes of its files if they save work when `num_parts` parts are read one by one.

        Raises:
            OutputError: the folder cannot be written.
        """
        if isinstance(self.reader, LocalFiles):
            self.reader.keep_indexes(num_parts)

    def documents(self) -> Iterator[Document]:
        """All documents, in order.

        Raises:
            DataError: there are none, or the input is broken.
        """
        num = 0
        dropped: Counter[str] = Counter()
        for record in self.part(0, 1):
            if isinstance(record, Document):
                num += 1
                yield record
            else:
                dropped[record.reason] += 1
        if num == 0:
            raise no_documents(self, dropped)

    def part(self, index: int, num_parts: int) -> Iterator[Document | Dropped]:
        """Every `num_parts`-th record from number `index` on, without parsing the others if the format allows it.

        The parts 0 .. `num_parts` - 1 together are `part(0, 1)`. A record is one document or one `Dropped`; a WikiText
        article is preceded by its headings, each a `Dropped`.

        Raises:
            ConfigError: there is no such part.
            DataError: the input is broken.
        """
        if not 0 <= index < num_parts:
            raise ConfigError(f"part {index} of {num_parts} does not exist; it must be one of 0..{num_parts - 1}")
        return self.reader.records(Part(index, num_parts, self.num_records, self.holdout))

    def read_once_from(self) -> int | None:
        """From how many parts on it is less work to read everything once and store it by parts; None for never."""
        return self.reader.read_once_from() if isinstance(self.reader, WholeReader) else None

    def dealt(self, num_parts: int) -> Iterator[tuple[int, Document | Dropped]]:
        """All records in order, in one pass, each with the index of its `part`.

        Raises:
            DataError: the input is broken.
        """
        assert isinstance(self.reader, WholeReader), "nobody reads it once for all parts"
        numbered = self.reader.numbered(self.num_records)
        if self.holdout is not None:
            side = self.holdout
            numbered = ((side.place(number), record) for number, record in numbered if side.has(number))
        return ((number % num_parts, record) for number, record in numbered)

    def side(self, every: int, *, held: bool) -> "Corpus":
        """The corpus of every `every`-th record, or of all others, renumbered; together they are this corpus.

        Raises:
            ConfigError: `every` is not a whole number, or less than 2.
        """
        require_numbers(None, every)
        return replace(self, holdout=Holdout(int(every), held))

    def hint(self) -> str | None:
        """A message if the documents of the corpus are probably not what the user meant; else None."""
        return self.reader.hint() if isinstance(self.reader, LocalFiles) else None

    def first(self, num: int | None) -> "Corpus":
        """The corpus of the first `num` records, dropped ones counted, or of all.

        Raises:
            ConfigError: `num` is not a whole number, or less than 1.
        """
        require_numbers(num, None)
        if num is None:
            return self
        num = int(num)  # of NumPy or PyTorch, it could not be stored as JSON
        return replace(self, num_records=num if self.num_records is None else min(num, self.num_records))


def require_numbers(num_records: int | None, holdout: int | None) -> None:
    """Checks the values of `--num-documents` and `--holdout`, before a corpus is opened.

    Raises:
        ConfigError: there would be no record, or none on one side.
    """
    if num_records is not None:
        require_whole("--num-documents", num_records, 1)
    if holdout is not None:
        require_whole("--holdout", holdout, 2, hint="since it holds out one record of that many")


def no_documents(corpus: Corpus, dropped: Mapping[str, int]) -> DataError:
    """The error for a corpus without a document.

    Args:
        corpus: that corpus.
        dropped: number of its dropped records, by reason.
    """
    name, holdout = corpus.name, corpus.holdout
    if holdout is not None and holdout.held and not dropped:
        return DataError(
            f"the corpus {name!r} has fewer than {holdout.every} records, and --holdout {holdout.every} holds out one "
            "record of that many; give a smaller number"
        )
    told = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items()))
    return DataError(
        f"the corpus {name!r} holds 0 documents that are not blank; give one with text in it"
        + (f" (its records were dropped: {told})" if told else "")
    )


@final
@dataclass(frozen=True, slots=True)
class _InMemory:
    """Documents of the calling program; blank ones are dropped."""

    documents: tuple[Document, ...]

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`."""
        return records_of(lambda part: part.of(self.documents), None, part)

    def source(self) -> dict[str, object]:
        """See `Reader`."""
        sha256 = hashlib.sha256()
        for document in self.documents:
            sha256.update(json.dumps([document.id, document.text]).encode())
        return {"kind": "memory", "documents": len(self.documents), "sha256": sha256.hexdigest()}
