import contextlib
import itertools
import math
import tracemalloc
from collections import Counter
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import WorkerDiedError
from cascaded_dllm.importance import tfidf, word_runs
from cascaded_dllm.importance.tfidf import (
    DocumentFrequencies,
    TfidfScorer,
    document_frequencies,
    load_frequencies,
    save_frequencies,
)
from cascaded_dllm.text.document import Document

CORPUS = [
    Document("0", "The cat saw the dog."),
    Document("1", "THE bird saw nothing, the bird's eyes closed"),
    Document("2", ""),
    Document("3", "the end"),
]


def importance_of(scorer, text):
    return [(text[word.start : word.end], word.importance) for word in scorer.score([text])[0]]


def test_document_frequencies_count_documents_not_words():
    frequencies = document_frequencies(iter(CORPUS))
    assert frequencies.num_documents == 4
    assert frequencies.counts == {
        "the": 3,
        "cat": 1,
        "saw": 2,
        "dog": 1,
        "bird": 1,
        "bird's": 1,
        "nothing": 1,
        "eyes": 1,
        "closed": 1,
        "end": 1,
    }


def test_importance_is_tf_times_idf_over_the_largest():
    scorer = TfidfScorer(document_frequencies(CORPUS))
    found = dict(importance_of(scorer, "The dog saw the dog"))
    largest = 2 * math.log(4 / 1)
    assert found["dog"] == 1.0
    assert found["saw"] == pytest.approx(math.log(4 / 2) / largest, abs=1e-15)
    # Twice in the text, in three of four documents; upper and lower case are one word.
    assert found["The"] == found["the"] == pytest.approx(2 * math.log(4 / 3) / largest, abs=1e-15)


def test_unknown_word_counts_as_being_in_one_document():
    scorer = TfidfScorer(document_frequencies(CORPUS))
    found = dict(importance_of(scorer, "zebra dog"))
    assert found["zebra"] == found["dog"] == 1.0


def test_words_in_every_document_are_worth_nothing():
    scorer = TfidfScorer(document_frequencies([Document("0", "same words")]))
    assert importance_of(scorer, "same words same") == [("same", 0.0), ("words", 0.0), ("same", 0.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" ... !?", []),
        ("'quoted' don't dogs'", ["quoted", "don't", "dogs"]),
        ("rock\u2019n\u2019roll", ["rock\u2019n\u2019roll"]),
        ("cafe\u0301 na\u00efve", ["cafe\u0301", "na\u00efve"]),
        ("a_b 3.5 x2", ["a", "b", "3", "5", "x2"]),
        ("\u65e5\u672c \U0001f600 ok", ["\u65e5\u672c", "ok"]),
    ],
)
def test_words(text, words):
    scorer = TfidfScorer(DocumentFrequencies(10, {}))
    assert [word for word, _ in importance_of(scorer, text)] == words


def test_describe_tells_tables_apart():
    first = TfidfScorer(DocumentFrequencies(3, {"a": 1, "b": 2})).describe()
    assert first["num_documents"] == 3
    assert first == TfidfScorer(DocumentFrequencies(3, {"b": 2, "a": 1})).describe()
    assert first != TfidfScorer(DocumentFrequencies(3, {"a": 2, "b": 2})).describe()
    assert first != TfidfScorer(DocumentFrequencies(4, {"a": 1, "b": 2})).describe()
    assert TfidfScorer.background < 0


LETTERS = st.text("abc\u00e9\U0001d4d0", min_size=1, max_size=3)


@given(
    st.lists(st.lists(LETTERS, max_size=8), max_size=12),
    st.integers(1, 12),
    st.integers(1, 40),
    st.sampled_from([2, 64]),
)
def test_bounded_table_holds_exact_counts_of_the_frequent_words(documents, max_words, max_characters, max_runs):
    exact = Counter(word for words in documents for word in {word.lower() for word in words})
    corpus = [Document(str(number), " ".join(words)) for number, words in enumerate(documents)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_runs, "_MAX_RUNS", max_runs)
        patch.setattr(tfidf, "_BATCH_CHARACTERS", 20)
        found = document_frequencies(corpus, max_words=max_words, max_characters=max_characters)
        backwards = document_frequencies(corpus[::-1], max_words=max_words, max_characters=max_characters)
    assert found == backwards
    assert found.num_documents == len(documents)
    assert found.counts == {word: count for word, count in exact.items() if count >= found.fewest}
    assert found.left_out == len(exact) - len(found.counts)

    def fits(fewest):
        kept = [word for word, count in exact.items() if count >= fewest]
        return len(kept) <= max_words and sum(map(len, kept)) <= max_characters

    # The smallest number with which the table is within its bounds; a corpus within them is counted as ever.
    assert found.fewest == next(fewest for fewest in itertools.count(1) if fits(fewest))
    if fits(1):
        assert (found.fewest, found.left_out) == (1, 0)


