"""Datasets of the Hugging Face hub, read through the datasets library, which knows their formats."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, final

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.hub_requests import DEADLINE_S, hub_errors, with_deadline
from cascaded_dllm.text.document import READ_ONCE_FROM, Document, Dropped, Part
from cascaded_dllm.text.forms import described, numbered_records, records_of
from cascaded_dllm.text.hub_corpora import HubCorpus
from cascaded_dllm.text.rows import missing_field, row_record

BATCH_ROWS = 1024
_COMMIT = re.compile(r"[0-9a-f]{40}")


@final
@dataclass(frozen=True, slots=True)
class HubRows:
    """One split of a dataset of the hub, at one commit, as a `Reader`.

    Attributes:
        corpus: the dataset, with its commit and configuration.
        split: the dataset's own name of it.
        files: the local files of the split, which are memory-mapped; empty if it is streamed from the hub.
    """

    corpus: HubCorpus
    split: str
    files: tuple[str, ...]

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`.

        Raises:
            DataError: the column is missing or does not hold text, the files are gone or the hub does not answer.
        """
        return records_of(self._rows, self.corpus.form, part)

    def read_once_from(self) -> int | None:
        """See `WholeReader`: a stream comes as a whole, and WikiText articles are found line by line."""
        return READ_ONCE_FROM if not self.files or self.corpus.form == "wikitext" else None

    def numbered(self, stop: int | None) -> Iterator[tuple[int, Document | Dropped]]:
        """See `WholeReader`.

        Raises:
            DataError: as in `records`.
        """
        return numbered_records(self._rows, self.corpus.form, Part(stop=stop))

    def source(self) -> dict[str, object]:
        """See `Reader`."""
        return {
            "kind": "hub",
            "id": self.corpus.id,
            "revision": self.corpus.commit,
            "config": self.corpus.config,
            "split": self.split,
            "text_field": self.corpus.text_field,
            "form": described(self.corpus.form),
        }

    def _rows(self, part: Part) -> Iterator[Document | Dropped]:
        first, text_field = 0, self.corpus.text_field
        numbers = part.numbers()
        wanted = next(numbers, None)
        for table in self._tables():
            # Streamed files may differ in their columns, but if the first rows lack this one, its name is wrong.
            if first == 0 and text_field not in table.column_names:
                raise missing_field(f"{self.corpus.id} ({self.split})", text_field, table.column_names)
            columns = {name: table.column(name) for name in (text_field, "id") if name in table.column_names}
            while wanted is not None and wanted < first + table.num_rows:
                row = {name: column[wanted - first].as_py() for name, column in columns.items()}
                default = f"{self.split}:{wanted}"
                yield row_record(row, text_field, place=f"{self.corpus.id} {default}", default=default)
                wanted = next(numbers, None)
            if wanted is None:
                return
            first += table.num_rows

    def _tables(self) -> Iterator[Any]:
        """The rows in batches, as Arrow tables."""
        datasets = _library()
        if not self.files:
            _ask(self.corpus, self.corpus.commit or self.corpus.branch)
        with _explained(self.corpus):
            if self.files:
                rows = datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in self.files])
            else:
                rows = _builder(self.corpus).as_streaming_dataset(split=self.split)
            yield from rows.with_format("arrow").iter(batch_size=BATCH_ROWS)


def open_hub(corpus: HubCorpus, *, split: str, revision: str | None, streaming: bool) -> HubRows:
    """One split of a dataset: from the cache of the datasets library, or else downloaded into it or streamed.

    Args:
        corpus: the dataset.
        split: the dataset's own name of it, or valid for validation.
        revision: a commit, branch or tag instead of the commit of `corpus`.
        streaming: whether to read a dataset that is not in the cache over the network each time, instead of
            downloading it first.

    Raises:
        ConfigError: there is no such split.
        DataError: the dataset is not in the cache and the hub does not answer or has no such dataset or revision, or
            the dataset has no such column or cannot be read.
        MissingExtraError: the datasets library is not installed.
    """
    if corpus.splits:
        split = _known_split(corpus, split, corpus.splits)
    commit = revision or corpus.commit
    if commit is not None and not _COMMIT.fullmatch(commit):
        commit = _ask(corpus, commit)
    folder = _cached(corpus, commit)
    if folder is None:
        corpus = replace(corpus, commit=_ask(corpus, commit or corpus.branch))
        rows = _streamed(corpus, split) if streaming else _prepared(corpus, split, _downloaded(corpus))
    else:
        rows = _prepared(corpus, split, folder)
    next(rows.records(Part(stop=1)), None)  # A missing column is reported here.
    return rows


