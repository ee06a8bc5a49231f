"""The way of a corpus to shards: score the words, tokenise, give every token its word's importance, write."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TypeAlias, final

from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import DamagedError, Settings
from cascaded_dllm.data.preprocessed import complete_dataset, shard_folder
from cascaded_dllm.data.shards import RECORDS_FILE, Shard, ShardWriter, SourceHash, shard_fingerprint, write_shard
from cascaded_dllm.errors import ConfigError, DataError, OutputExistsError
from cascaded_dllm.importance.base import Scorer, align
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer

# Documents are scored and tokenised together up to these limits; the result does not depend on them.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000

DocumentSource: TypeAlias = Iterable[Document] | Callable[[], Iterable[Document]]
"""A corpus that can be read again, or what starts it anew."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def preprocess(
    documents: DocumentSource,
    *,
    out_dir: Path,
    dataset: str,
    split: str,
    tokenizer: Tokenizer,
    scorer: Scorer,
    num_shards: int = 1,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """The folder `out_dir`/<method>/<dataset>_<split> with the corpus as tokens and their importance.

    One shard is written after the other, each in a pass of its own over the corpus, so that a crash costs at most the
    shard it happens in. Calling it again keeps the shards that are complete, and checks that they came from the same
    documents.

    Args:
        documents: the corpus, or a function that starts it anew; ids may repeat, empty texts are dropped and counted.
            For a single shard an iterator will do.
        out_dir: where preprocessed data lies.
        dataset: name of the corpus, for the folder.
        split: name of its part, for the folder.
        tokenizer: saved beside the shards.
        scorer: finds the words and their importance; its method names the folder.
        num_shards: document j goes to shard j % num_shards.
        on_progress: told the documents done, and their number where it is known: for a list at once, for a stream
            after the first pass.

    Raises:
        ConfigError: a name or number is not usable, or an iterator is to fill several shards.
        DataError: there is no document, the folder holds shards of other settings, another format or other documents,
            one of them cannot be read, or the corpus is not the same in every pass.
        OutputExistsError: the folder cannot be written or holds files that are not ours.
    """
    settings = _settings(dataset, split, num_shards, tokenizer, scorer)
    if num_shards > 1 and isinstance(documents, Iterator):
        raise ConfigError(
            f"the corpus is an iterator, which can be read once, but {num_shards} shards need {num_shards} passes; "
            "give a list or a function that starts the stream anew, or choose num_shards 1"
        )
    folder = out_dir / settings.method / f"{dataset}_{split}"
    reader = _Reader(documents, dataset, _kept_shards(folder, settings), num_shards, on_progress)
    if not reader.missing:
        for _ in reader.batches(None, _source_hashes(num_shards)):
            continue
    for index in reader.missing:
        sources = _source_hashes(num_shards)
        with write_shard(shard_folder(folder, index), settings, index, sources[index]) as writer:
            for batch in reader.batches(index, sources):
                _write(batch, writer, tokenizer, scorer)
    tokenizer.save(folder)
    complete_dataset(folder, settings)
    return folder


def _source_hashes(num_shards: int) -> list[SourceHash]:
    return [SourceHash() for _ in range(num_shards)]


