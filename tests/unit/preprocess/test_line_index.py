"""Shards of a corpus whose lines are indexed are those of one that is read through, for less reading."""

import json
import os

import numpy as np
import pytest

from cascaded_dllm.atomic import file_sha256
from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.preprocess.progress import known_records
from cascaded_dllm.text import file_hashes, line_index, lines
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.tokenizer import Tokenizer

LONG_AGO = 10**18
SHARDS = 40
TOKENIZER = Tokenizer.train(["One Text of many words"], 260)
ENCODER = Encoder(TOKENIZER, RandomScorer(0))


@pytest.fixture(autouse=True)
def _knows_nothing(monkeypatch):
    monkeypatch.setattr(file_hashes, "_known", {})
    monkeypatch.setattr(file_hashes, "_indexes", {})
    monkeypatch.setattr(line_index, "_checked", {})


@pytest.fixture
def path(tmp_path):
    """A corpus of 400 documents in lines of 5,000 characters."""
    file = tmp_path / "toy.jsonl"
    write(file, "".join(json.dumps({"other": "x" * 5000, "text": f"Text {number} "}) + "\n" for number in range(400)))
    return file


@pytest.fixture
def bytes_read(monkeypatch):
    """The bytes read of corpora, call by call."""
    numbers, real = [], lines._open_bytes

    def opened(file):
        stream = real(file)
        numbers.append(_Counted(stream.detach()))
        return numbers[-1]

    monkeypatch.setattr(lines, "_open_bytes", opened)
    return lambda: sum(stream.number for stream in numbers)


class _Counted(lines.BufferedReader):
    def __init__(self, raw):
        super().__init__(raw, 8192)
        self.number = 0

    def __next__(self):
        content = super().__next__()
        self.number += len(content)
        return content


def write(file, text):
    file.write_text(text)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))


def make_plan(path, out, num_shards=SHARDS, **options):
    corpus = open_corpus(str(path), split="train", **options)
    return Plan.make(
        corpus, split="train", out_dir=out, tokenizer=TOKENIZER, scorer=RandomScorer(0), num_shards=num_shards
    )


def finish(plan):
    for index in plan.missing():
        plan.write(index, ENCODER.encode_all)
    return plan.complete(lambda: TOKENIZER)


def content(dataset):
    return {
        str(file.relative_to(dataset.folder)): file.read_bytes() for file in dataset.folder.rglob("*") if file.is_file()
    }


def indexes(plan):
    return list(plan.folder.glob("prepared/lines_*"))


@pytest.mark.slow
def test_shards_are_the_same_for_less_reading(path, tmp_path, bytes_read):
    through = finish(make_plan(path, tmp_path / "through"))
    all_read = bytes_read()
    assert all_read > SHARDS * path.stat().st_size
    plan = make_plan(path, tmp_path / "indexed")
    assert plan.to_be_read_once(plan.missing())
    file_hashes._known.clear()
    plan = make_plan(path, tmp_path / "indexed")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    assert sum(file.stat().st_size for file in folder.iterdir()) < path.stat().st_size / 200
    assert not plan.to_be_read_once(plan.missing())
    assert known_records(plan.corpus) == 400
    dataset = finish(plan)
    assert content(dataset) == content(through)
    # Three lines at most for every record, and the head for every shard.
    assert bytes_read() - all_read < 5 * path.stat().st_size
    assert not (plan.folder / "prepared").exists()


def test_other_processes_find_the_index(path, tmp_path, bytes_read):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    plan.write(3, ENCODER.encode_all)
    file_hashes._known.clear()
    file_hashes._indexes.clear()
    # It takes the hash from its plan.
    before = bytes_read()
    plan.write(4, ENCODER.encode_all)
    assert bytes_read() - before < path.stat().st_size / 10


def test_an_index_is_checked_once_by_every_process(path, tmp_path, monkeypatch):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    looks, real = [], line_index.file_sha256
    monkeypatch.setattr(line_index, "file_sha256", lambda path: looks.append(path) or real(path))
    assert not plan.to_be_read_once(plan.missing())
    assert known_records(plan.corpus) == 400
    plan.write(3, ENCODER.encode_all)
    assert looks == [folder / "places.npy"]
    # Another manifest is looked at again, and none is remembered where there is none.
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(plan.hashes[0].sha256, "0" * 64))
    assert plan.to_be_read_once(plan.missing())
    manifest.write_text(text)
    assert not plan.to_be_read_once(plan.missing())
    manifest.unlink()
    assert plan.to_be_read_once(plan.missing())
    assert line_index._checked == {}


