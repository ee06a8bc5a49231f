"""From a corpus to a preprocessed dataset, shard by shard."""

import contextlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import remove_abandoned
from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of, plain_number, require_whole
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import Counts, DamagedError, Settings, fingerprint
from cascaded_dllm.data.preprocessed import PreprocessedDataset, shard_folder, shards_of
from cascaded_dllm.data.shards import Shard, SourceHash, remove_damaged, shard_fingerprint, write_shard
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.importance.base import Scorer, description_of
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
from cascaded_dllm.preprocess.job import MOST_SHARDS, require_shard
from cascaded_dllm.preprocess.parts import FORMAT as PARTS_FORMAT
from cascaded_dllm.preprocess.parts import read_part, write_parts
from cascaded_dllm.text.corpus import Corpus, no_documents
from cascaded_dllm.text.file_hashes import HashedFile, remember
from cascaded_dllm.text.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Prefixes of names in PREPARED_FOLDER: of records written for shards, and of indexes of lines.
_RECORDS, _LINES = "records_", "lines_"


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """A preprocessed dataset to be made; every shard can be made on its own, anywhere, in any order.

    Attributes:
        folder: where it goes.
        settings: everything that decides its records.
        corpus: the documents.
        hashes: of the corpus' files when the plan was made, for the processes that make shards.
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
            corpus: the documents; its name is part of the folder name.
            split: name of this part of the corpus, for the folder.
            out_dir: folder of all preprocessed data.
            tokenizer: finds the tokens.
            scorer: finds the words and their importance; its method names the folder.
            num_shards: record j of the corpus goes to shard j % num_shards.

        Raises:
            ConfigError: a name cannot be part of a folder name, `num_shards` is not a whole number, less than 1 or too
                large, there is no selection rule for the scorer, or what it says of itself cannot be stored.
            DataError: the tokenizer would lose characters.
        """
        check_name("dataset", corpus.name)
        check_name("split", split)
        tokenizer.require_every_byte()
        require_whole("num_shards", num_shards, 1, most=MOST_SHARDS)
        one_of("the scorer's method", scorer.method, SELECTION_METHODS, hint="which have a selection rule")
        settings = Settings(
            dataset=corpus.name,
            split=split,
            source=dict(corpus.source),
            num_shards=int(num_shards),
            method=scorer.method,
            scorer=description_of(scorer),
            background=plain_number("the scorer's background", scorer.background),
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
        )
        folder = dataset_folder(out_dir, scorer.method, corpus.name, split)
        return cls(folder, settings, corpus.with_indexes(_indexes_of(folder, settings)), corpus.hashes())

    def missing(self) -> list[int]:
        """The numbers of the shards that do not exist yet; damaged shards are removed, to be written again.

        Raises:
            DataError: a shard was made with other settings or in another format, or cannot be read from the disk.
            OutputError: a damaged shard holds foreign files.
        """
        return [index for index in range(self.settings.num_shards) if not self.has_shard(index)]

    def has_shard(self, index: int) -> bool:
        """Whether shard `index` is complete; a damaged shard is removed. Raises the errors of `missing`."""
        require_shard(index, self.settings.num_shards)
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
        """Writes where records begin in the files of the corpus, if that saves reading; `complete` removes it.

        Only what this process noted while it hashed the files for this plan is written.

        Raises:
            OutputError: the folder cannot be written.
        """
        self.corpus.keep_indexes(self.settings.num_shards)

    def to_be_read_once(self, missing: Sequence[int]) -> bool:
        """Whether `read_once`, called before the first missing shard is made, would save work."""
        least = self.corpus.read_once_from()
        return least is not None and len(missing) >= least and not (self._parts / MANIFEST_FILE).is_file()

    def read_once(self, missing: Sequence[int], on_progress: Callable[[int], None]) -> None:
        """Reads the corpus once and stores the records of the missing shards for `write`; `complete` removes them.

        Args:
            missing: numbers of shards.
            on_progress: called with the number of records read.

        Raises:
            DataError: the corpus cannot be read, or has changed since the plan was made.
            OutputError: the folder cannot be written.
        """
        write_parts(self.corpus, self.settings.num_shards, missing, self._parts, on_progress)
        try:
            self._check_corpus()
        except DataError:
            shutil.rmtree(self._parts)
            raise

    def write(self, index: int, encode_all: EncodeAll, on_progress: Callable[[int], None] | None = None) -> Counts:
        """Makes shard `index`, completely or not at all, and returns the counts of its content.

        Args:
            index: which shard.
            encode_all: `Encoder.encode_all`, in this process or on many.
            on_progress: called with the number of records of this shard that are done.

        Raises:
            ConfigError: there is no such shard.
            DataError: a document cannot be read, its importance is not a finite number, the corpus has changed, or
                the only shard has no document.
            OutputError: the folder cannot be written.
        """
        require_shard(index, self.settings.num_shards)
        # This task may have waited in a queue for hours since the plan was made.
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
                    on_progress(writer.counts.records)
            if writer.counts.documents == 0 and self.settings.num_shards == 1:
                raise no_documents(self.corpus, writer.counts.dropped)
            self._check_corpus()
        return writer.counts

    def put_tokenizer(self, load_tokenizer: Callable[[], Tokenizer]) -> None:
        """Puts the tokenizer beside the first shard, so that shards can be inspected while others are made.

        Args:
            load_tokenizer: loads the tokenizer of the dataset; called only if the folder has none.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not (self.folder / TOKENIZER_FILE).is_file():
            load_tokenizer().save(self.folder)

    def complete(self, load_tokenizer: Callable[[], Tokenizer]) -> PreprocessedDataset | None:
        """Completes and returns the dataset, if all of its shards are there; None while other tasks make the rest.

        Args:
            load_tokenizer: loads the tokenizer of the dataset; called with the last shard, unless the dataset was
                complete before.

        Raises:
            DataError: it has no document, a shard does not belong to this plan, or the tokenizer is no longer that of
                the shards.
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
        # Another task may remove the same files now, and nothing reads what is left over.
        prepared = self.folder / PREPARED_FOLDER
        for kind in (_RECORDS, _LINES):
            for found in prepared.glob(f"{kind}*"):
                shutil.rmtree(found, ignore_errors=True)
        # Writing an index takes a moment, so a half-written one has a dead writer, on whichever machine.
        remove_abandoned(prepared, complete={_indexes_of(self.folder, self.settings).name})
        with contextlib.suppress(OSError):
            prepared.rmdir()
        return dataset

    @property
    def _parts(self) -> Path:
        """The folder in which `read_once` stores the records."""
        identity = {"source": self.settings.source, "num_shards": self.settings.num_shards, "format": PARTS_FORMAT}
        return self.folder / PREPARED_FOLDER / f"{_RECORDS}{fingerprint(identity)}"

    def check_shards(self) -> None:
        """Checks, by their manifests, that the existing shards belong to this plan, also those beyond its last one.

        Raises:
            DataError: one was made with other settings or in another format.
        """
        # The task of a damaged shard, which is not among these, will make it again.
        for index, shard in shards_of(self.folder).items():
            self._check_settings(shard, index)

    def _check_corpus(self) -> None:
        """Checks that the documents are those of the plan; only files of another size or time are hashed again.

        Raises:
            DataError: they are not.
        """
        remember(self.hashes)
        if dict(self.corpus.source) != self.settings.source:
            raise DataError(
                f"the corpus {self.corpus.name!r} has changed since the job began (its files have other content); "
                f"do not change its files during a job, and start anew with another output folder or without "
                f"{self.folder}"
            )

    def _check_settings(self, shard: Shard, index: int) -> None:
        if shard.fingerprint != shard_fingerprint(self.settings, index):
            raise _other_settings(shard, self.settings) or _made_otherwise(shard, "another shard's number")

    def folders_of_shards(self) -> list[Path]:
        """The folders of all existing shards, whole or damaged."""
        folders = (shard_folder(self.folder, index) for index in range(self.settings.num_shards))
        return [folder for folder in folders if (folder / MANIFEST_FILE).is_file()]


