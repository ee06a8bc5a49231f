"""Corpora by name or path: streams of documents that can be read more than once, whole or in parts."""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar, final

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.corpus_options import require_read, require_read_by_files
from cascaded_dllm.text.document import Document, Dropped, Holdout, Part, Reader, WholeReader
from cascaded_dllm.text.file_hashes import HashedFile, known_hashes
from cascaded_dllm.text.forms import FORMS, Form, records_of
from cascaded_dllm.text.hub import open_hub
from cascaded_dllm.text.hub_corpora import HUB_CORPORA, HubCorpus
from cascaded_dllm.text.local import BAD_RECORDS, DEFAULT_UNIT, SUFFIXES, UNITS, Unit
from cascaded_dllm.text.local_files import LocalFiles, is_pattern
from cascaded_dllm.text.python_docs import PythonDocs
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD, unreadable
from cascaded_dllm.text.stories import Stories

BUILT_IN = ("stories", "python-docs")
"""Corpora that are present on every machine."""

SPLITS = ("train", "valid", "test")

_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[^:]+))?")
_Choice = TypeVar("_Choice", bound=str)


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
    if num_records is not None and num_records < 1:
        raise ConfigError(f"--num-documents is {num_records}; it must be at least 1")
    if holdout is not None and holdout < 2:
        raise ConfigError(f"--holdout is {holdout}; one of so many records is held out, so give 2 or more")


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


def open_corpus(
    dataset: str,
    *,
    split: str,
    text_field: str | None = None,
    unit: str | None = None,
    form: str | None = None,
    bad_records: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Corpus:
    """The corpus called `dataset`: built in, known by name, a file or folder, or any dataset of the hub.

    Args:
        dataset: stories or python-docs; one of `HUB_CORPORA`; a path, where one with such a name is written ./name; or
            owner/name, or owner/name:configuration, of a dataset of the hub.
        split: train, valid or test, or as the dataset calls it; a path holds the split it holds.
        text_field: the field or column that holds the text, DEFAULT_TEXT_FIELD if None; a corpus known by name knows
            its own.
        unit: what one document of a .txt file is, see `LocalFiles`; DEFAULT_UNIT if None, or a line where there is a
            form.
        form: the form in which the texts of a path or a dataset are written, one of `FORMS`; None for plain text.
        bad_records: of a path: whether records that cannot be read, such as a line that is not JSON, end the reading
            ("refuse", if None) or are dropped and counted ("drop").
        revision: of a dataset of the hub: a commit, branch or tag.
        streaming: of a dataset of the hub: whether to read it over the network, each time it is read, and not to
            download it first.

    Raises:
        ConfigError: there is no such name, split, unit or form, or an option means nothing to the corpus.
        DataError: the path does not exist, a file below it is empty or of an unknown kind, or the hub has no such
            dataset or column or does not answer.
    """
    known_unit = None if unit is None else one_of("unit", unit, UNITS)
    known_form = None if form is None else one_of("form", form, FORMS)
    of_files = {"text_field": text_field, "unit": unit, "bad_records": bad_records}
    options = of_files | {"form": form, "revision": revision, "streaming": streaming}
    if dataset in BUILT_IN:
        require_read(dataset, "built in", options)
        return _built_in(dataset, split)
    path = Path(dataset).expanduser()
    if dataset in HUB_CORPORA:
        require_read(dataset, "known by name", options)
        hub = HUB_CORPORA[dataset]
    elif _exists(path) or is_pattern(path):
        require_read(dataset, "files", options)
        return _local(path, of_files, known_unit, known_form)
    else:
        hub = _hub_corpus(dataset, text_field, known_form)
        require_read(dataset, "hub", options)
    return Corpus(_folder_name(dataset), open_hub(hub, split=split, revision=revision, streaming=streaming))


def _built_in(dataset: str, split: str) -> Corpus:
    if split not in SPLITS:
        raise ConfigError(f"{dataset} has no split {split!r}; it must be one of {', '.join(SPLITS)}")
    return Corpus(dataset, Stories.of_split(split) if dataset == "stories" else PythonDocs(split))


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Raises:
        DataError: the system does not tell.
    """
    try:
        return path.exists()
    except OSError as error:
        raise unreadable(path, error) from error


def _local(path: Path, options: Mapping[str, str | None], unit: Unit | None, form: Form | None) -> Corpus:
    if form is not None and unit not in (None, "line"):
        raise ConfigError(f"the form {form} is read line by line, and the unit is {unit}; leave one of them out")
    text_field, bad_records = options["text_field"], options["bad_records"]
    # Absolute: parts are read by processes that may run elsewhere.
    files = LocalFiles(
        path.absolute(),
        DEFAULT_TEXT_FIELD if text_field is None else text_field,
        (unit or DEFAULT_UNIT) if form is None else "line",
        form,
        "refuse" if bad_records is None else one_of("--bad-records", bad_records, BAD_RECORDS),
    )
    require_read_by_files(str(path), files.kinds(), options)
    files.checked_files()  # What is missing is said now, not by the process that reads it.
    named = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    return Corpus(_folder_name(named.name.split(".")[0]), files)


def _hub_corpus(dataset: str, text_field: str | None, form: Form | None) -> HubCorpus:
    """The dataset of the hub that a name of the form owner/name or owner/name:configuration means.

    Raises:
        ConfigError: it is another name.
        DataError: it looks like a path.
    """
    if dataset.startswith((".", "/", "~")) or dataset.lower().endswith(SUFFIXES):
        raise DataError(f"{dataset} is no file or folder; check the path")
    match = _HUB_ID.fullmatch(dataset)
    if match is not None:
        column = DEFAULT_TEXT_FIELD if text_field is None else text_field
        return HubCorpus(match["id"], match["config"], text_field=column, form=form)
    known = [*BUILT_IN, *HUB_CORPORA]
    near = difflib.get_close_matches(dataset.lower(), known, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"{dataset!r} is no corpus, file or folder; {meant}Give one of {', '.join(known)}, a path, or owner/name of a "
        "dataset on the Hugging Face hub"
    )


def one_of(what: str, value: str, known: tuple[_Choice, ...]) -> _Choice:
    """The known value that is meant.

    Raises:
        ConfigError: there is none.
    """
    for choice in known:
        if choice == value:
            return choice
    raise ConfigError(f"{what} {value!r} is unknown; choose one of {', '.join(known)}")


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "corpus"


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
