import json
import pickle
import platform
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm import hub_requests
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text import python_docs
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped
from cascaded_dllm.text.hub_corpora import HUB_CORPORA
from cascaded_dllm.text.local_files import LocalFiles
from cascaded_dllm.text.stories import StoryGrammar
from tests.unit.model.unchecked import without_type_checks

DOCUMENTS = [Document("a", "One"), Document("b", " "), Document("c", "Three"), Document("d", "Four")]


def test_documents_in_memory() -> None:
    corpus = Corpus.from_documents("mine", DOCUMENTS)
    assert corpus.name == "mine"
    assert list(corpus.documents()) == [DOCUMENTS[0], *DOCUMENTS[2:]]
    assert list(corpus.part(1, 2)) == [Dropped("b", "empty", 1), DOCUMENTS[3]]
    assert corpus.source["documents"] == 4
    other = Corpus.from_documents("mine", [*DOCUMENTS[:3], Document("d", "four")])
    assert corpus.source["sha256"] != other.source["sha256"]
    assert corpus.hint() is None


def test_ids_and_texts_do_not_run_into_each_other() -> None:
    first, second = [Document("ab", "c")], [Document("a", "bc")]
    assert Corpus.from_documents("x", first).source != Corpus.from_documents("x", second).source


def test_first_records() -> None:
    corpus = Corpus.from_documents("mine", DOCUMENTS)
    assert corpus.first(None) is corpus
    assert [document.id for document in corpus.first(3).documents()] == ["a", "c"]
    assert corpus.first(3).first(9) == corpus.first(9).first(3) == corpus.first(3)
    assert corpus.first(3).source == {**corpus.source, "first": 3}
    with without_type_checks():
        assert json.dumps(corpus.first(np.int64(3)).source) == json.dumps(corpus.first(3).source)
        held = [corpus.side(every, held=True).source for every in (np.int64(3), 3)]
        assert json.dumps(held[0]) == json.dumps(held[1])
    with pytest.raises(ConfigError, match="--num-documents is 0; it must be at least 1"):
        corpus.first(0)
    with without_type_checks(), pytest.raises(ConfigError, match=r"--num-documents is 1\.5; it must be a whole number"):
        corpus.first(1.5)  # type: ignore[arg-type]
    with without_type_checks(), pytest.raises(ConfigError, match=r"--holdout is 2\.5; it must be a whole number"):
        corpus.side(2.5, held=True)  # type: ignore[arg-type]


def test_path_of_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One")
    as_path, as_text = (open_corpus(place, split="train") for place in (tmp_path, str(tmp_path)))
    assert as_path.source == as_text.source


@pytest.mark.parametrize("name", ["stories", next(iter(HUB_CORPORA))])
def test_a_path_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It would be another corpus, without a word: a `Path` of ./stories is the same as that of stories."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"{name} is not a file or folder; check the path"):
        open_corpus(Path(name), split="train")
    Path(name).mkdir()
    Path(name, "a.txt").write_text("One")
    for place in (Path(f"./{name}"), f"./{name}"):
        assert [document.text for document in open_corpus(place, split="train").documents()] == ["One"]


def test_no_documents() -> None:
    with pytest.raises(DataError, match="the corpus 'mine' holds 0 documents that are not blank; give one with text"):
        list(Corpus.from_documents("mine", DOCUMENTS[1:2]).documents())


def test_held_side_of_a_small_corpus() -> None:
    held = Corpus.from_documents("mine", DOCUMENTS).side(500, held=True)
    with pytest.raises(DataError, match=r"the corpus 'mine' has fewer than 500 records, and --holdout 500 holds out"):
        list(held.documents())


@pytest.mark.parametrize(("index", "num_parts"), [(2, 2), (-1, 2), (0, 0)])
def test_part_that_does_not_exist(index: int, num_parts: int) -> None:
    with pytest.raises(ConfigError, match=rf"part {index} of {num_parts} does not exist; it must be one of 0\.\."):
        Corpus.from_documents("mine", DOCUMENTS).part(index, num_parts)


