import functools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.importance.base import Word, align
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.taggers import LexiconTagger
from cascaded_dllm.importance.tfidf import TfidfScorer, document_frequencies
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer

WORDS = [
    "The",
    "fox",
    "na\u00efve",
    "cafe\u0301",
    "don't",
    "Ada",
    "Lovelace",
    "12",
    "\u65e5\u672c",
    "<|endoftext|>",
    "e",
    "\u0301",
]
EMOJI = ["\U0001f98a", "\U0001f468\u200d\U0001f469\u200d\U0001f467"]
MARKS = [".", ",", "!?", " ", "  ", "\n", "\n\n", "\t", "\r\n"]
PIECES = st.sampled_from([*WORDS, *EMOJI, *MARKS])
TEXT = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=15).map("".join)
TEXTS = st.lists(TEXT, max_size=8)


@functools.cache
def tokenizer():
    return Tokenizer.train(["The naïve fox, the cafe\u0301 and the fox don't.", "Ada Lovelace \U0001f98a"], 300)


@functools.cache
def scorers():
    corpus = [Document("0", "The fox"), Document("1", "the cafe\u0301 12")]
    return [TfidfScorer(document_frequencies(corpus)), PosScorer(LexiconTagger())]


SCORER_NUMBERS = st.sampled_from([0, 1])


def needs_lexicon():
    pytest.importorskip("spacy", reason="the extra `preprocess` is not installed")
    pytest.importorskip("textblob", reason="the extra `preprocess` is not installed")


def assert_same_in_any_batch(scorer, texts, size):
    together = scorer.score(texts)
    assert len(together) == len(texts)
    batches = [scorer.score(texts[start : start + size]) for start in range(0, len(texts), size)]
    assert [words for batch in batches for words in batch] == together
    with_empty = scorer.score([text for pair in ((text, "") for text in texts) for text in pair])
    assert with_empty[::2] == together
    assert all(words == [] for words in with_empty[1::2])


@given(TEXTS, SCORER_NUMBERS, st.integers(1, 4))
def test_score_does_not_depend_on_the_batch(texts, number, size):
    needs_lexicon()
    assert_same_in_any_batch(scorers()[number], texts, size)


@given(TEXT, SCORER_NUMBERS)
def test_words_are_in_order_and_not_empty(text, number):
    needs_lexicon()
    (words,) = scorers()[number].score([text])
    end = 0
    for word in words:
        assert end <= word.start < word.end <= len(text)
        assert not text[word.start : word.end].isspace()
        end = word.end


@given(TEXT)
@example("\U0001f98a fox\U0001f98a \u0065\u0301t \U0001f468\u200d\U0001f469\u200d\U0001f467!")
def test_every_sub_word_token_inherits_its_word(text):
    """Words are the runs of characters that are no space; each has an importance of its own."""
    words = [Word(m.start(), m.end(), float(number)) for number, m in enumerate(re.finditer(r"\S+", text))]
    owner = {place: word.importance for word in words for place in range(word.start, word.end)}
    encoding = tokenizer().encode(text)
    importance = align(words, encoding.offsets, -1.0)
    assert len(importance) == len(encoding.ids)
    for (start, end), value in zip(encoding.offsets, importance, strict=True):
        inside = [owner[place] for place in range(start, end) if place in owner]
        # The word with most characters in the token; the earliest of equals.
        assert value == max(dict.fromkeys(inside), key=inside.count, default=-1.0)
    # No word is lost: each has a token, as no token of this tokenizer reaches over white space into a second word.
    assert set(importance) - {-1.0} == {word.importance for word in words}


@given(st.lists(st.integers(0, 6), max_size=8), st.lists(st.integers(1, 6), max_size=12))
def test_alignment_against_counting_characters(gaps, token_lengths):
    words, place = [], 0
    for number, gap in enumerate(gaps):
        words.append(Word(place + gap, place + gap + 1 + gap % 3, float(number)))
        place = words[-1].end
    offsets, start = [], 0
    for length in token_lengths:
        offsets.append((start, start + length))
        start += length
    expected = []
    for token_start, token_end in offsets:
        shared = [
            (len(set(range(token_start, token_end)) & set(range(word.start, word.end))), -number)
            for number, word in enumerate(words)
        ]
        best = max(shared, default=(0, 0))
        expected.append(words[-best[1]].importance if best[0] else -7.0)
    assert align(words, offsets, -7.0) == expected
