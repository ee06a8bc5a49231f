"""A preprocessing job becomes a corpus, a tokenizer, a scorer and a task; what cannot be is said before any work."""

import gzip
import json
import os
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import models, pre_tokenizers

from cascaded_dllm.assemble import preprocess
from cascaded_dllm.assemble.preprocess import ShardTask, prepare
from cascaded_dllm.assemble.scorers import BUILT_IN_TAGGERS, MakeEncoder, make_scorer, make_tagger
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import CascadeError, ConfigError, DataError, MissingExtraError, OutputError
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import CLASSES, PosLabel, PosScorer
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, save_weights
from cascaded_dllm.importance.taggers import LexiconTagger
from cascaded_dllm.importance.tfidf import TfidfScorer
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.preprocess.inspect import inspect_dataset
from cascaded_dllm.preprocess.job import CorpusChoice, Job, ScorerChoice
from cascaded_dllm.text import file_hashes
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT
from cascaded_dllm.text.tokenizer_files import byte_level


def job(out: Path, **scorer: object) -> Job:
    choice = ScorerChoice(**({"method": "tfidf"} | scorer))
    return Job(CorpusChoice("stories", "valid", num_documents=6), choice, None, 300, 2, str(out))


def make(job: Job) -> Path:
    task = prepare(job)
    for index in task.plan.missing():
        task.run(index)
    return task.plan.folder


def test_constituency_and_tfidf(tmp_path):
    assert make_scorer(ScorerChoice("constituency", tagger="stories")).method == PosScorer.method
    task = prepare(job(tmp_path))
    assert task.make_encoder().scorer.method == TfidfScorer.method
    assert task.plan.settings.scorer["num_documents"] == 6


def test_what_prevents_a_tokenizer_is_said_before_the_corpus_is_read(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size 256 is below 257"):
        prepare(replace(job(tmp_path), train_tokenizer=256, corpus=CorpusChoice("nowhere.txt")))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"tokenizer_300_\w+ cannot be written \(Not a directory\)"):
        prepare(job(tmp_path / "file", method="random"), on_pass=lambda *_: pytest.fail("the corpus is read"))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"num_shards": 3}, "num_shards: 2, not 3"),
        ({"corpus": CorpusChoice("stories", "valid")}, "source: first 6, not"),
    ],
)
def test_shards_of_other_settings_are_told_before_the_corpus_is_read(tmp_path, change, difference):
    task = prepare(job(tmp_path))
    task.run(1)
    shutil.rmtree(task.plan.folder / "prepared")
    with pytest.raises(DataError, match=rf"shard_1 was made with other settings \({difference}"):
        prepare(replace(job(tmp_path), **change), on_pass=lambda *_: pytest.fail("the corpus is read"))
    assert prepare(job(tmp_path)).plan.missing() == [0]


def test_tokenizer_that_would_lose_characters(tmp_path):
    """It is told before a corpus is looked for, and by the plan, also if it was made from Python."""
    tokens = [*sorted({*pre_tokenizers.ByteLevel.alphabet()} - {"!"}), END_OF_TEXT]
    lossy = Tokenizer(byte_level(models.BPE({token: i for i, token in enumerate(tokens)}, [])), origin="letters")
    lossy.save(tmp_path / "tokenizer")
    message = "does not give '!' back after encoding and decoding"
    asked = replace(job(tmp_path), train_tokenizer=None, tokenizer=str(tmp_path / "tokenizer"))
    with pytest.raises(DataError, match=message):
        prepare(replace(asked, corpus=CorpusChoice("nowhere.txt")))
    corpus = Corpus.from_documents("toy", [Document("a", "One!")])
    with pytest.raises(DataError, match=message):
        preprocess_corpus(corpus, split="train", out_dir=tmp_path, tokenizer=lossy, scorer=RandomScorer(0))


