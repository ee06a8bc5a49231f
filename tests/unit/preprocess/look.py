"""Datasets to look at, of documents with importance by hand and a tokenizer whose tokens are bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.data import shards
from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.data.preprocessed import complete_dataset, shard_folder
from cascaded_dllm.data.shards import SourceHash, write_shard
from cascaded_dllm.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["x"], 257)


def write_dataset(
    folder: Path,
    texts: Sequence[str],
    *,
    method: str = "constituency",
    least: float = -1.2,
    num_shards: int = 1,
    group_tokens: int = 1 << 20,
) -> Path:
    """A dataset whose documents are called d0, d1, ...; a token's importance is drawn."""
    values = [1.0, 2.0, 3.0, 7.0, -100.0] if method == "constituency" else [least, -0.25, 0.0, 0.5, 1.0, 1.1]
    settings = Settings(
        dataset="look", split="train", source={"kind": "by hand", "files": ["a", "b"], "form": None},
        num_shards=num_shards, method=method, scorer={"tagger": "by hand"}, background=float(values[-1 if method ==
        "constituency" else 0]), tokenizer=TOKENIZER.fingerprint, vocab_size=TOKENIZER.vocab_size,
        eos_id=TOKENIZER.eos_id,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_TOKENS", group_tokens)
        for index in range(num_shards):
            with write_shard(shard_folder(folder, index), settings, index, SourceHash()) as writer:
                for number in range(index, len(texts), num_shards):
                    ids = TOKENIZER.encode(texts[number]).ids
                    writer.add(
                        f"d{number}",
                        ids,
                        draw.choice(values, len(ids)).astype(np.float32),
                        num_characters=len(texts[number]),
                    )
    TOKENIZER.save(folder)
    complete_dataset(folder, settings)
    return folder