def test_stories() -> None:
    corpus = open_corpus("stories", split="valid")
    assert list(corpus.first(5).documents()) == list(StoryGrammar().documents(5, 1))
    assert sum(1 for _ in corpus.part(2, 100)) == 10
    assert corpus.source["seed"] == 1
    assert corpus.source["grammar"] == open_corpus("stories", split="train").source["grammar"]


def test_python_docs_are_parted_into_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(str(number), "Text") for number in range(45)]
    monkeypatch.setattr(python_docs, "python_docs_documents", lambda: iter(documents))
    found = {split: open_corpus("python-docs", split=split) for split in ("train", "valid", "test")}
    ids = {split: [int(document.id) for document in corpus.documents()] for split, corpus in found.items()}
    assert ids == {
        "valid": [0, 20, 40],
        "test": [1, 21, 41],
        "train": [*range(2, 20), *range(22, 40), 42, 43, 44],
    }
    assert [document.id for document in found["train"].part(1, 20)] == ["3", "25"]
    source = found["test"].source
    assert source["python"] == platform.python_version()
    assert source == open_corpus("python-docs", split="test").source != found["train"].source


def test_local_files(tmp_path: Path) -> None:
    path = tmp_path / "my data.v2.txt"
    path.write_text("One .\nTwo .\n")
    corpus = open_corpus(str(path), split="train")
    assert corpus == Corpus("my-data", LocalFiles(path))
    assert (corpus.hint() or "").startswith("all 2 lines of my data.v2.txt are one document")
    assert [document.text for document in open_corpus(str(path), split="x", unit="line").documents()] == [
        "One .",
        "Two .",
    ]
    formed = open_corpus(str(path), split="train", form="lm1b")
    assert [document.text for document in formed.documents()] == ["One.", "Two."]
    assert formed.hint() is None
    (tmp_path / "...").mkdir()
    (tmp_path / "..." / "a.txt").write_text("One")
    assert open_corpus(str(tmp_path / "..."), split="train").name == "corpus"


@pytest.mark.parametrize("dataset", [*HUB_CORPORA, "owner/name", "owner/name:config"])
def test_hub_without_network(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first question takes seconds of its own where others are at work.
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 60.0)
    split = "test" if dataset in HUB_CORPORA and dataset != "openwebtext" else "train"
    with pytest.raises(DataError, match=r"not on this machine, and the hub does not answer \(OfflineModeIsEnabled\)"):
        open_corpus(dataset, split=split)


