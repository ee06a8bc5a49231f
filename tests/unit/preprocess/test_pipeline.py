import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import ConfigError, DataError, OutputExistsError
from cascaded_dllm.importance.base import Word
from cascaded_dllm.preprocess import pipeline
from cascaded_dllm.preprocess.pipeline import preprocess
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer

TEXTS = [
    "A small fox found a key.",
    "",
    "The key opened nothing; na\u00efve fox! \U0001f98a",
    "Then it rained.\n\nAnd rained.",
    "",
    "cafe\u0301",
    "The end.",
]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]


class LengthScorer:
    """A word is worth its length."""

    method = "tfidf"
    background = -1.0

    def __init__(self, note: str = "first") -> None:
        self.note = note
        self.scored: list[str] = []

    def score(self, texts):
        self.scored += texts
        return [[Word(m.start(), m.end(), float(len(m.group()))) for m in re.finditer(r"\w+", text)] for text in texts]

    def describe(self):
        return {"note": self.note}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 280)


@pytest.fixture
def run(tmp_path, tokenizer):
    def call(documents=DOCUMENTS, **changes):
        arguments = {"out_dir": tmp_path, "dataset": "toy", "split": "train", "tokenizer": tokenizer}
        return preprocess(documents, **({**arguments, "scorer": LengthScorer()} | changes))

    return call


def records_by_id(folder):
    return {
        record.id: (record.token_ids.tolist(), record.importance.tolist())
        for record in PreprocessedDataset.open(folder).records()
    }


def test_every_token_carries_the_importance_of_its_word(run, tokenizer, tmp_path):
    folder = run()
    assert folder == tmp_path / "tfidf" / "toy_train"
    records = records_by_id(folder)
    assert records.keys() == {"d0", "d2", "d3", "d5", "d6"}
    for document in DOCUMENTS:
        if not document.text:
            continue
        token_ids, importance = records[document.id]
        assert tokenizer.decode(token_ids) == document.text
        words = {i: len(m.group()) for m in re.finditer(r"\w+", document.text) for i in range(m.start(), m.end())}
        for (start, end), value in zip(tokenizer.encode(document.text).offsets, importance, strict=True):
            inside = {words[i] for i in range(start, end) if i in words}
            assert value in (inside or {-1.0})


def test_counts_and_settings_are_in_the_manifest(run, tokenizer):
    manifest = json.loads((run() / "manifest.json").read_text())
    num_characters = sum(map(len, TEXTS))
    num_tokens = sum(len(tokenizer.encode(text).ids) for text in TEXTS)
    assert manifest["counts"] == {
        "documents": 5,
        "tokens": num_tokens,
        "characters": num_characters,
        "dropped": {"empty": 2},
    }
    assert manifest["settings"] == {
        "dataset": "toy",
        "split": "train",
        "num_shards": 1,
        "method": "tfidf",
        "scorer": {"note": "first"},
        "background": -1.0,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
    }


def test_tokenizer_is_beside_the_shards(run, tokenizer):
    assert Tokenizer.load(run()).fingerprint == tokenizer.fingerprint


def test_documents_are_dealt_to_shards(run):
    dataset = PreprocessedDataset.open(run(num_shards=3))
    assert [[record.id for record in shard.records()] for shard in dataset.shards] == [
        ["d0", "d3", "d6"],
        [],
        ["d2", "d5"],
    ]
    assert [shard.counts.dropped for shard in dataset.shards] == [{"empty": 0}, {"empty": 2}, {"empty": 0}]
    assert dataset.counts.dropped == {"empty": 2}


@pytest.mark.parametrize(("documents", "characters"), [(1, 10**6), (2, 10**6), (3, 10**6), (256, 1), (256, 30)])
def test_batches_change_nothing(run, tmp_path, monkeypatch, documents, characters):
    expected = PreprocessedDataset.open(run(num_shards=2)).fingerprint
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", documents)
    monkeypatch.setattr(pipeline, "BATCH_CHARACTERS", characters)
    folder = run(num_shards=2, out_dir=tmp_path / "again")
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_documents_may_share_an_id(run):
    dataset = PreprocessedDataset.open(run([Document("same", "one"), Document("same", "two")]))
    assert [record.id for record in dataset.records()] == ["same", "same"]


def test_progress_knows_the_total_of_a_list_only(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 3)
    told = []
    run(on_progress=lambda done, total: told.append((done, total)))
    run(iter(DOCUMENTS), out_dir=tmp_path / "again", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7), (3, None), (6, None), (7, None)]


def test_complete_dataset_is_kept_and_not_scored_again(run):
    folder = run(num_shards=2)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard_*/*")}
    scorer = LengthScorer()
    assert run(num_shards=2, scorer=scorer) == folder
    assert scorer.scored == []
    assert {path: path.stat().st_mtime_ns for path in folder.glob("shard_*/*")} == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest", "broken manifest"])
