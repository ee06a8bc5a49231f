"""The way of a corpus to shards: score the words, tokenise, give every token its word's importance, write."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TypeAlias

from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.data.preprocessed import complete_dataset, shard_folder
from cascaded_dllm.data.shards import RECORDS_FILE, Shard, ShardWriter, SourceHash, shard_fingerprint, write_shard
from cascaded_dllm.errors import ConfigError, DataError, OutputExistsError
from cascaded_dllm.importance.base import Scorer, align
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer

# Documents are scored and tokenised together up to these limits; the result does not depend on them.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_Numbered: TypeAlias = tuple[int, Document]


def preprocess(
    documents: Iterable[Document],
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

    The corpus is read once, in batches. Calling it again after a crash keeps the shards that are complete, and
    checks that they came from the same documents.

    Args:
        documents: the corpus; ids may repeat, empty texts are dropped and counted.
        out_dir: where preprocessed data lies.
        dataset: name of the corpus, for the folder.
        split: name of its part, for the folder.
        tokenizer: saved beside the shards.
        scorer: finds the words and their importance; its method names the folder.
        num_shards: document j goes to shard j % num_shards.
        on_progress: told the documents done, and their number where it is known.

    Raises:
        ConfigError: a name or number is not usable.
        DataError: there is no document, or the folder holds shards of other settings or other documents.
        OutputExistsError: the folder cannot be written or holds files that are not ours.
    """
    settings = _settings(dataset, split, num_shards, tokenizer, scorer)
    folder = out_dir / settings.method / f"{dataset}_{split}"
    kept = _kept_shards(folder, settings)
    sources = [SourceHash() for _ in range(num_shards)]
    total = len(documents) if isinstance(documents, Sized) else None
    done = 0
    with contextlib.ExitStack() as stack:
        writers = {
            index: stack.enter_context(write_shard(shard_folder(folder, index), settings, index, sources[index]))
            for index in range(num_shards)
            if index not in kept
        }
        for batch in _batches(documents):
            for number, document in batch:
                sources[number % num_shards].add(document.id, document.text)
            _write([item for item in batch if item[0] % num_shards in writers], writers, num_shards, tokenizer, scorer)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, total)
        if done == 0:
            raise DataError(f"the corpus {dataset!r} has 0 documents; give one with text in it")
        _check_kept(kept, sources)
    tokenizer.save(folder)
    complete_dataset(folder, settings)
    return folder


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
        DataError: a shard was made with other settings.
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
        except DataError:
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
    """Removes a shard that cannot be read, file by file: what we did not write is not ours to delete."""
    try:
        for name in (MANIFEST_FILE, RECORDS_FILE):
            (path / name).unlink(missing_ok=True)
        path.rmdir()
    except OSError as error:
        raise OutputExistsError(
            f"{path} is no shard and holds other files ({error.strerror}); move it away or choose another output folder"
        ) from error


def _check_kept(kept: dict[int, Shard], sources: Sequence[SourceHash]) -> None:
    """Compares the documents of this call with those behind the shards that were kept.

    Raises:
        DataError: they differ.
    """
    for index, shard in kept.items():
        if shard.source_sha256 != sources[index].hexdigest():
            raise DataError(
                f"{shard.folder} was made from other documents ({shard.counts.documents} of them, source SHA-256 "
                f"{shard.source_sha256[:16]}, now {sources[index].hexdigest()[:16]}); choose another output folder, "
                f"dataset or split name, or remove {shard.folder.parent}"
            )


def _batches(documents: Iterable[Document]) -> Iterator[list[_Numbered]]:
    """The documents with their numbers, in lists of bounded size."""
    batch: list[_Numbered] = []
    characters = 0
    for number, document in enumerate(documents):
        batch.append((number, document))
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write(
    batch: Sequence[_Numbered],
    writers: dict[int, ShardWriter],
    num_shards: int,
    tokenizer: Tokenizer,
    scorer: Scorer,
) -> None:
    """Scores and tokenises a batch and hands every document to its shard."""
    texts = [document.text for _, document in batch]
    scored, encoded = scorer.score(texts), tokenizer.encode_batch(texts)
    for (number, document), words, encoding in zip(batch, scored, encoded, strict=True):
        importance = align(words, encoding.offsets, scorer.background)
        writers[number % num_shards].add(document.id, encoding.ids, importance, num_characters=len(document.text))
