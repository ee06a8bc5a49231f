"""Small shards and datasets, written by the code under test from token ids given directly."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.data.preprocessed import complete_dataset, shard_folder
from cascaded_dllm.data.shards import SourceHash, write_shard

MakeSettings = Callable[..., Settings]
Documents = Sequence[tuple[str, Sequence[int], Sequence[float]]]


@pytest.fixture(scope="session")
def make_settings() -> MakeSettings:
    def make(**changes: object) -> Settings:
        fields: dict[str, object] = {
            "dataset": "toy",
            "split": "train",
            "source": {"kind": "by hand"},
            "num_shards": 1,
            "method": "constituency",
            "scorer": {"tagger": "by hand"},
            "background": -100.0,
            "tokenizer": "0123456789abcdef",
            "vocab_size": 50,
            "eos_id": 49,
        }
        return Settings(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_shard(make_settings):
    def make(folder: Path, documents: Documents, index: int = 0, **changes: object) -> Path:
        source = SourceHash()
        with write_shard(folder, make_settings(**changes), index, source) as writer:
            for name, token_ids, importance in documents:
                source.add(name, "text of " + name)
                writer.add(name, token_ids, importance, num_characters=10)
        return folder

    return make


@pytest.fixture(scope="session")
def make_dataset(make_settings, make_shard):
    def make(folder: Path, documents: Documents, num_shards: int = 1, **changes: object) -> Path:
        for index in range(num_shards):
            part = documents[index::num_shards]
            make_shard(shard_folder(folder, index), part, index, num_shards=num_shards, **changes)
        (folder / "tokenizer.json").write_text("{}")
        complete_dataset(folder, make_settings(num_shards=num_shards, **changes))
        return folder

    return make
