import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.data.manifest import Settings, fingerprint
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import ConfigError, DataError, OutputError
from cascaded_dllm.importance.base import Word
from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer
from cascaded_dllm.preprocess import batches
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.processes import run as run_process
from tests.unit.model.unchecked import without_type_checks

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
    def call(documents=DOCUMENTS, name="toy", **changes):
        corpus = documents if isinstance(documents, Corpus) else Corpus.from_documents(name, documents)
        arguments = {"out_dir": tmp_path, "split": "train", "tokenizer": tokenizer}
        return preprocess_corpus(corpus, **({**arguments, "scorer": LengthScorer()} | changes))

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
        "dropped_characters": 0,
    }
    assert manifest["settings"] == {
        "dataset": "toy",
        "split": "train",
        "source": dict(Corpus.from_documents("toy", DOCUMENTS).source),
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
    assert [shard.counts.dropped for shard in dataset.shards] == [{}, {"empty": 2}, {}]
    assert dataset.counts.dropped == {"empty": 2}


@pytest.mark.parametrize(("documents", "characters"), [(1, 10**6), (2, 10**6), (3, 10**6), (256, 1), (256, 30)])
def test_batches_change_nothing(run, tmp_path, monkeypatch, documents, characters):
    expected = PreprocessedDataset.open(run(num_shards=2)).fingerprint
    monkeypatch.setattr(batches, "BATCH_DOCUMENTS", documents)
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", characters)
    folder = run(num_shards=2, out_dir=tmp_path / "again")
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_documents_may_share_an_id(run):
    dataset = PreprocessedDataset.open(run([Document("same", "one"), Document("same", "two")]))
    assert [record.id for record in dataset.records()] == ["same", "same"]


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
    assert scorer.scored == [text for text in TEXTS[2::3] if text]
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_folder_of_other_settings(run):
    run()
    message = r"shard_0 was made with other settings \(scorer: \{'note': 'first'\}, not \{'note': 'second'\}\); choose"
    with pytest.raises(DataError, match=message):
        run(scorer=LengthScorer("second"))
    with pytest.raises(DataError, match=r"num_shards: 1, not 2"):
        run(num_shards=2)


def test_shard_beyond_the_last_one_is_of_another_dataset(run):
    """As when a job of more shards was killed; the folder would be complete with a shard that nobody knows of."""
    folder = run(num_shards=3)
    for name in ("shard_0", "shard_1"):
        shutil.rmtree(folder / name)
    scorer = LengthScorer()
    with pytest.raises(DataError, match=r"shard_2 was made with other settings \(num_shards: 3, not 2\)"):
        run(num_shards=2, scorer=scorer)
    assert scorer.scored == []


def test_folder_of_another_tokenizer(run):
    run()
    with pytest.raises(DataError, match=r"tokenizer: '\w{16}', not '\w{16}'"):
        run(tokenizer=Tokenizer.train(TEXTS, 260))


def test_tokenizer_that_is_another_when_the_last_shard_is_there(tokenizer, tmp_path):
    corpus = Corpus.from_documents("toy", DOCUMENTS)
    plan = Plan.make(corpus, split="train", out_dir=tmp_path, tokenizer=tokenizer, scorer=LengthScorer())
    plan.write(0, Encoder(tokenizer, LengthScorer()).encode_all)
    with pytest.raises(DataError, match=r"the tokenizer has the fingerprint \w+, and the shards in .* were made with"):
        plan.complete(lambda: Tokenizer.train(TEXTS, 260))
    assert not (plan.folder / "manifest.json").exists()
    assert plan.complete(lambda: tokenizer) is not None


@pytest.mark.parametrize("reads_once", [False, True])
def test_file_that_grows_while_it_is_read(tokenizer, tmp_path, reads_once):
    path = tmp_path / "toy.txt"
    path.write_text("\n\n".join(f"A fox and {number} keys." for number in range(5)))

    class Growing(LengthScorer):
        def score(self, texts):
            with path.open("a") as file:
                file.write("\n\nMore.")
            return super().score(texts)

    corpus = open_corpus(str(path), split="train")
    scorer, out = Growing(), tmp_path / "out"
    plan = Plan.make(corpus, split="train", out_dir=out, tokenizer=tokenizer, scorer=scorer, num_shards=3)
    if reads_once:
        told = []

        def grow(number):
            told.append(number)
            with path.open("a") as file:
                file.write("\n\nMore.")

        with pytest.raises(DataError, match="the corpus 'toy' has changed since the job began"):
            plan.read_once([0, 1, 2], grow)
        assert told
        assert not list(plan.folder.glob("prepared/records_*"))
        return
    with pytest.raises(DataError, match="the corpus 'toy' has changed since the job began"):
        plan.write(0, Encoder(tokenizer, scorer).encode_all)
    assert not (plan.folder / "shard_0").exists()


def test_files_that_differ_are_named(run, tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(20):
        (folder / f"f{number:02d}.txt").write_text(f"Text {number}.")
    run(open_corpus(str(folder), split="train"))
    (folder / "f07.txt").write_text("Another text.")
    (folder / "more.txt").write_text("One more.")
    with pytest.raises(DataError, match=r"\(source: other content or another list of files, in f07.txt, more.txt\); "):
        run(open_corpus(str(folder), split="train"))
    for number in range(20):
        (folder / f"f{number:02d}.txt").write_text("Another text.")
    with pytest.raises(DataError, match=r"f06.txt, f07.txt and 13 more\)"):
        run(open_corpus(str(folder), split="train"))


@pytest.fixture
def books(tmp_path):
    """A corpus of many files."""
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(20):
        (folder / f"f{number:02d}.txt").write_text(f"Text {number}.")
    return folder


def plan_of(books, tokenizer):
    corpus = open_corpus(str(books), split="train")
    return Plan.make(
        corpus, split="train", out_dir=books.parent, tokenizer=tokenizer, scorer=LengthScorer(), num_shards=3
    )


def test_the_list_of_files_is_there_once(books, tokenizer):
    plan = plan_of(books, tokenizer)
    encode_all = Encoder(tokenizer, LengthScorer()).encode_all
    for index in range(3):
        plan.write(index, encode_all)
        assert [path.name for path in (plan.folder / "prepared").iterdir()] == [
            f"source_{fingerprint(plan.settings.source)}.json"
        ]
        manifest = (plan.folder / f"shard_{index}" / "manifest.json").read_text()
        assert "f07.txt" not in manifest
        source = json.loads(manifest)["settings"]["source"]
        assert source["files"] == 20
        assert len(source["files_sha256"]) == 64
    dataset = plan.complete(lambda: tokenizer)
    assert dataset.settings == plan.settings == PreprocessedDataset.open(plan.folder).settings
    assert not (plan.folder / "prepared").exists()


def test_shards_of_before_are_gone_on_with(books, tokenizer, monkeypatch):
    """They hold the whole list each; and so does a dataset that was completed then."""
    plan = plan_of(books, tokenizer)
    encode_all = Encoder(tokenizer, LengthScorer()).encode_all
    with monkeypatch.context() as before:
        before.setattr(Settings, "brief", lambda self: self)
        plan.write(0, encode_all)
        plan.write(2, encode_all)
    assert "f07.txt" in (plan.folder / "shard_0" / "manifest.json").read_text()
    assert plan.missing() == [1]
    plan.write(1, encode_all)
    assert PreprocessedDataset.open_unfinished(plan.folder).counts.documents == 20
    plan.complete(lambda: tokenizer)
    assert PreprocessedDataset.open(plan.folder).counts.documents == 20
    # The other way round: shards of both kinds still notice another corpus.
    (books / "f07.txt").write_text("Another text.")
    for index in range(3):
        with pytest.raises(DataError, match=r"\(source: other content or another list of files, in f07.txt\)"):
            plan_of(books, tokenizer).has_shard(index)


def test_files_that_differ_are_named_where_the_list_is_at_hand(books, tokenizer):
    plan = plan_of(books, tokenizer)
    plan.write(1, Encoder(tokenizer, LengthScorer()).encode_all)
    (books / "f07.txt").write_text("Another text.")
    with pytest.raises(DataError, match=r"shard_1 was made with other settings \(source: .*, in f07.txt\)"):
        plan_of(books, tokenizer).check_shards()
    for damage in ("{", '{"source": 3}', None):
        (path,) = (plan.folder / "prepared").iterdir()
        path.unlink() if damage is None else path.write_text(damage)
        with pytest.raises(DataError, match=r"\(source: files_sha256 '\w{64}', not '\w{64}'\)"):
            plan_of(books, tokenizer).check_shards()


def test_shard_under_another_number(run):
    folder = run(num_shards=2)
    shutil.rmtree(folder / "shard_0")
    (folder / "shard_1").rename(folder / "shard_0")
    with pytest.raises(DataError, match=r"other settings \(another shard's number\)"):
        run(num_shards=2)


@pytest.mark.parametrize("documents", [DOCUMENTS[:-1], [*DOCUMENTS, Document("more", "More.")], DOCUMENTS[::-1]])
def test_folder_of_other_documents(run, documents):
    folder = run(num_shards=2)
    expected = PreprocessedDataset.open(folder).fingerprint
    with pytest.raises(DataError, match=r"shard_0 was made with other settings \(source: .*sha256"):
        run(documents, num_shards=2)
    assert PreprocessedDataset.open(folder).fingerprint == expected


def test_other_documents_are_found_before_a_missing_shard_is_written(run):
    folder = run(num_shards=2)
    shutil.rmtree(folder / "shard_1")
    with pytest.raises(DataError, match="shard_0 was made with other settings"):
        run(DOCUMENTS[1:], num_shards=2)
    assert not (folder / "shard_1").exists()


@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize("documents", [[], [Document("a", ""), Document("b", " ")]])
def test_corpus_without_text(run, tmp_path, documents, num_shards):
    with pytest.raises(DataError, match="the corpus 'toy' holds 0 documents that are not blank; give one with text in"):
        run(documents, num_shards=num_shards)
    assert not (tmp_path / "tfidf" / "toy_train" / "manifest.json").exists()


@dataclass(frozen=True)
class Broken:
    """Gives some documents, then fails."""

    error: Exception

    def records(self, part):
        yield from part.of([*DOCUMENTS, Dropped("x", "heading", 5)])
        raise self.error

    def source(self):
        return {"kind": "toy"}


def test_exception_in_the_corpus_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_DOCUMENTS", 2)
    with pytest.raises(OSError, match="the disk is gone"):
        run(Corpus("toy", Broken(OSError(5, "the disk is gone", str(tmp_path / "corpus.txt")))), num_shards=2)
    assert list((tmp_path / "tfidf" / "toy_train").iterdir()) == []


@pytest.mark.parametrize("index", [-1, 2])
def test_shard_index_out_of_range(tokenizer, tmp_path, index):
    scorer, corpus = LengthScorer(), Corpus.from_documents("toy", DOCUMENTS)
    plan = Plan.make(corpus, split="train", out_dir=tmp_path, tokenizer=tokenizer, scorer=scorer, num_shards=2)
    for make in (plan.has_shard, lambda index: plan.write(index, Encoder(tokenizer, scorer).encode_all)):
        with pytest.raises(
            ConfigError, match=rf"shard {index} is out of range: the dataset has 2, numbered from 0 to 1"
        ):
            make(index)


def test_progress_knows_the_total_after_the_first_shard(run, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_DOCUMENTS", 2)
    told = []
    run(num_shards=2, on_progress=lambda *numbers: told.append(numbers))
    assert told == [(2, None), (4, None), (7, 8), (7, 7)]


def test_foreign_folder_is_left_alone(run, tmp_path):
    foreign = tmp_path / "tfidf" / "toy_train" / "shard_0"
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="shard_0 is not a shard and holds other files"):
        run()
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_other_names_are_no_shards(run, tmp_path):
    (tmp_path / "tfidf" / "toy_train" / "shard_notes").mkdir(parents=True)
    assert PreprocessedDataset.open(run()).counts.documents == 5


def test_output_below_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(out_dir=tmp_path / "file")


def test_text_that_is_none(run, tmp_path):
    with pytest.raises(DataError, match="document 'bad' holds the lone surrogate"):
        run([*DOCUMENTS, Document("bad", "\udc80")])
    assert list((tmp_path / "tfidf" / "toy_train").iterdir()) == []


@dataclass(frozen=True)
class Deadly:
    """Ten documents, of which a part kills its process."""

    killed_in: int

    def records(self, part):
        yield from part.of(Document(str(number), "a b c") for number in range(10))
        if part.index == self.killed_in:
            os.kill(os.getpid(), signal.SIGKILL)

    def source(self):
        return {"kind": "toy"}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"seed": np.int64(1)}, r"by \{'seed': np.int64\(1\)\}, which JSON cannot hold \(Object of type int64"),
        ("long words", r"by 'long words'; it must be a dictionary"),
    ],
)
def test_scorer_that_describes_itself_by_what_cannot_be_stored(run, tmp_path, description, message):
    """It would be known only when stages are built of the data."""
    scorer = LengthScorer()
    scorer.describe = lambda: description
    with without_type_checks(), pytest.raises(ConfigError, match=rf"^the scorer describes itself {message}"):
        run(scorer=scorer)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy(run, tmp_path):
    """They are stored as those of Python."""
    scorer = LengthScorer()
    scorer.background = np.float32(scorer.background)
    with without_type_checks():
        made = run(scorer=scorer, num_shards=np.int64(2), out_dir=tmp_path / "numpy")
        with pytest.raises(ConfigError, match=r"^num_shards is 1\.5; it must be a whole number of at least 1$"):
            run(num_shards=1.5)
        scorer.background = None
        with pytest.raises(ConfigError, match=r"^the scorer's background is None; it must be a number$"):
            run(scorer=scorer)
    plain = PreprocessedDataset.open(run(num_shards=2))
    assert PreprocessedDataset.open(made).fingerprint == plain.fingerprint


