import numpy as np
import pytest

from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.importance.tfidf import DocumentFrequencies, TfidfScorer

TEXTS = ["The cat saw the dog.", "", "The cat saw the dog!", "\u65e5\u672c \U0001f600 ok don't", " ... "]


def values(scorer, text):
    return [word.importance for word in scorer.score([text])[0]]


def test_words_are_those_of_tfidf():
    spans = [[word[:2] for word in words] for words in RandomScorer(0).score(TEXTS)]
    assert spans == [[word[:2] for word in words] for words in TfidfScorer(DocumentFrequencies(9, {})).score(TEXTS)]
    assert isinstance(RandomScorer(0), Scorer)
    assert (RandomScorer.method, RandomScorer.background) == ("random", -1.0)


def test_a_number_is_of_the_seed_the_text_and_the_place():
    scorer = RandomScorer(7)
    together = scorer.score(TEXTS)
    assert [scorer.score([text])[0] for text in TEXTS] == together
    assert RandomScorer(7).score(TEXTS[::-1])[::-1] == together
    first = values(scorer, TEXTS[0])
    assert len(set(first)) == 5
    assert not set(first) & set(values(scorer, TEXTS[2]))
    assert not set(first) & set(values(RandomScorer(8), TEXTS[0]))


def test_numbers_are_uniform_and_fit_the_shards():
    drawn = np.array(values(RandomScorer(0), "word " * 100_000))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.array_equal(drawn.astype(np.float32).astype(np.float64), drawn)
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    # Chi-square with 19 degrees of freedom exceeds 66 once in a million times.
    assert ((counts - 5000) ** 2 / 5000).sum() < 66


def test_describe():
    assert RandomScorer(3).describe() == {"seed": 3}
    with pytest.raises(TypeError):
        RandomScorer()