def test_dataset_is_complete_with_its_last_shard(tmp_path, monkeypatch):
    task = prepare(job(tmp_path))
    loaded, load = [], Tokenizer.load
    monkeypatch.setattr(ShardTask, "tokenizer", lambda self: loaded.append(1) or load(self.make_encoder.tokenizer))
    summary = task.run(1)
    assert summary is not None
    assert loaded == [1], "the first shard can be looked at"
    assert inspect_dataset(task.plan.folder, CascadeSpec((4, 8)), packing="stream", num_windows=1).num_shards == 1
    assert summary["documents"] == 3
    with pytest.raises(DataError, match="is not a complete preprocessed dataset"):
        PreprocessedDataset.open(task.plan.folder)
    task.run(0)
    assert loaded == [1, 1], "the last one makes sure that it still is the same"
    assert PreprocessedDataset.open(task.plan.folder).counts.documents == 6
    assert task.run(0) is None


def test_what_is_complete_keeps_its_manifest(tmp_path, monkeypatch):
    """It says with what the dataset was made, not with what it was looked at."""
    folder = make(job(tmp_path))
    manifest = (folder / "manifest.json").read_bytes()
    monkeypatch.setattr("cascaded_dllm.__version__", "99.0")
    task = prepare(job(tmp_path))
    task.plan.complete(lambda: pytest.fail("of the tokenizer that is there, another release may write other bytes"))
    task.run(1)
    assert (folder / "manifest.json").read_bytes() == manifest
    (folder / "tokenizer.json").unlink()
    task.complete()
    assert (folder / "manifest.json").read_bytes() == manifest
    assert PreprocessedDataset.open(folder).counts.documents == 6
    (folder / "manifest.json").write_text("{")
    task.complete()
    assert json.loads((folder / "manifest.json").read_text())["versions"]["cascaded-dllm"] == "99.0"


def test_lost_summary_is_made_again(tmp_path):
    task = prepare(job(tmp_path))
    told = [task.run(index) for index in (0, 1)]
    logs = task.plan.folder / "logs"
    first = json.loads((logs / "summary.json").read_text())
    assert first["documents"] == 6
    assert first["shards_timed"] == 2
    assert first["seconds"] == pytest.approx(sum(summary["seconds"] for summary in told))
    (logs / "summary.json").unlink()
    task.complete()
    assert json.loads((logs / "summary.json").read_text()) == first
    # Of a task whose summary was lost as well, or is damaged, nobody knows the seconds.
    (logs / "summary.json").unlink()
    (logs / "summaries" / "00000.json").write_text("{")
    task.complete()
    second = json.loads((logs / "summary.json").read_text())
    assert second["shards_timed"] == 1
    assert second["seconds"] == told[1]["seconds"]
    assert second["tokens"] == first["tokens"]
    assert second["tokens_per_second"] == pytest.approx(told[1]["tokens"] / told[1]["seconds"], rel=0.2)
    (logs / "summary.json").unlink()
    shutil.rmtree(logs / "summaries")
    task.complete()
    third = json.loads((logs / "summary.json").read_text())
    assert (third["seconds"], third["tokens_per_second"], third["documents_per_second"]) == (None, None, None)
    assert third["documents"] == 6


def test_a_process_makes_its_shards_with_one_encoder(tmp_path, monkeypatch):
    """And with another one once the tokenizer at the same path is another."""
    made, make_encoder = [], MakeEncoder.__call__
    monkeypatch.setattr(MakeEncoder, "__call__", lambda self: made.append(1) or make_encoder(self))
    Tokenizer.train(["one text"], 258).save(tmp_path / "tokenizer")
    asked = replace(
        job(tmp_path / "first", method="random"), tokenizer=str(tmp_path / "tokenizer"), train_tokenizer=None
    )
    make(asked)
    assert len(made) == 1
    Tokenizer.train(["another text"], 260).save(tmp_path / "tokenizer")
    asked = replace(asked, out=str(tmp_path / "second"))
    folder = make(asked)
    assert len(made) == 2
    assert PreprocessedDataset.open(folder).settings.vocab_size == 260


def test_preparations_are_kept(tmp_path, monkeypatch):
    folder = make(job(tmp_path))
    before = {path: path.read_bytes() for path in folder.rglob("*.json") if "logs" not in path.parts}
    monkeypatch.setattr(Tokenizer, "train", None)
    monkeypatch.setattr("cascaded_dllm.assemble.preprocess.document_frequencies", None)
    assert prepare(job(tmp_path)).plan.missing() == []
    assert {path: path.read_bytes() for path in folder.rglob("*.json") if "logs" not in path.parts} == before


