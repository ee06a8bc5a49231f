"""What a preprocessed folder holds for all of its shards: the list of the corpus' files and, once complete, a manifest.

A shard records only the number of the corpus' files and a hash of their list, so that a list of thousands is not
repeated in each. The list itself is in the manifest of the dataset and, until that exists, in a file of its own.
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
"""Subfolder of the dataset for what is made from a corpus before its first shard."""


def completed(folder: Path, settings: Settings) -> PreprocessedDataset | None:
    """The complete dataset in `folder`, if an earlier run or another task has made one with these settings; or None."""
    try:
        dataset = PreprocessedDataset.open(folder)
    except DataError:
        # A file is missing, or was made again with other bytes: the manifest must describe the present ones.
        return None
    return dataset if dataset.settings == settings else None


def complete_now(folder: Path, settings: Settings, tokenizer: Tokenizer) -> PreprocessedDataset:
    """Completes the dataset: saves the tokenizer and writes the manifest over all shards.

    Raises:
        DataError: the tokenizer is no longer that of the shards.
    """
    if tokenizer.fingerprint != settings.tokenizer:
        raise DataError(
            f"the tokenizer has the fingerprint {tokenizer.fingerprint}, and the shards in {folder} were made "
            f"with {settings.tokenizer}; put that one back and run the same command again"
        )
    tokenizer.save(folder)
    # If only the tokenizer was missing, the manifest is still valid.
    return completed(folder, settings) or complete_dataset(folder, settings)


def keep_source(folder: Path, settings: Settings, hashes: Sequence[HashedFile]) -> None:
    """Writes the source of a dataset, with hashes of its files, to its folder, if the shards only hold it in brief.

    Args:
        folder: of the dataset.
        settings: of the dataset.
        hashes: of the corpus' files, for tasks that start later.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = _source_file(folder, settings)
    if settings.brief() != settings and (not path.is_file() or not set(hashes) <= set(_kept_hashes(path))):
        write_json(path, {"source": settings.source, "hashes": hashes})


def remember_hashes(folder: Path) -> None:
    """Takes over the hashes of corpus files that other tasks have written to the folder of the dataset."""
    for path in _source_files(folder):
        remember(_kept_hashes(path))


def _kept_hashes(path: Path) -> list[HashedFile]:
    """The hashes that `keep_source` has written; none if they cannot be read."""
    # Without them, the files are hashed again, with the same result.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return [HashedFile(*file) for file in json.loads(path.read_text(encoding="utf-8"))["hashes"]]
    return []


def forget_source(folder: Path, settings: Settings) -> None:
    """Removes the file that `keep_source` has written; called once the manifest contains the source."""
    # Another task may remove it at the same time.
    with contextlib.suppress(OSError):
        _source_file(folder, settings).unlink()


def with_files(folder: Path, settings: Settings) -> Settings:
    """The settings of a shard with the full list of the corpus' files, if the folder of the dataset has it."""
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
    """All descriptions of a source in the folder of the dataset."""
    for path in (folder / MANIFEST_FILE, *_source_files(folder)):
        # This only serves a message, which is shorter without the list.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            value = json.loads(path.read_text(encoding="utf-8"))
            source = value["settings"]["source"] if path.name == MANIFEST_FILE else value["source"]
            if isinstance(source, dict):
                yield source