def check_known_settings(folder: Path, corpus: Corpus, *, num_shards: int) -> None:
    """Checks that an existing shard is of this corpus, before anything is made from it that only a new dataset needs.

    Args:
        folder: of the dataset.
        corpus: the documents.
        num_shards: of the dataset.

    Raises:
        DataError: it is of another one, or of another number of shards.
    """
    shard = next(iter(shards_of(folder).values()), None)
    if shard is None:
        return
    known = replace(shard.settings, dataset=corpus.name, source=dict(corpus.source), num_shards=num_shards)
    if (fault := _other_settings(shard, known)) is not None:
        raise fault


def _other_settings(shard: Shard, settings: Settings) -> DataError | None:
    """The error for a shard that was made with other settings; None if no setting differs."""
    differences = with_files(shard.folder.parent, shard.settings).differences(settings)
    return _made_otherwise(shard, differences) if differences else None


def _made_otherwise(shard: Shard, differences: str) -> DataError:
    return DataError(
        f"{shard.folder} was made with other settings ({differences}); choose another output folder, dataset or split "
        f"name, or remove {shard.folder.parent}"
    )


def check_name(what: str, name: str) -> None:
    """Checks that a name can be part of a folder name.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} name {name!r} cannot be part of a folder name; use letters, digits, '.', '_' and '-', and begin "
            "with a letter or digit"
        )


def dataset_folder(out_dir: Path, method: str, name: str, split: str) -> Path:
    """The folder of a preprocessed dataset."""
    return out_dir / method / f"{name}_{split}"


def _indexes_of(folder: Path, settings: Settings) -> Path:
    """The folder of the indexes of a corpus' lines, which exists until the dataset is complete."""
    return folder / PREPARED_FOLDER / f"{_LINES}{fingerprint(settings.source)}"