def test_passes_through_the_corpus_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "_TOLD_EVERY", 2)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one", "", "two", "three", "four", "five")))
    asked = replace(job(tmp_path / "out", method="tfidf"), corpus=CorpusChoice(str(path), num_documents=5))
    told = []
    prepare(asked, on_pass=lambda *state: told.append(state))
    passes = ("training the tokenizer", "counting words")
    assert told == [(what, *state) for what in passes for state in ((0, 5), (2, 5), (4, 5), (4, 4))]
    told.clear()
    prepare(asked, on_pass=lambda *state: told.append(state))
    assert told == []


def test_another_tokenizer_leaves_what_was_prepared(tmp_path):
    folder = make(job(tmp_path))
    other = prepare(replace(job(tmp_path), train_tokenizer=280))
    assert len(list((folder / "prepared").glob("tokenizer_*"))) == 2
    with pytest.raises(
        DataError, match=r"shard_0 was made with other settings \(tokenizer: .*vocab_size: 300, not 280"
    ):
        other.plan.missing()
    assert Tokenizer.load(folder).vocab_size == 300


def test_folder_that_a_killed_process_left_empty(tmp_path):
    folder = make(job(tmp_path))
    (tokenizer,) = (folder / "prepared").glob("tokenizer_*/tokenizer.json")
    tokenizer.unlink()
    assert prepare(job(tmp_path)).tokenizer().fingerprint == Tokenizer.load(folder).fingerprint


def test_shard_of_other_settings_leaves_the_dataset_as_it_is(tmp_path):
    folder = make(job(tmp_path))
    shutil.rmtree(folder / "shard_0")
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    other = prepare(replace(job(tmp_path), train_tokenizer=280))
    with pytest.raises(DataError, match="shard_1 was made with other settings"):
        other.run(0)
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before