def test_folder_as_a_text(run, tmp_path):
    assert run(out_dir=str(tmp_path / "other")).is_relative_to(tmp_path / "other")


def preprocess_deadly(out, killed_in):
    """In a process."""
    batches.BATCH_DOCUMENTS = 1
    preprocess_corpus(
        Corpus("toy", Deadly(killed_in)),
        out_dir=out,
        split="train",
        num_shards=3,
        tokenizer=Tokenizer.train(["a b c"], 257),
        scorer=TfidfScorer(DocumentFrequencies(1, {})),
    )


def test_kill_costs_one_shard_and_the_next_run_completes(tmp_path):
    assert run_process(preprocess_deadly, tmp_path, 1).returncode == -signal.SIGKILL
    folder = tmp_path / "tfidf" / "toy_train"
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir()) == [".incomplete", "shard_0"]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard_0/*")}
    assert len(before) == 2
    with pytest.raises(DataError, match="is not a complete preprocessed dataset"):
        PreprocessedDataset.open(folder)
    done = run_process(preprocess_deadly, tmp_path, -1)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.glob("shard_0/*")} == before
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "shard_0",
        "shard_1",
        "shard_2",
        "tokenizer.json",
    ]
    assert PreprocessedDataset.open(folder).counts.documents == 10


def test_every_document_is_scored_once(run):
    scorer = LengthScorer()
    run(num_shards=3, scorer=scorer)
    assert sorted(scorer.scored) == sorted(filter(None, TEXTS))


@pytest.mark.parametrize("change", [{"format_version": 99}, {"kind": "map"}, {"settings": {}}])
def test_shard_of_another_version_is_left_alone(run, change):
    folder = run()
    path = folder / "shard_0" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = {path: path.read_bytes() for path in folder.glob("shard_0/*")}
    with pytest.raises(DataError, match=rf"has format version 99.* remove {folder} and|describes 'map'|is incomplete"):
        run()
    assert {path: path.read_bytes() for path in folder.glob("shard_0/*")} == before


@pytest.mark.parametrize("name", ["manifest.json", "documents.parquet"])
def test_shard_that_the_disk_does_not_give_is_left_alone(run, monkeypatch, name):
    folder = run()
    before = {path: path.read_bytes() for path in folder.glob("shard_0/*")}
    real = Path.open

    def broken(path, *arguments, **named):
        if path == folder / "shard_0" / name:
            raise OSError(5, "Input/output error")
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        with pytest.raises(DataError, match=rf"{name} cannot be read \(Input/output error\); check the disk"):
            run()
    assert {path: path.read_bytes() for path in folder.glob("shard_0/*")} == before


def test_damaged_shard_beside_other_files_is_left_alone(run):
    folder = run()
    (folder / "shard_0" / "manifest.json").write_text("{")
    (folder / "shard_0" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"shard_0 is not a shard and holds other files \(thesis.txt\)"):
        run()
    assert sorted(path.name for path in (folder / "shard_0").iterdir()) == [
        "documents.parquet",
        "manifest.json",
        "thesis.txt",
    ]


def test_damaged_shard_that_cannot_be_removed(run, monkeypatch):
    folder = run()
    (folder / "shard_0" / "manifest.json").unlink()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rmdir", refuse)
    with pytest.raises(OutputError, match=r"shard_0 cannot be removed \(Permission denied\)"):
        run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "dataset name 'a/b' cannot be part of a folder name; use letters"),
        ({"name": ""}, "dataset name '' cannot"),
        ({"split": ".."}, r"split name '\.\.' cannot"),
        ({"num_shards": 0}, "num_shards is 0; it must be at least 1"),
    ],
)
def test_bad_settings(run, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_scorer_without_a_selection_rule(run):
    scorer = LengthScorer()
    scorer.method = "magic"
    with pytest.raises(ConfigError, match="the scorer's method is 'magic'; it must be one of"):
        run(scorer=scorer)


def test_importance_is_single_precision_on_disk(run):
    record = next(PreprocessedDataset.open(run()).records())
    assert record.importance.dtype == np.float32