@pytest.mark.parametrize(
    "slices", [[], None, {"file": [5, 5]}, {"file": [0, 10**6]}, {"file": [3]}, {"file": "ab"}, {}]
)
@pytest.mark.parametrize("has_sum", [True, False])
def test_a_manifest_of_another_form_is_not_used(path, tmp_path, slices, has_sum):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    if slices:
        slices = {plan.hashes[0].sha256: slices["file"]}
    sha256 = line_index._checksum(folder, slices) if has_sum else file_sha256(folder / "places.npy")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "sha256": sha256, "slices": slices}))
    expected = list(open_corpus(str(path), split="train").part(1, SHARDS))
    assert list(plan.corpus.part(1, SHARDS)) == expected
    assert plan.to_be_read_once(plan.missing())


def test_slices_belong_to_what_is_checked(path, tmp_path):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    manifest = json.loads((folder / "manifest.json").read_text())
    ((sha256, (start, end)),) = manifest["slices"].items()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"slices": {sha256: [start + 1, end]}}))
    assert plan.to_be_read_once(plan.missing())


@pytest.mark.parametrize("places", [np.zeros((3, 4), np.uint64), np.zeros((2, 4)), np.zeros(4, np.uint64)])
def test_places_of_another_form_are_not_used(path, tmp_path, places):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    np.save(folder / "places.npy", places)
    slices = {plan.hashes[0].sha256: [0, 4]}
    manifest = {"format": 1, "sha256": line_index._checksum(folder, slices), "slices": slices}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert line_index.kept_indexes(folder) == {}


def test_the_middle_of_a_line_is_no_place(path, tmp_path):
    """A file that was changed behind its time of change, or an index that was made by something else."""
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    status = path.stat()
    with path.open("r+b") as stream:
        stream.seek(status.st_size // 2)
        stream.write(b"y" * 50_000)
    os.utime(path, ns=(LONG_AGO, status.st_mtime_ns))
    with pytest.raises(
        DataError, match=r"toy\.jsonl has changed since it was hashed: no line of it begins at byte 1,0"
    ):
        list(plan.corpus.part(0, 7))


@pytest.mark.parametrize("num_shards", [2, SHARDS])
def test_lines_are_in_memory_until_they_are_kept(path, tmp_path, num_shards):
    plan = make_plan(path, tmp_path / "out", num_shards)
    assert [index.num_lines for index in file_hashes._indexes.values()] == [400]
    plan.keep_indexes()
    assert file_hashes._indexes == {}
    write(tmp_path / "articles.txt", " = Title = \n\n Text .\n" * 100)
    make_plan(tmp_path / "articles.txt", tmp_path / "out", num_shards, form="wikitext")
    assert file_hashes._indexes == {}


@pytest.mark.parametrize("damage", ["places", "shorter", "format", "not json", "of another file"])
def test_an_index_that_does_not_fit_is_not_used(path, tmp_path, bytes_read, damage):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    (folder,) = indexes(plan)
    places, manifest = folder / "places.npy", folder / "manifest.json"
    if damage == "places":
        np.save(places, np.load(places) + np.uint64(1))
    elif damage == "shorter":
        os.truncate(places, places.stat().st_size - 8)
    elif damage == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 0'))
    elif damage == "not json":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace(plan.hashes[0].sha256, "0" * 64))
    expected = list(open_corpus(str(path), split="train").part(1, SHARDS))
    before = bytes_read()
    assert list(plan.corpus.part(1, SHARDS)) == expected
    assert bytes_read() - before > path.stat().st_size
    assert plan.to_be_read_once(plan.missing())


def test_a_file_that_changed_has_no_index(path, tmp_path):
    plan = make_plan(path, tmp_path / "out")
    plan.keep_indexes()
    text = path.read_text()
    write(path, "\n" + text)
    assert list(plan.corpus.part(1, SHARDS)) == list(open_corpus(str(path), split="train").part(1, SHARDS))
    # Of the same size, at another time.
    path.write_text(text.replace("Text 3 ", "Text_3 "))
    assert path.stat().st_size == len(text)
    assert list(plan.corpus.part(1, SHARDS)) == list(open_corpus(str(path), split="train").part(1, SHARDS))


def test_an_index_is_kept_only_where_it_saves_work(path, tmp_path):
    few = make_plan(path, tmp_path / "few", 20)
    few.keep_indexes()
    assert indexes(few) == []
    for name, options in (("a.txt", {}), ("b.txt", {"form": "wikitext"})):
        write(tmp_path / name, "A line of text.\n\n" * 200_000)
        plan = make_plan(tmp_path / name, tmp_path / name[0], 10_000, **options)
        plan.keep_indexes()
        assert indexes(plan) == []
    file_hashes._known.clear()
    plan = make_plan(tmp_path / "a.txt", tmp_path / "lines", 20_000, unit="line")
    plan.keep_indexes()
    assert len(indexes(plan)) == 1
    assert not plan.to_be_read_once(plan.missing())
    small = tmp_path / "small.jsonl"
    write(small, json.dumps({"text": "x" * 1000}) + "\n")
    plan = make_plan(small, tmp_path / "small", 1000)
    plan.keep_indexes()
    assert indexes(plan) == []