def test_corpus_that_changes_after_the_plan(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("A fox.\n\nA key.\n")
    task = prepare(replace(job(tmp_path / "out"), corpus=CorpusChoice(str(path))))
    task.run(0)
    path.write_text("A fox.\n\nA longer key.\n")
    with pytest.raises(DataError, match="the corpus 'corpus' has changed since the job began"):
        task.run(1)


@pytest.fixture
def digests(monkeypatch):
    """The corpus files that are read to hash them; to be emptied of what a process knows."""
    names, real = [], file_hashes.hashlib.file_digest
    monkeypatch.setattr(
        file_hashes.hashlib, "file_digest", lambda file, kind: names.append(Path(file.name).name) or real(file, kind)
    )
    return names


def test_only_the_first_process_hashes_the_corpus(tmp_path, monkeypatch, digests):
    path = tmp_path / "toy.txt"
    path.write_text("One fox.\n\nTwo keys.\n\nThree.")
    os.utime(path, ns=(1, 1))
    shards = replace(job(tmp_path, method="random"), corpus=CorpusChoice(str(path)), num_shards=3)

    def new_process() -> list[str]:
        monkeypatch.setattr(file_hashes, "_known", {})
        read = [name for name in digests if name == "toy.txt"]
        digests.clear()
        return read

    new_process()
    task = pickle.dumps(prepare(shards))
    assert new_process() == ["toy.txt"]
    pickle.loads(task).run(0)
    assert new_process() == []
    prepare(shards).run(1)  # A task of a job array, which plans for itself.
    assert new_process() == []
    os.utime(path, ns=(2, 2))
    pickle.loads(task).run(2)  # Touched, with the same content.
    assert new_process() != []
    prepare(shards)  # The dataset is complete, and nobody's word is taken any more.
    assert new_process() == ["toy.txt"]
    path.write_text("One fax.\n\nTwo keys.\n\nThree.")
    with pytest.raises(DataError, match="has changed since the job began"):
        pickle.loads(task).plan.write(0, lambda batches: [])


def test_what_tasks_know_of_files_may_be_lost(tmp_path, monkeypatch, digests):
    path = tmp_path / "toy.txt"
    path.write_text("One fox.\n\nTwo keys.")
    os.utime(path, ns=(1, 1))
    shards = replace(job(tmp_path, method="random"), corpus=CorpusChoice(str(path)), num_shards=2)
    task = prepare(shards)
    task.run(0)
    (kept,) = (task.plan.folder / "prepared").glob("source_*.json")
    for damage in ("{", '{"hashes": [[1]]}', '{"source": {}}'):
        kept.write_text(damage)
        monkeypatch.setattr(file_hashes, "_known", {})
        digests.clear()
        prepare(shards)
        assert "toy.txt" in digests


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_train_and_valid_of_one_corpus(tmp_path, suffix):
    path, texts = tmp_path / f"toy{suffix}", [f"Fox number {number}." for number in range(20)]
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    Tokenizer.train(texts, 300).save(tmp_path)
    given = replace(job(tmp_path, method="random"), num_shards=3, tokenizer=str(tmp_path), train_tokenizer=None)
    found = {}
    for split in ("train", "valid"):
        task = prepare(replace(given, corpus=CorpusChoice(str(path), split, num_documents=18, holdout=5)))
        if suffix.endswith(".gz"):
            assert task.plan.to_be_read_once([0, 1, 2])
            task.plan.read_once([0, 1, 2], lambda _: None)
        for index in range(3):
            task.run(index)
        dataset = PreprocessedDataset.open(task.plan.folder)
        assert dataset.settings.source["holdout"] == {"every": 5, "held": split == "valid"}
        found[split] = [[int(record.id.rpartition(":")[2]) for record in shard.records()] for shard in dataset.shards]
    assert found["valid"] == [[4], [9], [14]]
    rest = [number for number in range(18) if number % 5 != 4]
    assert found["train"] == [rest[0::3], rest[1::3], rest[2::3]]
    assert "holdout" not in prepare(replace(given, corpus=CorpusChoice(str(path)))).plan.settings.source


def test_numbers_are_judged_before_a_corpus_is_fetched(monkeypatch):
    monkeypatch.setattr(preprocess, "open_corpus", None)
    for choice in (CorpusChoice("openwebtext", "valid", holdout=1), CorpusChoice("openwebtext", num_documents=0)):
        with pytest.raises(ConfigError, match=r"--(holdout is 1|num-documents is 0); it must be at least [12]"):
            preprocess.make_corpus(choice)


def test_a_holdout_that_is_none(tmp_path):
    for split, every, message in [
        ("test", 5, r"--holdout 5 divides the train split of a corpus, and --split is 'test'; give --split valid for"),
        ("valid", 1, r"--holdout is 1; it must be at least 2, since it holds out one record of that many"),
    ]:
        with pytest.raises(ConfigError, match=message):
            prepare(replace(job(tmp_path), corpus=CorpusChoice("stories", split, holdout=every)))
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_that_changes_after_the_plan(tmp_path):
    """While a job waits in a queue; nothing is written with another one."""
    Tokenizer.train(["one text"], 258).save(tmp_path / "tokenizer")
    asked = replace(job(tmp_path / "out", method="random"), tokenizer=str(tmp_path / "tokenizer"), train_tokenizer=None)
    task = prepare(asked)
    Tokenizer.train(["another text"], 260).save(tmp_path / "tokenizer")
    with pytest.raises(DataError, match="finds importance, has changed since the job began; put it back"):
        task.run(0)
    assert not (task.plan.folder / "shard_0").exists()


def test_output_inside_the_corpus(tmp_path, monkeypatch):
    """What is written would be a part of what is read, and the next call would find another corpus."""
    monkeypatch.chdir(tmp_path)
    Path("books").mkdir()
    Path("books/a.txt").write_text("A fox.")
    for dataset, out in (("books", "books/data"), ("books/**/*", "books/data")):
        asked = replace(job(Path(out), method="random"), corpus=CorpusChoice(dataset, name="books"), num_shards=1)
        with pytest.raises(ConfigError, match=rf"the output folder .*{out} lies inside the corpus .*; choose another"):
            prepare(asked)
        assert not Path(out).exists()
    make(replace(job(Path("books/data"), method="random"), corpus=CorpusChoice("books/*.txt"), num_shards=1))


def test_broken_word_counts(tmp_path):
    task = prepare(job(tmp_path))
    next(task.plan.folder.glob("prepared/word_counts_*/*.json")).write_text("[]")
    with pytest.raises(DataError, match=r"holds no word counts .* remove it and preprocess again"):
        prepare(job(tmp_path))


def test_word_counts_of_another_part(tmp_path):
    """One word is rare in the train split and everywhere in the other: its importance must be that of training."""
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text("\n\n".join(["the owl", "the fox ran", "the dog", "the cat"]))
    valid.write_text("\n\n".join(["the owl owl sat", "the owl"]))
    asked = replace(job(tmp_path), corpus=CorpusChoice(str(train), name="a"), num_shards=1)
    of_train = make(asked)
    other = replace(asked, corpus=CorpusChoice(str(valid), "valid", "a"))
    given = replace(other, scorer=ScorerChoice("tfidf", word_counts=str(of_train)), out=str(tmp_path / "given"))
    found = [PreprocessedDataset.open(folder) for folder in (of_train, make(given), make(other))]
    scorers = [dataset.settings.scorer for dataset in found]
    assert scorers[0] == scorers[1] != scorers[2]
    first = [next(dataset.shards[0].records()) for dataset in found[1:]]
    assert first[0].importance.tolist() != first[1].importance.tolist()


def test_word_counts_that_are_not_there(tmp_path):
    of_random = make(job(tmp_path, method="random"))
    message = r"--word-counts is .*stories_valid, which was made with the method random and has none; name the folder"
    with pytest.raises(ConfigError, match=message):
        prepare(job(tmp_path / "other", word_counts=str(of_random)))
    with pytest.raises(DataError, match="there is no such folder"):
        prepare(job(tmp_path / "other", word_counts=str(tmp_path / "nowhere")))
    counted = make(job(tmp_path))
    table = next(counted.glob("prepared/word_counts_*/*.json"))
    # Counts of another corpus may lie there too.
    other = table.parent.with_name("word_counts_0")
    shutil.copytree(table.parent, other)
    (other / table.name).write_text(json.dumps(json.loads(table.read_text()) | {"num_documents": 7}))
    assert preprocess.word_counts_of(counted) == table
    shutil.rmtree(table.parent)
    with pytest.raises(DataError, match=r"in which the word counts that it was made with .* name that one, or make it"):
        prepare(job(tmp_path / "other", word_counts=str(counted)), on_pass=lambda *_: pytest.fail("it is counted"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "magic"},
            "the method is 'magic'; it must be one of constituency, keybert_no_stopword, keybert, tf",
        ),
        ({"tagger": "lexicon"}, "method tfidf has no use for --tagger 'lexicon'; leave it out, or choose constituency"),
        ({"word_cache": "x"}, "no use for --word-cache 'x'; leave it out, or choose keybert or keybert_no_stopword"),
        ({"seed": 1}, "no use for --seed 1; leave it out, or choose random"),
        ({"per": "word"}, "method tfidf has no use for --per 'word'; leave it out, or choose random"),
        ({"method": "random", "word_counts": "x"}, "no use for --word-counts 'x'; leave it out, or choose tfidf"),
        ({"method": "random", "per": "text"}, "--per is 'text'; it must be one of occurrence, word"),
    ],
)
def test_settings_of_other_methods(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(job(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_tokenizer": None}, "the tokenizer is not determined; give either --tokenizer"),
        ({"tokenizer": "gpt2"}, "the tokenizer is not determined"),
        ({"num_shards": 0}, "the number of shards is 0; it must be at least 1"),
    ],
)
def test_settings_of_the_job(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(replace(job(tmp_path), **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tagger", ["english", "lexicon", None])
def test_missing_extra_is_said_before_any_work(monkeypatch, tmp_path, tagger):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match=r"needs spacy, .* pip install 'cascaded-dllm\[preprocess\]'"):
        prepare(job(tmp_path, method="constituency", tagger=tagger))
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said_before_a_corpus_is_fetched(monkeypatch, tmp_path):
    """A dataset of the hub may take a day to come."""

    def fetch(choice: CorpusChoice) -> None:
        pytest.fail(f"{choice} is fetched")

    monkeypatch.setattr(preprocess, "make_corpus", fetch)
    with pytest.raises(DataError, match=r"nowhere\.npz holds no tagger"):
        prepare(job(tmp_path / "out", method="constituency", tagger="nowhere.npz"))
    given = replace(job(tmp_path / "out", method="random"), tokenizer=str(tmp_path), train_tokenizer=None)
    with pytest.raises(DataError, match="tokenizer"):
        prepare(given)


@pytest.mark.parametrize(("wrong", "right"), [("englsh", "english"), ("lexikon", "lexicon"), ("Stories", "stories")])
def test_a_tagger_that_is_nearly_one(tmp_path, wrong, right):
    with pytest.raises(ConfigError, match=f"there is no tagger '{wrong}'; did you mean {right}\\?"):
        prepare(job(tmp_path, method="constituency", tagger=wrong))
    assert list(tmp_path.iterdir()) == []


def test_missing_spacy_model_is_said_before_any_work(tmp_path):
    remedies = "run: python -m spacy download en_core_web_md; or choose --tagger english, which needs no download"
    with pytest.raises(CascadeError, match=remedies):
        prepare(job(tmp_path, method="constituency"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tagger", "message"),
    [
        (
            "nowhere.npz",
            r"nowhere\.npz holds no tagger, or is missing or broken .*; train one with scripts/train_tagger",
        ),
        ("{tmp}", r"the spaCy pipeline '.*' is not installed or broken .*; or choose --tagger english"),
        ("en_core_nothing", r"the spaCy pipeline 'en_core_nothing' is not installed or .*; or choose --tagger english"),
    ],
)
def test_tagger_that_is_none(tmp_path, tagger, message):
    needs_taggers()
    with pytest.raises(DataError, match=message):
        prepare(job(tmp_path / "out", method="constituency", tagger=tagger.format(tmp=tmp_path)))
    assert list(tmp_path.iterdir()) == []


def needs_taggers():
    pytest.importorskip("spacy", reason="the extra `preprocess` is not installed")
    pytest.importorskip("textblob", reason="the extra `preprocess` is not installed")


@pytest.mark.parametrize(("name", "kind"), [("english", LinearTagger), ("lexicon", LexiconTagger)])
def test_built_in_taggers(name, kind):
    needs_taggers()
    tagger = make_tagger(name)
    assert isinstance(tagger, kind)
    assert tagger.name.split()[0] == name
    assert name in BUILT_IN_TAGGERS


def test_weights_of_ones_own_are_found_from_another_folder(tmp_path, monkeypatch):
    """And other weights make another dataset."""
    needs_taggers()
    monkeypatch.chdir(tmp_path)
    weights = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    weights[:, CLASSES.index("JJ")] = 1
    save_weights(weights, Path("mine.npz"))
    task = prepare(job(tmp_path / "out", method="constituency", tagger="mine.npz"))
    monkeypatch.chdir("/")
    assert task.make_encoder.scorer.tagger == str(tmp_path / "mine.npz")
    ((word,),) = task.make_encoder().scorer.score(["fox"])
    assert word.importance == PosLabel.ADJECTIVE
    task.run(0)
    save_weights(weights * np.int8(2), tmp_path / "mine.npz")
    with pytest.raises(DataError, match=r"was made with other settings \(scorer.*: .*linear \([0-9a-f]{16}, textblob"):
        prepare(job(tmp_path / "out", method="constituency", tagger=str(tmp_path / "mine.npz"))).plan.check_shards()


@pytest.mark.parametrize("name", BUILT_IN_TAGGERS)
def test_folder_with_the_name_of_a_tagger(tmp_path, monkeypatch, name):
    needs_taggers()
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    task = prepare(job(tmp_path / "out", method="constituency", tagger=name))
    assert task.make_encoder().scorer.describe() == {"tagger": make_tagger(name).name, "placeholder": "<unk>"}