@pytest.mark.parametrize("dataset", ["stories", "python-docs"])
def test_unknown_split(dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"the split of {dataset} is 'all'; it must be one of train, valid, test"):
        open_corpus(dataset, split="all")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            "wikitext-2",
            r"'wikitext-2' is not a corpus, file or folder; did you mean wikitext2\b.*\? Give one of stories, ",
        ),
        ("OpenWebtxt", "did you mean openwebtext"),
        ("zzz", "is not a corpus, file or folder; Give one of stories, python-docs, wikitext103, .* or owner/name of"),
        ("a/b/c", "'a/b/c' is not a corpus, file or folder"),
        # As of an unset variable of the shell; as a path, it would be the working directory.
        ("", "'' is not a corpus, file or folder"),
    ],
)
def test_unknown_name(dataset: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_corpus(dataset, split="train")


@pytest.mark.parametrize("dataset", ["./a", "data/a.jsonl.gz", "a.txt", "~/nowhere", "/a/b"])
def test_path_that_does_not_exist(dataset: str) -> None:
    with pytest.raises(DataError, match=f"{dataset} is not a file or folder; check the path"):
        open_corpus(dataset, split="train")


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (
            "stories",
            {"unit": "paragraph"},
            "--unit 'paragraph' says what a document of a .txt file is, but stories is built in and has nothing to "
            "choose; leave it out",
        ),
        ("python-docs", {"revision": "main"}, "--revision 'main' names a commit of a dataset of the hub, but python-d"),
        ("stories", {"text_field": "text"}, "--text-field 'text' names the field or column .*, but stories is built"),
        ("stories", {"form": "ptb"}, "--form 'ptb' says in which tokenised form the texts are, but stories is built"),
        (
            "ptb",
            {"text_field": "body"},
            "--text-field 'body' .*, but ptb is known by name, which decides how it is read",
        ),
        ("ptb", {"unit": "line"}, "--unit 'line' says .*, but ptb is known by name"),
        ("owner/name", {"unit": "file"}, "--unit 'file' says .*, but owner/name is a dataset of the hub; leave it"),
        ("texts", {"streaming": True}, "--streaming reads a dataset of the hub over the network, but texts lies on th"),
        ("texts", {"revision": "v1"}, "--revision 'v1' .*, but texts lies on this machine; leave it out"),
        ("texts", {"text_field": "body"}, r"--text-field 'body' .*, but texts has only \.txt; leave it out"),
        (
            "rows",
            {"unit": "paragraph"},
            r"--unit 'paragraph' .*, but rows has only \.jsonl and \.parquet; leave it out",
        ),
        ("texts", {"form": "ptb", "unit": "paragraph"}, "the form ptb is read line by line, but the unit is paragraph"),
        (
            "stories",
            {"bad_records": "drop"},
            "--bad-records 'drop' says what becomes of lines that cannot be read, but",
        ),
        ("owner/name", {"bad_records": "refuse"}, "--bad-records 'refuse' .*, but owner/name is a dataset of the hub"),
        ("rows/b.parquet", {"bad_records": "drop"}, r"--bad-records 'drop' .*, but rows/b.parquet has only \.parquet"),
        ("texts", {"bad_records": "skip"}, "--bad-records is 'skip'; it must be one of refuse, drop"),
        (".", {"unit": "page"}, "the unit is 'page'; it must be one of paragraph, line, file"),
        (".", {"form": "wiki"}, "the form is 'wiki'; it must be one of wikitext, ptb, lm1b, lambada"),
        (".", {"form": "ptb", "unit": "file"}, "the form ptb is read line by line, but the unit is file"),
    ],
)
def test_options_that_do_not_fit(
    dataset: str, options: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("texts/a.txt", "rows/a.jsonl", "rows/b.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("One")
    with pytest.raises(ConfigError, match=message):
        open_corpus(dataset, split="train", **options)  # type: ignore[arg-type]


def test_options_that_some_file_reads(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One\nTwo")
    (tmp_path / "b.jsonl").write_text('{"body": "Three"}')
    corpus = open_corpus(str(tmp_path), split="train", unit="line", text_field="body")
    assert [document.text for document in corpus.documents()] == ["One", "Two", "Three"]
    as_lines = [open_corpus(str(tmp_path / "a.txt"), split="x", form="ptb", unit=unit) for unit in (None, "line")]
    assert as_lines[0] == as_lines[1]


@pytest.mark.parametrize(
    ("dataset", "name"), [("books/a*.txt", "books"), ("books/**/*.txt", "books"), ("b*/a.txt", "here")]
)
def test_pattern_is_called_by_its_folder(
    dataset: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "books").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("books/a.txt").write_text("One")
    corpus = open_corpus(dataset, split="train")
    assert corpus.name == name
    assert [document.text for document in corpus.documents()] == ["One"]


@pytest.mark.parametrize("dataset", ["stories", "python-docs", "."])
def test_corpora_are_plain_data(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("One")
    corpus = open_corpus(dataset, split="train").first(1)
    assert pickle.loads(pickle.dumps(corpus)) == corpus
    assert json.loads(json.dumps(corpus.source)) == corpus.source
    assert str(tmp_path) not in json.dumps(corpus.source)
