"""A preprocessed dataset: a folder with a tokenizer, a manifest and all shards."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, final

from cascaded_dllm.atomic import file_sha256, remove_abandoned, write_json
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.data.manifest import Counts, DamagedError, Settings
from cascaded_dllm.data.shards import Record, Shard
from cascaded_dllm.errors import DataError
from cascaded_dllm.file_names import TOKENIZER_FILE

KIND = "preprocessed dataset"


def shard_folder(folder: Path, index: int) -> Path:
    """Where shard `index` of the dataset in `folder` lies."""
    return folder / f"shard_{index}"


@final
@dataclass(frozen=True, slots=True)
class PreprocessedDataset:
    """A complete dataset on disk, whose shards belong together.

    Attributes:
        folder: its folder; its tokenizer is `folder`/tokenizer.json.
        settings: with which it was made.
        counts: sums over the shards.
        fingerprint: of the settings and of the content of every shard.
        shards: in order.
    """

    folder: Path
    settings: Settings
    counts: Counts
    fingerprint: str
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, folder: Path) -> "PreprocessedDataset":
        """The dataset in `folder`.

        Raises:
            DataError: it is incomplete, or a shard or the tokenizer is missing or belongs to another dataset.
        """
        settings, fingerprint = read_identity(folder)
        shards = tuple(Shard.open(shard_folder(folder, index)) for index in range(settings.num_shards))
        for shard in shards:
            if differences := shard.settings.differences(settings):
                raise DataError(
                    f"{shard.folder} does not belong to {folder}: it was made with {differences}; put the right shard "
                    "back, or remove the dataset and preprocess again"
                )
        dataset = _assembled(folder, settings, shards)
        if dataset.fingerprint != fingerprint:
            raise DataError(
                f"the shards of {folder} have fingerprint {dataset.fingerprint}, its manifest says {fingerprint}: a "
                "shard was exchanged; preprocess again to bring both together"
            )
        return dataset

    @classmethod
    def open_unfinished(cls, folder: Path) -> "PreprocessedDataset":
        """The complete shards of a dataset that may not be finished, as a dataset of these shards.

        Raises:
            DamagedError: there is no complete shard.
            DataError: the shards do not belong together.
        """
        shards = tuple(shards_of(folder).values())
        if not shards:
            raise DamagedError(
                f"{folder} holds 0 shards; name the folder that preprocessing printed, or wait until a shard is there"
            )
        for shard in shards:
            if differences := shard.settings.differences(shards[0].settings):
                raise DataError(
                    f"{shard.folder} does not belong to {shards[0].folder}: it was made with {differences}; remove the "
                    "one that is not wanted, and preprocess again"
                )
        return _assembled(folder, shards[0].settings, shards)

    @property
    def is_whole(self) -> bool:
        """Whether it has all shards; always true after `open`."""
        return len(self.shards) == self.settings.num_shards

    def records(self) -> Iterator[Record]:
        """All records, shard after shard.

        Raises:
            DataError: a shard is damaged.
        """
        return itertools.chain.from_iterable(shard.records() for shard in self.shards)


def shards_of(folder: Path) -> dict[int, Shard]:
    """Number -> shard, in order, for all complete shards in a folder; other and damaged folders are skipped.

    Raises:
        DataError: a manifest cannot be read, is incomplete, or is of another kind or format.
    """
    shards = {}
    numbers = (path.name.removeprefix("shard_") for path in folder.glob("shard_*"))
    for index in sorted(int(number) for number in numbers if number.isdecimal()):
        # The task that makes a damaged shard again will remove it.
        with contextlib.suppress(DamagedError):
            shards[index] = Shard.open(shard_folder(folder, index))
    return shards


class Identity(NamedTuple):
    """The identity of a dataset, known without reading its shards; see `PreprocessedDataset`."""

    settings: Settings
    fingerprint: str


def read_identity(folder: Path) -> Identity:
    """The settings and the fingerprint of the dataset in `folder`, in the same time for any number of shards.

    Raises:
        DataError: it is incomplete, or its tokenizer is missing or belongs to another dataset.
    """
    manifest = manifests.read_manifest(folder, KIND)
    identity = Identity(
        manifests.parse_settings(manifest, folder), manifests.parse_text(manifest, "fingerprint", folder)
    )
    _check_tokenizer(folder, manifests.parse_text(manifest, "tokenizer_sha256", folder))
    return identity


def complete_dataset(folder: Path, settings: Settings) -> PreprocessedDataset:
    """Writes the manifest that makes the finished shards and the tokenizer in `folder` a dataset.

    It is written last, so a folder with a manifest is complete. Before that, the remains of killed writers are removed,
    also those of other machines, although this process cannot know whether their writers live: no shard is left to
    write.
    """
    shards = tuple(Shard.open(shard_folder(folder, index)) for index in range(settings.num_shards))
    dataset = _assembled(folder, settings, shards)
    remove_abandoned(folder, complete={shard.folder.name for shard in shards})
    write_json(
        folder / manifests.FILE_NAME,
        manifests.header(KIND)
        | {
            "fingerprint": dataset.fingerprint,
            "settings": asdict(settings),
            "counts": asdict(dataset.counts),
            "tokenizer_sha256": file_sha256(folder / TOKENIZER_FILE),
        },
    )
    return dataset


def _assembled(folder: Path, settings: Settings, shards: tuple[Shard, ...]) -> PreprocessedDataset:
    counts = sum((shard.counts for shard in shards), Counts())
    content = {"settings": asdict(settings), "shards": [shard.records_sha256 for shard in shards]}
    return PreprocessedDataset(folder, settings, counts, manifests.fingerprint(content), shards)


def _check_tokenizer(folder: Path, expected: str) -> None:
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise DataError(f"{path} is missing; put the tokenizer of the dataset back, or preprocess again")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise manifests.unreadable(path, error) from error
    if found != expected:
        raise DataError(
            f"{path} has SHA-256 {found[:16]}, the dataset was made with {expected[:16]}; put the tokenizer of the "
            "dataset back, or preprocess again"
        )
