"""The way of a corpus to a preprocessed dataset, shard by shard."""

import contextlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

from cascaded_dllm.atomic import remove_abandoned
from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import Counts, DamagedError, Settings, fingerprint
from cascaded_dllm.data.preprocessed import PreprocessedDataset, shard_folder
from cascaded_dllm.data.shards import Shard, SourceHash, remove_damaged, shard_fingerprint, write_shard
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.preprocess.batches import batches_of
from cascaded_dllm.preprocess.completion import (
    PREPARED_FOLDER,
    complete_now,
    completed,
    forget_source,
    keep_source,
    with_files,
)
from cascaded_dllm.preprocess.encoder import EncodeAll
from cascaded_dllm.preprocess.job import shard_out_of_range
from cascaded_dllm.preprocess.parts import FORMAT as PARTS_FORMAT
from cascaded_dllm.preprocess.parts import read_part, write_parts
from cascaded_dllm.text.corpus import Corpus, no_documents
from cascaded_dllm.text.file_hashes import HashedFile, remember
from cascaded_dllm.text.tokenizer import Tokenizer

Progress: TypeAlias = Callable[[int, int | None], None]
"""Told the records done, and their number where it is known."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Names in the folder of what is prepared begin so: of records laid down for shards, and of indexes of lines.
_RECORDS, _LINES = "records_", "lines_"


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """A preprocessed dataset that is to be: every shard of it can be made on its own, anywhere, in any order.

    Attributes:
        folder: where it goes.
        settings: everything that decides its records.
        corpus: the documents.
        hashes: of its files, as they were when the plan was made; it takes them to whoever makes a shard.
    """

    folder: Path
    settings: Settings
    corpus: Corpus
    hashes: tuple[HashedFile, ...] = ()

    @classmethod
    def make(
        cls, corpus: Corpus, *, split: str, out_dir: Path, tokenizer: Tokenizer, scorer: Scorer, num_shards: int = 1
    ) -> "Plan":
        """The plan for a corpus; nothing is written.

        Args:
            corpus: the documents; its name goes into the folder's.
            split: name of its part, for the folder.
            out_dir: where preprocessed data lies.
            tokenizer: finds the tokens.
            scorer: finds the words and their importance; its method names the folder.
            num_shards: record j of the corpus goes to shard j % num_shards.

        Raises:
            ConfigError: a name cannot be a part of a folder name, there is no shard, or no selection rule for the
                scorer.
        """
        check_name("dataset", corpus.name)
        check_name("split", split)
        require_at_least("num_shards", num_shards, 1)
        one_of("the scorer's method", scorer.method, SELECTION_METHODS, hint="which have a selection rule")
        settings = Settings(
            dataset=corpus.name,
            split=split,
            source=dict(corpus.source),
            num_shards=num_shards,
            method=scorer.method,
            scorer=scorer.describe(),
            background=scorer.background,
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
        )
        folder = dataset_folder(out_dir, scorer.method, corpus.name, split)
        return cls(folder, settings, corpus.with_indexes(_indexes_of(folder, settings)), corpus.hashes())

    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet; damaged ones are removed, to be written again.

        Raises:
            DataError: a shard was made with other settings or in another format, or the disk does not let it be read.
            OutputExistsError: a damaged shard holds files that are not ours.
        """
        return [index for index in range(self.settings.num_shards) if not self.has_shard(index)]

    def has_shard(self, index: int) -> bool:
        """Whether shard `index` is complete; see `missing` for what is raised otherwise."""
        self._check_index(index)
        path = shard_folder(self.folder, index)
        if not path.exists():
            return False
        try:
            shard = Shard.open(path)
            shard.verify()
        except DamagedError:
            remove_damaged(path)
            return False
        self._check_settings(shard, index)
        return True

    def keep_indexes(self) -> None:
        """Writes down where records begin in the files of the corpus, if that saves reading, until it is complete.

        Only what was noted when the files were hashed for this plan, in this process, is written.

        Raises:
            OutputExistsError: the folder cannot be written.
        """
        self.corpus.keep_indexes(self.settings.num_shards)

    def to_be_read_once(self, missing: Sequence[int]) -> bool:
        """Whether reading the corpus once for all missing shards, with `read_once` before the first, saves work."""
        least = self.corpus.read_once_from()
        return least is not None and len(missing) >= least and not (self._parts / MANIFEST_FILE).is_file()

    def read_once(self, missing: Sequence[int], on_progress: Callable[[int], None]) -> None:
        """Lays down the records of the missing shards for `write`, until the dataset is complete.

        Args:
            missing: numbers of shards.
            on_progress: told the records read.

        Raises:
            DataError: the corpus cannot be read, or has changed meanwhile.
            OutputExistsError: the folder cannot be written.
        """
        write_parts(self.corpus, self.settings.num_shards, missing, self._parts, on_progress)
        try:
            self._check_corpus()
        except DataError:
            shutil.rmtree(self._parts)
            raise

    def write(self, index: int, encode_all: EncodeAll, on_progress: Progress | None = None) -> Counts:
        """Makes shard `index`, which is on the disk completely or not at all, and returns what is in it.

        Args:
            index: which shard.
            encode_all: `Encoder.encode_all`, here or on many processes.
            on_progress: told the records of this shard that are done.

        Raises:
            ConfigError: there is no such shard.
            DataError: a document cannot be read, or its importance is no number; or there is no document at all.
            OutputExistsError: the folder cannot be written.
        """
        self._check_index(index)
        # Between the plan and this task may lie hours in a queue.
        self._check_corpus()
        keep_source(self.folder, self.settings, self.hashes)
        source = SourceHash()
        records = read_part(self._parts, index)
        if records is None:
            records = self.corpus.part(index, self.settings.num_shards)
        with write_shard(shard_folder(self.folder, index), self.settings, index, source) as writer:
            for batch in encode_all(batches_of(records, source, writer)):
                for document, token_ids, importance in batch:
                    writer.add(document.id, token_ids, importance, num_characters=len(document.text))
                if on_progress is not None:
                    on_progress(writer.counts.documents + sum(writer.counts.dropped.values()), None)
            if writer.counts.documents == 0 and self.settings.num_shards == 1:
                raise no_documents(self.corpus, writer.counts.dropped)
            self._check_corpus()
        return writer.counts

    def put_tokenizer(self, load_tokenizer: Callable[[], Tokenizer]) -> None:
        """Puts the tokenizer beside the first shard, so that shards can be looked at while others are made.

        Args:
            load_tokenizer: that of the dataset, which is asked for where there is none.

        Raises:
            OutputExistsError: the folder cannot be written.
        """
        if not (self.folder / TOKENIZER_FILE).is_file():
            load_tokenizer().save(self.folder)

    def complete(self, load_tokenizer: Callable[[], Tokenizer]) -> PreprocessedDataset | None:
        """The dataset, if all of its shards are there; None as long as others are at work on the rest.

        Args:
            load_tokenizer: that of the dataset, which is asked for with the last shard, unless all was complete before.

        Raises:
            DataError: there is not one document in it, or the tokenizer is not that of the shards any more.
        """
        folders = self.folders_of_shards()
        if len(folders) < self.settings.num_shards:
            return None
        self.check_shards()
        counts = sum((Shard.open(folder).counts for folder in folders), Counts())
        if counts.documents == 0:
            raise no_documents(self.corpus, counts.dropped)
        dataset = completed(self.folder, self.settings)
        if dataset is None:
            dataset = complete_now(self.folder, self.settings, load_tokenizer())
        forget_source(self.folder, self.settings)
        # Another task may be removing it as well, and what is left over is read by nobody.
        prepared = self.folder / PREPARED_FOLDER
        for kind in (_RECORDS, _LINES):
            for found in prepared.glob(f"{kind}*"):
                shutil.rmtree(found, ignore_errors=True)
        # An index is written in a moment: one that is half-written now has a dead writer, on whichever machine.
        remove_abandoned(prepared, complete={_indexes_of(self.folder, self.settings).name})
        with contextlib.suppress(OSError):
            prepared.rmdir()
        return dataset

    @property
    def _parts(self) -> Path:
        """Where `read_once` lays down the records."""
        identity = {"source": self.settings.source, "num_shards": self.settings.num_shards, "format": PARTS_FORMAT}
        return self.folder / PREPARED_FOLDER / f"{_RECORDS}{fingerprint(identity)}"

    def check_shards(self) -> None:
        """Whether the shards that are there, by their manifests, belong to this plan.

        Raises:
            DataError: one was made with other settings or in another format.
        """
        for folder in self.folders_of_shards():
            try:
                self._check_settings(Shard.open(folder), int(folder.name.removeprefix("shard_")))
            except DamagedError:
                # Its own task finds it and makes it again.
                continue

    def _check_corpus(self) -> None:
        """Whether the documents are those of the plan; files are only hashed where their size or time changed since.

        Raises:
            DataError: they are not.
        """
        remember(self.hashes)
        if dict(self.corpus.source) != self.settings.source:
            raise DataError(
                f"the corpus {self.corpus.name!r} has changed since the job began (its files have other content); "
                f"leave its files alone meanwhile, and start anew with another output folder or without {self.folder}"
            )

    def _check_settings(self, shard: Shard, index: int) -> None:
        if shard.fingerprint != shard_fingerprint(self.settings, index):
            settings = with_files(self.folder, shard.settings)
            differences = settings.differences(self.settings) or "another shard's number"
            raise DataError(
                f"{shard.folder} was made with other settings ({differences}); choose another output folder, dataset "
                f"or split name, or remove {self.folder}"
            )

    def folders_of_shards(self) -> list[Path]:
        """The folders of all shards that are there, whole or damaged."""
        folders = (shard_folder(self.folder, index) for index in range(self.settings.num_shards))
        return [folder for folder in folders if (folder / MANIFEST_FILE).is_file()]

    def _check_index(self, index: int) -> None:
        """Whether there is such a shard.

        Raises:
            ConfigError: there is not.
        """
        if not 0 <= index < self.settings.num_shards:
            raise shard_out_of_range(index, self.settings.num_shards)


def check_name(what: str, name: str) -> None:
    """Whether a name can be a part of a folder name.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} name {name!r} cannot be part of a folder name; use letters, digits, '.', '_' and '-', and begin "
            "with a letter or digit"
        )


def dataset_folder(out_dir: Path, method: str, name: str, split: str) -> Path:
    """Where a preprocessed dataset lies."""
    return out_dir / method / f"{name}_{split}"


def _indexes_of(folder: Path, settings: Settings) -> Path:
    """Where the indexes of a corpus' lines lie until its dataset is complete."""
    return folder / PREPARED_FOLDER / f"{_LINES}{fingerprint(settings.source)}"