def test_only_damaged_shards_are_written_again(run, damage):
    folder = run(num_shards=3)
    expected = PreprocessedDataset.open(folder).fingerprint
    shard = folder / "shard_2"
    if damage == "missing":
        shutil.rmtree(shard)
    elif damage == "truncated":
        os.truncate(shard / "documents.parquet", 9)
    elif damage == "no manifest":
        (shard / "manifest.json").unlink()
    else:
        (shard / "manifest.json").write_text("{")
    scorer = LengthScorer()
    run(num_shards=3, scorer=scorer)
    assert scorer.scored == TEXTS[2::3]
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_folder_of_other_settings(run):
    run()
    message = r"shard_0 was made with other settings \(scorer: \{'note': 'first'\}, not \{'note': 'second'\}\); choose"
    with pytest.raises(DataError, match=message):
        run(scorer=LengthScorer("second"))
    with pytest.raises(DataError, match=r"num_shards: 1, not 2"):
        run(num_shards=2)


def test_folder_of_another_tokenizer(run):
    run()
    with pytest.raises(DataError, match=r"tokenizer: '\w{16}', not '\w{16}'"):
        run(tokenizer=Tokenizer.train(TEXTS, 260))


def test_shard_under_another_number(run):
    folder = run(num_shards=2)
    shutil.rmtree(folder / "shard_0")
    (folder / "shard_1").rename(folder / "shard_0")
    with pytest.raises(DataError, match=r"other settings \(another shard's number\)"):
        run(num_shards=2)


@pytest.mark.parametrize("documents", [DOCUMENTS[:-1], [*DOCUMENTS, Document("more", "More.")], DOCUMENTS[::-1]])
def test_folder_of_other_documents(run, documents):
    folder = run()
    expected = PreprocessedDataset.open(folder).fingerprint
    with pytest.raises(DataError, match=r"shard_0 was made from other documents \(5 of them, source SHA-256"):
        run(documents)
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_foreign_folder_is_left_alone(run, tmp_path):
    foreign = tmp_path / "tfidf" / "toy_train" / "shard_0"
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="shard_0 is no shard and holds other files"):
        run()
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_other_names_are_no_shards(run, tmp_path):
    (tmp_path / "tfidf" / "toy_train" / "shard_notes").mkdir(parents=True)
    assert PreprocessedDataset.open(run()).counts.documents == 5


def test_output_below_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="cannot be written"):
        run(out_dir=tmp_path / "file")


def test_corpus_without_documents(run, tmp_path):
    with pytest.raises(DataError, match="the corpus 'toy' has 0 documents"):
        run([])
    assert list((tmp_path / "tfidf" / "toy_train").iterdir()) == []


def test_corpus_of_empty_documents_has_no_tokens(run):
    dataset = PreprocessedDataset.open(run([Document("a", ""), Document("b", "")]))
    assert dataset.counts == Counts(0, 0, 0, {"empty": 2})


def test_text_that_is_none(run, tmp_path):
    with pytest.raises(DataError, match="document 'bad' holds the lone surrogate"):
        run([*DOCUMENTS, Document("bad", "\udc80")])
    assert list((tmp_path / "tfidf" / "toy_train").iterdir()) == []


def test_exception_in_the_corpus_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 2)

    def broken():
        yield from DOCUMENTS
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(broken(), num_shards=2)
    assert list((tmp_path / "tfidf" / "toy_train").iterdir()) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer
    from cascaded_dllm.preprocess import pipeline
    from cascaded_dllm.text.document import Document
    from cascaded_dllm.text.tokenizer import Tokenizer
    pipeline.BATCH_DOCUMENTS = 1

    def documents():
        for number in range(10):
            yield Document(str(number), "a b c")
        if len(sys.argv) > 2:
            os.kill(os.getpid(), signal.SIGKILL)

    pipeline.preprocess(
        documents(), out_dir=Path(sys.argv[1]), dataset="toy", split="train", num_shards=2,
        tokenizer=Tokenizer.train(["a b c"], 257), scorer=TfidfScorer(DocumentFrequencies(1, {})),
    )
"""


def test_killed_run_leaves_no_dataset_and_the_next_one_completes(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    assert subprocess.run([*command, "kill"], check=False).returncode == -9
    folder = tmp_path / "tfidf" / "toy_train"
    assert all(path.name.startswith(".incomplete-") for path in folder.iterdir())
    with pytest.raises(DataError, match="is no complete preprocessed dataset"):
        PreprocessedDataset.open(folder)
    subprocess.run(command, check=True)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "shard_0", "shard_1", "tokenizer.json"]
    assert PreprocessedDataset.open(folder).counts.documents == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "a/b"}, "dataset name 'a/b' cannot be part of a folder name; use letters"),
        ({"dataset": ""}, "dataset name '' cannot"),
        ({"split": ".."}, r"split name '\.\.' cannot"),
        ({"num_shards": 0}, "num_shards 0 is below 1"),
    ],
)
def test_bad_settings(run, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_scorer_without_a_selection_rule(run):
    scorer = LengthScorer()
    scorer.method = "magic"
    with pytest.raises(ConfigError, match="the scorer's method 'magic' has no selection rule; it must be one of"):
        run(scorer=scorer)


def test_importance_is_single_precision_on_disk(run):
    record = next(PreprocessedDataset.open(run()).records())
    assert record.importance.dtype == np.float32
