"""A corpus: a stream of documents that can be read more than once, whole or in parts."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from cascaded_dllm.checks import require_at_least
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
        name: for folders.
        reader: where the records come from.
        num_records: only the first so many, dropped ones counted; None for all.
        holdout: of those, only one side; None for all.
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
        """Everything that decides the documents, as plain JSON values; no path of this machine.

        Files are read to hash them, unless their hashes are known, see `file_hashes`.
        """
        source = self.reader.source()
        if self.num_records is not None:
            source |= {"first": self.num_records}
        return source if self.holdout is None else source | {"holdout": asdict(self.holdout)}

    def hashes(self) -> tuple[HashedFile, ...]:
        """What this process knows of its files, for others that have to know the source."""
        return known_hashes(self.reader.files()) if isinstance(self.reader, LocalFiles) else ()

    def with_indexes(self, folder: Path) -> "Corpus":
        """The same corpus, which looks into a folder for indexes of its files' lines, see `LocalFiles`."""
        if not isinstance(self.reader, LocalFiles):
            return self
        return replace(self, reader=replace(self.reader, indexes=folder))

    def keep_indexes(self, num_parts: int) -> None:
        """Writes the indexes of its files, as far as they save work where so many parts are read one by one.

        Raises:
            OutputExistsError: the folder cannot be written.
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
        """Every `num_parts`-th record from number `index` on, without parsing the others where the format allows.

        The parts of 0 .. `num_parts` - 1 are together `part(0, 1)`. A record is one document or one `Dropped`; an
        article also brings its headings, as `Dropped` in front of it.

        Raises:
            ConfigError: there is no such part.
            DataError: the input is broken.
        """
        if not 0 <= index < num_parts:
            raise ConfigError(f"part {index} of {num_parts} does not exist; it must be one of 0..{num_parts - 1}")
        return self.reader.records(Part(index, num_parts, self.num_records, self.holdout))

    def read_once_from(self) -> int | None:
        """The number of parts from which on it is less work to read all once and lay it down; None for no number."""
        return self.reader.read_once_from() if isinstance(self.reader, WholeReader) else None

    def dealt(self, num_parts: int) -> Iterator[tuple[int, Document | Dropped]]:
        """All records in order, in one pass, each with the number of the `part` it belongs to.

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
        """Every `every`-th record, or all others, renumbered; together they are this corpus.

        Raises:
            ConfigError: `every` is less than 2.
        """
        require_numbers(None, every)
        return replace(self, holdout=Holdout(every, held))

    def hint(self) -> str | None:
        """What to say where the corpus does not look as if its documents were what was meant."""
        return self.reader.hint() if isinstance(self.reader, LocalFiles) else None

    def first(self, num: int | None) -> "Corpus":
        """The corpus of the first `num` records, dropped ones counted, or of all.

        Raises:
            ConfigError: `num` is less than 1.
        """
        require_numbers(num, None)
        if num is None:
            return self
        return replace(self, num_records=num if self.num_records is None else min(num, self.num_records))


def require_numbers(num_records: int | None, holdout: int | None) -> None:
    """Whether a corpus can be shortened and parted so, which can be known before it is fetched.

    Raises:
        ConfigError: there would be no record, or none on one side.
    """
    require_at_least("--num-documents", num_records, 1)
    require_at_least("--holdout", holdout, 2, hint="since one of so many records is held out")


def no_documents(corpus: Corpus, dropped: Mapping[str, int]) -> DataError:
    """What to raise about a corpus without a text.

    Args:
        corpus: which has none.
        dropped: how many of its records are no documents, by reason.
    """
    name, holdout = corpus.name, corpus.holdout
    if holdout is not None and holdout.held and not dropped:
        return DataError(
            f"the corpus {name!r} has fewer than {holdout.every} records, and --holdout {holdout.every} holds out one "
            "of so many; give a smaller number"
        )
    told = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items()))
    return DataError(
        f"the corpus {name!r} holds 0 documents that are not blank; give one with text in it"
        + (f" (what it holds was dropped: {told})" if told else "")
    )


@final
@dataclass(frozen=True, slots=True)
class _InMemory:
    """Documents handed over by a program; blank ones are dropped."""

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
