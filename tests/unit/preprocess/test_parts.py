"""The records of a corpus laid down in one pass are those that each shard would have read."""

import json
import lzma
import os
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer
from cascaded_dllm.preprocess import parts
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.preprocess.parts import read_part, write_parts
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.text import lines, local
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.local_files import LocalFiles
from cascaded_dllm.text.tokenizer import Tokenizer

TEXTS = ["One", "", None, "na\u00efve \U0001f98a\0\x1b", "x\ud800", *(f"Text {number}" for number in range(30))]


def nothing(_: int) -> None:
    """Nobody is told."""


@pytest.fixture
def corpus(tmp_path):
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    path = tmp_path / "toy.jsonl.xz"
    path.write_bytes(lzma.compress(lines.encode()))
    return open_corpus(str(path), split="train")


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened, each time they are."""
    names = []
    real = lines._open_bytes
    monkeypatch.setattr(lines, "_open_bytes", lambda file: names.append(file.name) or real(file))
    return names


@pytest.fixture
def plan(corpus, tmp_path):
    return make_plan(corpus, tmp_path / "out", 5)


def make_plan(corpus, out, num_shards):
    tokenizer, scorer = Tokenizer.train(["One Text"], 260), TfidfScorer(DocumentFrequencies(1, {}))
    return Plan.make(corpus, split="train", out_dir=out, tokenizer=tokenizer, scorer=scorer, num_shards=num_shards)


def finish(plan):
    encoder = Encoder(Tokenizer.train(["One Text"], 260), TfidfScorer(DocumentFrequencies(1, {})))
    for index in plan.missing():
        plan.write(index, encoder.encode_all)
    return plan.complete(lambda: encoder.tokenizer)


@pytest.mark.parametrize("held", [1, 600, 1 << 24])
@pytest.mark.parametrize("num_parts", [1, 4, 50])
def test_parts_are_those_of_the_corpus(corpus, tmp_path, monkeypatch, held, num_parts):
    monkeypatch.setattr(parts, "held_bytes", lambda _: held)
    told = []
    write_parts(corpus, num_parts, range(num_parts), tmp_path / "parts", told.append)
    for part in range(num_parts):
        assert list(read_part(tmp_path / "parts", part)) == list(corpus.part(part, num_parts))
    assert told[-1] == len(TEXTS)
    assert told == sorted(told)


def test_an_article_stays_together(tmp_path):
    lines = ["", "= One =", "", "Two .", "", "= = Three = =", "", "Four .", "= Five ="]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(line for number in range(7) for line in lines if number or line))
    corpus = open_corpus(str(path), split="train", form="wikitext")
    write_parts(corpus.first(5), 3, [0, 2], tmp_path / "parts", nothing)
    for part in (0, 2):
        found = list(read_part(tmp_path / "parts", part))
        assert found == list(corpus.first(5).part(part, 3))
        assert len(found) > 2


def test_what_was_not_asked_for_is_not_there(corpus, tmp_path):
    assert read_part(tmp_path / "parts", 0) is None
    write_parts(corpus, 3, [1], tmp_path / "parts", nothing)
    assert [read_part(tmp_path / "parts", part) is None for part in range(3)] == [True, False, True]


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damaged_part(corpus, tmp_path, damage):
    write_parts(corpus, 3, [1], tmp_path / "parts", nothing)
    path = tmp_path / "parts" / "1.zst"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size - 1)
    else:
        path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"1\.zst is missing, truncated or was changed; remove .*parts, and the corp"):
        read_part(tmp_path / "parts", 1)


def test_a_pass_that_fails_leaves_nothing(corpus, tmp_path, monkeypatch):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "One"}\n' * 9 + '{"text": 3}\n')
    monkeypatch.setattr(parts, "held_bytes", lambda _: 1)
    with pytest.raises(DataError, match="line 10 has a int"):
        write_parts(open_corpus(str(broken), split="train"), 2, [0, 1], tmp_path / "out" / "parts", nothing)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(OutputError, match=r"parts cannot be written \(Not a directory\)"):
        write_parts(corpus, 2, [0, 1], broken / "parts", nothing)


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "held_bytes", lambda _: 100_000)
    path = tmp_path / "a.txt"
    path.write_text(("x" * 10_000 + "\n") * 800)
    corpus = open_corpus(str(path), split="train", unit="line")
    tracemalloc.start()
    write_parts(corpus, 4, range(4), tmp_path / "parts", nothing)
    assert sum(1 for part in range(4) for _ in read_part(tmp_path / "parts", part)) == 800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # Of 8 MB; 1 MB at a time is hashed.


def test_shards_are_the_same_from_one_pass(plan, corpus, tmp_path, opened):
    expected = finish(plan)
    assert len(opened) >= 5
    opened.clear()
    once = make_plan(corpus, tmp_path / "once", 5)
    missing = once.missing()
    assert once.to_be_read_once(missing)
    once.read_once(missing, nothing)
    assert not once.to_be_read_once(missing)
    opened.clear()
    dataset = finish(once)
    assert opened == []
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.counts == expected.counts
    assert dataset.counts.dropped == {"empty": 1, "lone surrogate": 1, "null text": 1}
    assert [shard.source_sha256 for shard in dataset.shards] == [shard.source_sha256 for shard in expected.shards]
    # What was laid down is gone with the last shard.
    assert sorted(path.name for path in once.folder.iterdir() if path.is_dir()) == [f"shard_{i}" for i in range(5)]


def test_the_number_of_passes_does_not_depend_on_that_of_shards(corpus, tmp_path, opened):
    tokenizer, scorer = Tokenizer.train(["One Text"], 260), TfidfScorer(DocumentFrequencies(1, {}))
    passes = []
    for num_shards in (3, 30):
        opened.clear()
        out = tmp_path / str(num_shards)
        preprocess_corpus(corpus, split="x", out_dir=out, tokenizer=tokenizer, scorer=scorer, num_shards=num_shards)
        passes.append(len(opened))
    # One pass, and a look at the first line.
    assert passes == [2, 2]


def test_what_is_missing_later_is_read_from_the_corpus(plan, opened):
    plan.read_once([0, 1, 2], nothing)
    finish(plan)
    assert len(opened) > 2
    assert PreprocessedDataset.open(plan.folder).counts.records == len(TEXTS)


def test_what_was_laid_down_is_kept_for_the_next_run(plan, opened):
    """A job that was killed after the pass goes on without another one."""
    plan.read_once(plan.missing(), nothing)
    encoder = Encoder(Tokenizer.train(["One Text"], 260), TfidfScorer(DocumentFrequencies(1, {})))
    plan.write(3, encoder.encode_all)
    opened.clear()
    assert not plan.to_be_read_once(plan.missing())
    finish(plan)
    assert opened == []


def test_what_is_held_grows_with_the_parts_up_to_a_bound():
    mebibyte = 1 << 20
    assert [parts.held_bytes(number) // mebibyte for number in (1, 256, 1_000, 10**5)] == [16, 16, 62, 256]


def test_many_parts_take_little_more_room_than_few(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(random.Random(number).randbytes(100).hex() + "\n" for number in range(4_000)))
    corpus = open_corpus(str(path), split="train", unit="line")
    sizes = []
    for number in (4, 400):
        folder = tmp_path / str(number)
        write_parts(corpus, number, range(number), folder, nothing)
        sizes.append(sum(file.stat().st_size for file in folder.glob("*.zst")))
        assert sum(1 for part in range(number) for _ in read_part(folder, part)) == 4_000
    # Blocks with a description of their own took twice as much.
    assert sizes[1] < 1.2 * sizes[0]


def test_records_of_an_older_format_are_not_used(plan):
    plan.read_once([0, 1, 2], nothing)
    (found,) = (plan.folder / "prepared").glob("records_*")
    found.rename(found.with_name("records_0123456789abcdef"))
    assert plan.to_be_read_once(plan.missing())
    finish(plan)
    assert not (plan.folder / "prepared").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_many_shards_of_any_file_take_one_pass(tmp_path, suffix):
    path, number = tmp_path / f"a{suffix}", 33
    texts = [f"Text {row}" if row % 9 else None for row in range(70)]
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=20)
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = open_corpus(str(path), split="train")
    expected = finish(make_plan(corpus, tmp_path / "each", number))
    once = make_plan(corpus, tmp_path / "once", number)
    assert once.to_be_read_once(once.missing())
    assert not once.to_be_read_once(once.missing()[:9])
    once.read_once(once.missing(), nothing)
    found = finish(once)
    assert found.fingerprint == expected.fingerprint
    assert [shard.source_sha256 for shard in found.shards] == [shard.source_sha256 for shard in expected.shards]


def test_only_where_it_saves_work(tmp_path, plan):
    assert not plan.to_be_read_once(plan.missing()[:2])
    for name, unit, least in [
        ("a.txt", "paragraph", 3),
        ("a.txt", "line", 3),
        ("a.txt", "file", None),
        ("a.txt.gz", "file", None),
        ("a.parquet", "paragraph", 10),
        ("a.jsonl", "paragraph", 32),
        ("a.jsonl.gz", "paragraph", 3),
    ]:
        (tmp_path / name).write_bytes(b"{}")
        assert local.read_once_from(tmp_path / name, unit) == least, (name, unit)
    (tmp_path / "mixed").mkdir()
    for name, least in (("a.jsonl", 32), ("b.jsonl.gz", 3), ("c.jsonl", 3)):
        (tmp_path / "mixed" / name).write_bytes(b"{}")
        assert LocalFiles(tmp_path / "mixed").read_once_from() == least
    assert open_corpus("stories", split="valid").read_once_from() is None