def test_memory_does_not_grow_with_the_words(tmp_path, monkeypatch):
    monkeypatch.setattr(tfidf, "_BATCH_CHARACTERS", 10_000)
    peaks = []
    for max_words in (200, 1_000_000):
        texts = (f"every {'word' * 50}{number} x{number % 50}" for number in range(8_000))
        documents = (Document("", text) for text in texts)
        tracemalloc.start()
        found = document_frequencies(documents, folder=tmp_path, max_words=max_words)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        frequent = {word: count for word, count in found.counts.items() if count > 1}
        assert frequent == {"every": 8_000} | {f"x{number}": 160 for number in range(50)}
        assert (found.fewest, found.left_out) == ((2, 8_000) if max_words == 200 else (1, 0))
    assert peaks[0] < peaks[1] / 2
    assert list(tmp_path.iterdir()) == []


def test_processes_count_as_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(tfidf, "_BATCH_CHARACTERS", 100)
    began, real = [], tfidf.process_pool
    monkeypatch.setattr(
        tfidf, "process_pool", lambda number, **options: began.append(number) or real(number, **options)
    )
    corpus = [Document(str(number), f"Word{number % 7} the WORD{number % 3} w{number}") for number in range(90)]
    expected = document_frequencies(corpus)
    assert document_frequencies(corpus[:4], workers=2) == document_frequencies(corpus[:4])
    assert began == []
    for max_words in (1000, 12):
        found = document_frequencies(iter(corpus), workers=2, max_words=max_words, folder=tmp_path)
        assert found == document_frequencies(corpus, max_words=max_words)
        assert found.num_documents == 90
    assert (expected.counts["word2"], expected.counts["the"]) == (38, 90)
    assert began == [2, 2]


def test_a_large_machine_does_not_hold_the_corpus(monkeypatch):
    """However many processes there may be, what is read ahead of the counting has a bound."""
    given, asked = [], []

    @contextlib.contextmanager
    def pool(number, **options):
        asked.append(number)
        yield

    def in_order(_, function, items, *, ahead):
        given.append(ahead)
        return map(function, items)

    monkeypatch.setattr(tfidf, "process_pool", pool)
    monkeypatch.setattr(tfidf, "in_order", in_order)
    monkeypatch.setattr(tfidf, "_BATCH_CHARACTERS", 1)
    for workers in (3, 192):
        assert document_frequencies(CORPUS, workers=workers) == document_frequencies(CORPUS)
    assert (asked, given) == ([3, 8], [9, 24])


def test_killed_process_that_counts(monkeypatch):
    @contextlib.contextmanager
    def gone(*_, **options):
        yield mock.Mock(spec=ProcessPoolExecutor, submit=mock.Mock(side_effect=BrokenProcessPool("gone")))

    monkeypatch.setattr(tfidf, "process_pool", gone)
    monkeypatch.setattr(tfidf, "_BATCH_CHARACTERS", 1)
    with pytest.raises(WorkerDiedError, match=r"counts the words of the corpus was killed, .* with fewer workers"):
        document_frequencies(CORPUS, workers=2)


def test_a_line_that_is_one_word_has_no_room():
    texts = ["x" * 200, "fox y", "fox key", "key"]
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    found = document_frequencies(documents, max_characters=100)
    assert found == DocumentFrequencies(4, {"fox": 2, "key": 2}, 2, 2)
    # It is in one document, so log(fewest - 1) = 0 is too much by which it is off.
    assert found.inverse("y") == math.log(4)


def test_bounded_table_survives_the_disk_and_is_described(tmp_path):
    bounded = DocumentFrequencies(9, {"fox": 5, "\u65e5": 3}, 3, 70)
    save_frequencies(bounded, tmp_path / "table.json")
    assert load_frequencies(tmp_path / "table.json") == bounded
    described = TfidfScorer(bounded).describe()
    assert described == TfidfScorer(DocumentFrequencies(9, bounded.counts)).describe() | {
        "words_in_at_least": 3,
        "words_left_out": 70,
    }
