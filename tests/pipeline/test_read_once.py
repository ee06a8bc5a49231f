"""A corpus that can only be read as a whole is read once for all shards, also when the job is killed in between."""

import json
import lzma
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.preprocess import parts
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.stories import story_tokenizer
from tests.pipeline.commands import success
from tests.processes import cdllm, started

SHARDS = 4


@pytest.fixture(scope="module")
def lines() -> str:
    texts = [f"text {number} of a fox" if number % 7 else None for number in range(300)]
    return "".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(texts))


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("tokenizer")
    story_tokenizer().save(folder)
    return ["--tokenizer", folder, "--shards", SHARDS, "--workers", 2]


def shards(folder: Path) -> list[bytes]:
    return [(folder / f"shard_{index}" / "documents.parquet").read_bytes() for index in range(SHARDS)]


@pytest.mark.slow
def test_compressed_and_plain_lines_make_the_same_shards(tmp_path, lines, common):
    plain, packed = tmp_path / "toy.jsonl", tmp_path / "toy.jsonl.xz"
    plain.write_text(lines)
    packed.write_bytes(lzma.compress(lines.encode()))
    said = {}
    for path in (plain, packed):
        out = tmp_path / path.suffix
        said[path] = success("preprocess", "random", "--dataset", path, "--out", out, *common).stdout
    assert "once" not in said[plain]
    assert "reading the corpus once for 4 shards" in said[packed]
    folders = [tmp_path / path.suffix / "random" / "toy_train" for path in (plain, packed)]
    assert shards(folders[0]) == shards(folders[1])
    assert [PreprocessedDataset.open(folder).counts.dropped for folder in folders] == [{"null text": 43}] * 2
    assert "dropped 43: null text" in said[packed]
    assert not (folders[1] / "prepared").exists()


@pytest.mark.slow
def test_a_task_of_an_array_leaves_an_index_to_the_others(tmp_path, common):
    plain = tmp_path / "toy.jsonl"
    plain.write_text("".join(json.dumps({"text": f"a fox {n}", "other": "x" * 9000}) + "\n" for n in range(120)))
    os.utime(plain, (10**9, 10**9))
    command = ["preprocess", "random", "--dataset", plain, "--out", tmp_path / "out", *common, "--shards", 40]
    success(*command, "--shard", 7)
    prepared = tmp_path / "out" / "random" / "toy_train" / "prepared"
    (kept,) = prepared.glob("lines_*")
    # Nobody has to read the corpus as a whole any more.
    assert "once" not in success(*command).stdout
    assert PreprocessedDataset.open(prepared.parent).counts.documents == 120
    assert not kept.exists()


def killed_at_the_index(arguments: list[str]) -> None:
    """In a process: the command, that is killed when the index is half-written."""
    save = np.save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    np.save = save_and_die
    cdllm(*arguments)


def test_killed_while_the_index_is_written(tmp_path, common):
    plain = tmp_path / "toy.jsonl"
    plain.write_text("".join(json.dumps({"text": f"a fox {n}", "other": "x" * 9000}) + "\n" for n in range(120)))
    os.utime(plain, (10**9, 10**9))
    command = ["preprocess", "random", "--dataset", plain, "--out", tmp_path / "out", *common]
    with started(killed_at_the_index, [*map(str, command), "--shards", "40"]) as process:
        assert process.wait().returncode == -signal.SIGKILL
    prepared = tmp_path / "out" / "random" / "toy_train" / "prepared"
    (left,) = prepared.glob(".incomplete-lines_*")
    # As if it had been on another machine, where nobody can ask whether it lives.
    left.rename(left.with_name(re.sub("@.*-([0-9]+-)", r"@elsewhere-\1", left.name)))
    # No index is made for so few shards, which would remove what is left of the other one.
    success(*command)
    assert PreprocessedDataset.open(prepared.parent).counts.documents == 120
    assert not prepared.exists()


def reading_slowly(arguments: list[str]) -> None:
    """In a process: the command, that waits after every part it has read."""
    append = parts._append

    def slow_append(*arguments: Any) -> None:
        append(*arguments)
        time.sleep(0.2)

    parts._append, parts.held_bytes = slow_append, lambda _: 10_000
    cdllm(*arguments)


@pytest.mark.slow
def test_killed_while_the_corpus_is_read(tmp_path, common):
    path = tmp_path / "toy.txt"
    path.write_text("".join(f"text {number} of a fox\n\n" for number in range(1_000)))
    arguments = ["preprocess", "random", "--dataset", path, *common, "--out"]
    prepared = tmp_path / "killed" / "random" / "toy_train" / "prepared"
    with started(reading_slowly, [*map(str, arguments), str(tmp_path / "killed")]) as process:
        deadline = time.monotonic() + 60
        while not list(prepared.glob(".incomplete-records_*/*")):
            assert process.poll() is None, process.stderr
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send(signal.SIGKILL)
        process.wait()
    assert list(prepared.glob(".incomplete-records_*"))
    assert not list(prepared.glob("records_*"))
    success(*arguments, tmp_path / "killed")
    assert not prepared.exists()
    unbroken = preprocess_corpus(
        open_corpus(str(path), split="train"),
        split="train",
        out_dir=tmp_path / "unbroken",
        tokenizer=story_tokenizer(),
        scorer=RandomScorer(0),
        num_shards=SHARDS,
    )
    assert shards(prepared.parent) == shards(unbroken)
