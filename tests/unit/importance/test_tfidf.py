import math

import pytest

from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer, document_frequencies
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
