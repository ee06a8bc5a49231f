import hashlib
import subprocess
import sys

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


def test_a_word_has_one_number_in_all_texts():
    """Also in another process, so that these are no hashes of Python's; large and small letters are alike."""
    scorer = RandomScorer(7, "word")
    the, cat, saw, dog = values(scorer, "The CAT saw dog")
    assert values(scorer, TEXTS[0]) == values(scorer, TEXTS[2]) == [the, cat, saw, the, dog]
    assert len({the, cat, saw, dog}) == 4
    module = "cascaded_dllm.importance.random_scores"
    code = f"from {module} import RandomScorer; print(RandomScorer(7, 'word').score(['A CAT'])[0][1].importance)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(told) == cat
    # By hand: the first 24 of 63 bits.
    digest = hashlib.sha256(b"7\x1frandom importance of the word cat").digest()
    assert cat == (int.from_bytes(digest[:8], "little") >> 40) / 2**24


def test_another_seed_has_another_order_of_words():
    words = [f"word{number}" for number in range(2000)]
    one, other = (np.array(values(RandomScorer(seed, "word"), " ".join(words))) for seed in (0, 1))
    # Of independent numbers a correlation has the deviation 1 / sqrt(2000), 0.022.
    assert abs(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1]) < 0.11
    assert len(set(one)) == 2000


def test_words_and_places_are_the_same_per_word():
    spans = [[word[:2] for word in words] for words in RandomScorer(0).score(TEXTS)]
    assert [[word[:2] for word in words] for words in RandomScorer(0, "word").score(TEXTS)] == spans


@pytest.mark.parametrize("text", ["word " * 100_000, " ".join(f"w{number}" for number in range(100_000))])
def test_numbers_are_uniform_and_fit_the_shards(text):
    """Of one word at many places, and of as many words."""
    drawn = np.array(values(RandomScorer(0, "occurrence" if text.startswith("word") else "word"), text))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.array_equal(drawn.astype(np.float32).astype(np.float64), drawn)
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    # Chi-square with 19 degrees of freedom exceeds 66 once in a million times.
    assert ((counts - 5000) ** 2 / 5000).sum() < 66


def test_describe():
    """As older datasets have it, whose fingerprints stay."""
    assert RandomScorer(3).describe() == RandomScorer(3, "occurrence").describe() == {"seed": 3}
    assert RandomScorer(3, "word").describe() == {"seed": 3, "per": "word"}
    with pytest.raises(TypeError):
        RandomScorer()
