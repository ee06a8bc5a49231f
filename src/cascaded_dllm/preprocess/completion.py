"""What a preprocessed folder holds for all of its shards: the list of the corpus' files, and in the end its manifest.

Shards name the files by their number and a hash, since a list of thousands would lie in each. The list itself is in the
manifest of the dataset, and until that is there in a file of its own.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import write_json
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import Settings, fingerprint
from cascaded_dllm.data.preprocessed import PreprocessedDataset, complete_dataset
from cascaded_dllm.errors import DataError
from cascaded_dllm.text.file_hashes import HashedFile, remember
from cascaded_dllm.text.tokenizer import Tokenizer

PREPARED_FOLDER = "prepared"
"""What is made from a corpus before its first shard, in the folder of the dataset."""


def completed(folder: Path, settings: Settings) -> PreprocessedDataset | None:
    """The dataset that an earlier run or another task has completed, whose manifest says with what it was made."""
    try:
        dataset = PreprocessedDataset.open(folder)
    except DataError:
        # Something is missing, or was made again with other bytes: what is there now is what is to be described.
        return None
    return dataset if dataset.settings == settings else None


def complete_now(folder: Path, settings: Settings, tokenizer: Tokenizer) -> PreprocessedDataset:
    """Makes the shards that are there a dataset, with its tokenizer.

    Raises:
        DataError: the tokenizer is not that of the shards any more.
    """
    if tokenizer.fingerprint != settings.tokenizer:
        raise DataError(
            f"the tokenizer has the fingerprint {tokenizer.fingerprint}, and the shards in {folder} were made "
            f"with {settings.tokenizer}; put that one back and run the same command again"
        )
    tokenizer.save(folder)
    # Where only the tokenizer was missing, the manifest still holds.
    return completed(folder, settings) or complete_dataset(folder, settings)


def keep_source(folder: Path, settings: Settings, hashes: Sequence[HashedFile]) -> None:
    """Writes down where the documents of a dataset come from, where its shards do not say all of it.

    Args:
        folder: of the dataset.
        settings: of the dataset.
        hashes: what is known of the corpus' files, for tasks that begin later.

    Raises:
        OutputExistsError: the folder cannot be written.
    """
    path = _source_file(folder, settings)
    if settings.brief() != settings and (not path.is_file() or not set(hashes) <= set(_kept_hashes(path))):
        write_json(path, {"source": settings.source, "hashes": hashes})


def remember_hashes(folder: Path) -> None:
    """Takes from the folder of a dataset what other tasks know of the files of its corpus."""
    for path in _source_files(folder):
        remember(_kept_hashes(path))


def _kept_hashes(path: Path) -> list[HashedFile]:
    """What `keep_source` has written about the files of a corpus; nothing where that cannot be read."""
    # Without it files are read again, which is as right.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return [HashedFile(*file) for file in json.loads(path.read_text(encoding="utf-8"))["hashes"]]
    return []


def forget_source(folder: Path, settings: Settings) -> None:
    """Removes what `keep_source` has written, once the manifest of the dataset says it."""
    # Another task may be removing it as well.
    with contextlib.suppress(OSError):
        _source_file(folder, settings).unlink()


def with_files(folder: Path, settings: Settings) -> Settings:
    """The settings of a shard with the list of the corpus' files, where that lies in the folder of the dataset."""
    for source in _sources(folder):
        whole = replace(settings, source=source)
        if whole.brief() == settings:
            return whole
    return settings


def _source_file(folder: Path, settings: Settings) -> Path:
    return folder / PREPARED_FOLDER / f"source_{fingerprint(settings.source)}.json"


def _source_files(folder: Path) -> list[Path]:
    return sorted((folder / PREPARED_FOLDER).glob("source_*.json"))


def _sources(folder: Path) -> Iterator[dict[str, Any]]:
    """All that the folder says about where documents come from."""
    for path in (folder / MANIFEST_FILE, *_source_files(folder)):
        # It is for a message only, which is shorter without it.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            value = json.loads(path.read_text(encoding="utf-8"))
            source = value["settings"]["source"] if path.name == MANIFEST_FILE else value["source"]
            if isinstance(source, dict):
                yield source