@final
class _Reader:
    """Passes over the corpus, which must give the same documents each time, and those of the shards that were kept.

    Args:
        documents: the corpus.
        dataset: its name, for messages.
        kept: complete shards of an earlier call.
        num_shards: of the dataset.
        on_progress: see `preprocess`.

    Attributes:
        missing: the numbers of the shards that were not kept.
    """

    def __init__(
        self,
        documents: DocumentSource,
        dataset: str,
        kept: dict[int, Shard],
        num_shards: int,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self.missing = [index for index in range(num_shards) if index not in kept]
        self._documents = documents
        self._dataset = dataset
        self._kept = kept
        self._on_progress = on_progress
        self._done = 0
        self._total: int | None = len(documents) if isinstance(documents, Sized) else None
        self._hashes: list[str] = []

    def batches(self, index: int | None, sources: Sequence[SourceHash]) -> Iterator[list[Document]]:
        """One pass: the documents of shard `index` in lists of bounded size, none of them where it is None.

        Args:
            index: a missing shard.
            sources: one fresh hash per shard, told all documents of the pass.

        Raises:
            DataError: at the end of the pass: the documents are not those of the pass before or of a kept shard, or
                there are none.
        """
        batch: list[Document] = []
        characters = count = unsaid = 0
        for number, document in enumerate(self._documents() if callable(self._documents) else self._documents):
            shard, count = number % len(sources), number + 1
            sources[shard].add(document.id, document.text)
            if shard == index:
                batch.append(document)
                characters += len(document.text)
            # What was kept is done when it is read for the first time.
            unsaid += shard == index or (not self._hashes and shard in self._kept)
            if unsaid >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                yield batch
                self._tell(unsaid)
                batch, characters, unsaid = [], 0, 0
        if unsaid:
            yield batch
            self._tell(unsaid)
        self._check(count, [source.hexdigest() for source in sources])
        self._total = count

    def _tell(self, done: int) -> None:
        self._done += done
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    def _check(self, count: int, hashes: list[str]) -> None:
        """Compares the documents of a pass with those of the first one and with those behind the kept shards.

        Raises:
            DataError: they differ, or there are none.
        """
        if self._hashes and hashes != self._hashes:
            raise DataError(
                f"the corpus {self._dataset!r} gave {self._total} documents at first and other ones ({count}) when it "
                "was read again; leave its files alone meanwhile, and give a function that starts a new stream"
            )
        if count == 0:
            raise DataError(f"the corpus {self._dataset!r} has 0 documents; give one with text in it")
        for index, shard in self._kept.items():
            if shard.source_sha256 != hashes[index]:
                raise DataError(
                    f"{shard.folder} was made from other documents ({shard.counts.documents} of them, source SHA-256 "
                    f"{shard.source_sha256[:16]}, now {hashes[index][:16]}); choose another output folder, dataset or "
                    f"split name, or remove {shard.folder.parent}"
                )
        self._hashes = hashes


def _settings(dataset: str, split: str, num_shards: int, tokenizer: Tokenizer, scorer: Scorer) -> Settings:
    """The settings of the call.

    Raises:
        ConfigError: a name cannot be a part of a folder name, there is no shard, or no selection rule for the scorer.
    """
    for what, name in (("dataset", dataset), ("split", split)):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{what} name {name!r} cannot be part of a folder name; use letters, digits, '.', '_' and '-', and "
                "begin with a letter or digit"
            )
    if num_shards < 1:
        raise ConfigError(f"num_shards {num_shards} is below 1; choose 1 or more")
    if scorer.method not in SELECTION_METHODS:
        raise ConfigError(
            f"the scorer's method {scorer.method!r} has no selection rule; it must be one of "
            f"{', '.join(SELECTION_METHODS)}"
        )
    return Settings(
        dataset=dataset,
        split=split,
        num_shards=num_shards,
        method=scorer.method,
        scorer=scorer.describe(),
        background=scorer.background,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
    )


def _kept_shards(folder: Path, settings: Settings) -> dict[int, Shard]:
    """The complete shards of an earlier call; damaged ones are removed, to be written again.

    Raises:
        DataError: a shard was made with other settings or in another format, or the disk does not let it be read.
        OutputExistsError: a damaged shard holds files that are not ours.
    """
    kept = {}
    for path in sorted(folder.glob("shard_*")):
        index = path.name.removeprefix("shard_")
        if not index.isdecimal():
            continue
        try:
            shard = Shard.open(path)
            shard.verify()
        except DamagedError:
            _remove_damaged(path)
            continue
        if shard.fingerprint != shard_fingerprint(settings, int(index)):
            differences = shard.settings.differences(settings) or "another shard's number"
            raise DataError(
                f"{path} was made with other settings ({differences}); choose another output folder, dataset or split "
                f"name, or remove {folder}"
            )
        kept[int(index)] = shard
    return kept


def _remove_damaged(path: Path) -> None:
    """Removes a shard that is damaged, file by file: what we did not write is not ours to delete."""
    own = (MANIFEST_FILE, RECORDS_FILE)
    try:
        foreign = sorted(item.name for item in path.iterdir() if item.name not in own)
        if foreign:
            raise OutputExistsError(
                f"{path} is no shard and holds other files ({', '.join(foreign[:3])}); move it away or choose another "
                "output folder"
            )
        for name in own:
            (path / name).unlink(missing_ok=True)
        path.rmdir()
    except OSError as error:
        raise OutputExistsError(
            f"the damaged shard {path} cannot be removed ({error.strerror}); remove it or choose another output folder"
        ) from error


def _write(documents: Sequence[Document], writer: ShardWriter, tokenizer: Tokenizer, scorer: Scorer) -> None:
    """Scores and tokenises documents and adds them to their shard."""
    texts = [document.text for document in documents]
    scored, encoded = scorer.score(texts), tokenizer.encode_batch(texts)
    for document, words, encoding in zip(documents, scored, encoded, strict=True):
        importance = align(words, encoding.offsets, scorer.background)
        writer.add(document.id, encoding.ids, importance, num_characters=len(document.text))