def _streamed(corpus: HubCorpus, split: str) -> HubRows:
    with _explained(corpus):
        builder = _builder(corpus)
        splits = list(builder.as_streaming_dataset())
    return HubRows(replace(corpus, config=builder.config.name), _known_split(corpus, split, splits), ())


def _downloaded(corpus: HubCorpus) -> Path:
    with _explained(corpus):
        builder = _builder(corpus)
        builder.download_and_prepare()
    return Path(builder.cache_dir)


def _prepared(corpus: HubCorpus, split: str, folder: Path) -> HubRows:
    """A split of a dataset that the library has prepared in `folder` as memory-mapped files."""
    info = _library().DatasetInfo.from_directory(str(folder))
    split = _known_split(corpus, split, list(info.splits or ()))
    shards = [*folder.glob(f"*-{split}.arrow"), *folder.glob(f"*-{split}-[0-9]*-of-[0-9]*.arrow")]
    return HubRows(replace(corpus, commit=folder.name, config=info.config_name), split, tuple(map(str, sorted(shards))))


def _known_split(corpus: HubCorpus, split: str, splits: Sequence[str]) -> str:
    """The dataset's own name of a split.

    Raises:
        ConfigError: there is no such split.
    """
    if split == "valid" and "valid" not in splits and "validation" in splits:
        return "validation"
    return one_of(f"the split of {corpus.id}", split, splits)


def _cached(corpus: HubCorpus, commit: str | None) -> Path | None:
    """The folder in which the library keeps the prepared dataset, of this commit or the newest.

    None if it is not in the cache, or is there in several configurations of which `corpus` names none.
    """
    library = _library()
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = corpus.id.rpartition("/")
    root = Path(library.config.HF_DATASETS_CACHE) / "___".join(filter(None, [owner, camelcase_to_snakecase(name)]))
    found = [info.parent for info in root.glob(f"{corpus.config or '*'}/*/{commit or '*'}/dataset_info.json")]
    if len({folder.parents[1] for folder in found}) != 1:
        return None
    return max(found, key=lambda folder: folder.stat().st_mtime)


def _builder(corpus: HubCorpus) -> Any:
    return _library().load_dataset_builder(corpus.id, corpus.config, revision=corpus.commit)


def _ask(corpus: HubCorpus, revision: str) -> str:
    """The commit of a revision.

    Raises:
        DataError: the hub does not answer in time, or has no such dataset or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    def ask() -> str:
        return str(HfApi().dataset_info(corpus.id, revision=revision, timeout=DEADLINE_S).sha)

    answer = with_deadline(ask)
    match answer:
        case str():
            return answer
        case RepositoryNotFoundError() | RevisionNotFoundError() | HFValidationError():
            raise DataError(
                f"the hub has no dataset {corpus.id!r} with the revision {revision!r}, or it is not public; check both "
                "names, or log in with `hf auth login`"
            ) from answer
    form = f", with --form {corpus.form}" if corpus.form else ""
    raise DataError(
        f"the dataset {corpus.id} is not on this machine, and the hub does not answer ({type(answer).__name__}); check "
        f"the network, or give a copy of your own instead: a .txt, .jsonl or .parquet file or a folder of them{form}"
    ) from answer


@contextmanager
def _explained(corpus: HubCorpus) -> Iterator[None]:
    """Turns errors of the library and the network into one that names the dataset.

    Raises:
        DataError: such an error was raised inside the block.
    """
    # Not in the handler: for a generator that is still open at exit, it runs when nothing can be imported any more.
    errors = _errors()
    try:
        yield
    except errors as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise DataError(
            f"the dataset {corpus.id} cannot be read ({type(cause).__name__}: {reason}); check the "
            "configuration, named as in owner/name:configuration, the network and the free space, and run again"
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    """The errors that the library and the hub's client raise because of the dataset or the network."""
    from datasets.exceptions import DatasetsError

    return (DatasetsError, *hub_errors())


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", extra="preprocess", purpose="a corpus of the hub") from error
    return datasets
