"""From any file to shards, by every method: texts come back, every token has one importance, counts add up."""

import functools
import json
import lzma
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cascaded_dllm.assemble.scorers import make_tagger
from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.custom import CustomScorer
from cascaded_dllm.importance.keybert import KeybertScorer
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.importance.tfidf import TfidfScorer, document_frequencies
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.importance import tiny_models

PIECES = st.sampled_from(
    [
        "The cat",
        " sea.",
        " na\u00efve",
        "cafe\u0301",
        "don't",
        "<|endoftext|>",
        "\u65e5\u672c\u8a9e",
        "\U0001f98a",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0130",
        "\x00",
        "\x1b[31m",
        "\x85\u2028",
        "\ufeff",
        "\U0010ffff",
        "\r\n",
        "\n\n",
        " \t ",
    ]
)
TEXT = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map("".join)
# What is no text: no value, and half of a surrogate pair.
DOCUMENTS = st.lists(st.one_of(TEXT, st.none(), st.just("x\ud83d")), max_size=7)
ODD = ["", " \n\t\u3000", "\x00", "\x00\x01\x02" * 50, "\U0001f98a" * 99, "\u65e5" * 300, None, "\udc00", "."]
LONG = ["x" * 200_000, "the sea, " * 3_000, "\u65e5" * 20_000, "\x00\x1b" * 100_000, "\U0001f98a" * 10_000]

RUNS_OF_LETTERS = """
import re

def f(texts):
    return [[(*run.span(), run.end() % 5 - 2) for run in re.finditer("[a-z]+", text)] for text in texts]
"""


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["The na\u00efve cat, the cafe\u0301 and the sea don't. \u65e5\u672c \U0001f98a"] * 2, 320)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers", reason="the extra `preprocess` is not installed")
    return tiny_models.save_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=[*SELECTION_METHODS, "random per word"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer | None:
    """None for tf-idf, which counts the words of the corpus itself."""
    match request.param:
        case "constituency":
            pytest.importorskip("textblob", reason="the extra `preprocess` is not installed")
            return PosScorer(make_tagger("english"))
        case "keybert" | "keybert_no_stopword" as method:
            model = request.getfixturevalue("model")
            return KeybertScorer(model, stop_words_last=method == "keybert_no_stopword", device="cpu")
        case "random":
            return RandomScorer(0)
        case "random per word":
            return RandomScorer(0, "word")
        case "custom":
            file = tmp_path_factory.mktemp("custom") / "runs.py"
            file.write_text(RUNS_OF_LETTERS)
            return CustomScorer(f"{file}:f")
    return None


def scorer_of(scorer: Scorer | None, corpus: Corpus) -> Scorer:
    return TfidfScorer(document_frequencies(corpus.documents())) if scorer is None else scorer


def reason_of(text: str | None) -> str | None:
    """Why a record is dropped; None where it is kept."""
    if text is None:
        return "null text"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "lone surrogate"
    return None if text.strip() else "empty"


def check(texts: list[str | None], scorer: Scorer | None, num_shards: int, is_packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)).encode()
        path = Path(folder, "a.jsonl.xz" if is_packed else "a.jsonl")
        path.write_bytes(lzma.compress(content) if is_packed else content)
        corpus = open_corpus(str(path), split="train")
        made = preprocess_corpus(
            corpus,
            split="train",
            out_dir=Path(folder),
            tokenizer=tokenizer(),
            scorer=scorer_of(scorer, corpus),
            num_shards=num_shards,
        )
        check_dataset(PreprocessedDataset.open(made), texts)


def check_dataset(dataset: PreprocessedDataset, texts: list[str | None]) -> None:
    reasons = {str(number): reason_of(text) for number, text in enumerate(texts)}
    kept = {str(number): text for number, text in enumerate(texts) if text is not None and reasons[str(number)] is None}
    numbers = list(reasons)
    for index, shard in enumerate(dataset.shards):
        records = list(shard.records())
        mine = numbers[index :: dataset.settings.num_shards]
        assert [record.id for record in records] == [name for name in mine if name in kept]
        assert shard.counts.dropped == Counter(reasons[name] for name in mine if reasons[name])
        for record in records:
            assert dataset_text(record.token_ids) == kept[record.id]
            assert len(record.importance) == len(record.token_ids)
            assert np.isfinite(record.importance).all()
    assert dataset.counts.records == len(texts)
    assert dataset.counts.characters == sum(map(len, kept.values()))
    assert dataset.counts.dropped_characters == sum(
        len(text) for text in texts if text is not None and reason_of(text) is not None
    )


def dataset_text(token_ids: np.ndarray) -> str:
    return tokenizer().decode(token_ids.tolist())


@pytest.mark.slow
@settings(max_examples=20)
@given(texts=DOCUMENTS, num_shards=st.integers(1, 4), is_packed=st.booleans())
@example(texts=ODD, num_shards=3, is_packed=True)
@example(texts=["The cat\x00\x1b sea. \U0001f98a", *ODD[::-1]], num_shards=1, is_packed=False)
def test_every_record_is_a_document_or_counted(
    scorer: Scorer | None, texts: list[str | None], num_shards: int, is_packed: bool
) -> None:
    check(["The first is a text.", *texts], scorer, num_shards, is_packed)


@pytest.mark.slow
def test_long_lines(scorer: Scorer | None) -> None:
    check([*LONG, *ODD], scorer, 2, is_packed=False)
