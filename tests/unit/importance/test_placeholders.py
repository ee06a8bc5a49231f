"""Placeholders are no words, whatever the scorer; all else is as it finds it."""

import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.importance.base import JsonScalar, Scorer, Word, align
from cascaded_dllm.importance.placeholders import PLACEHOLDER, WithoutPlaceholders
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.importance.tfidf import PUNCTUATION, DocumentFrequencies, TfidfScorer

SCORERS = (RandomScorer(3, "word"), TfidfScorer(DocumentFrequencies(4, {"unk": 3, "fox": 1})))


def test_placeholder_is_never_kept_first() -> None:
    """As one token or as three, which a tokenizer without it makes of it."""
    text = "The <unk> saw a <unk>fox, an unk and <UNK>."
    for scorer in SCORERS:
        wrapped = WithoutPlaceholders(scorer)
        assert isinstance(wrapped, Scorer)
        assert (wrapped.method, wrapped.background) == (scorer.method, PUNCTUATION)
        ((found, plain)) = wrapped.score([text])[0], scorer.score([text])[0]
        assert [text[word.start : word.end] for word in found] == ["The", "saw", "a", "fox", "an", "unk", "and", "UNK"]
        assert set(plain) > set(found)
        for offsets in ([(4, 9)], [(3, 5), (5, 8), (8, 9)]):
            assert align(found, offsets, wrapped.background) == [PUNCTUATION] * len(offsets)


def test_phrase_loses_the_placeholder_only() -> None:
    """A function of the user's own may name whole sentences, and WikiText has a placeholder in nearly all of them."""

    class Phrases:
        method, background = "custom", -9.0

        def score(self, texts: Sequence[str]) -> list[list[Word]]:
            return [[Word(0, 3, 1.0), Word(4, len(text), 2.0)] for text in texts]

        def describe(self) -> dict[str, JsonScalar]:
            return {}

    text = "The saw <unk>, and a <unk>fox ran"
    (found,) = WithoutPlaceholders(Phrases()).score([text])
    assert [(text[start:end], importance) for start, end, importance in found] == [
        ("The", 1),
        ("saw", 2),
        ("and", 2),
        ("a", 2),
        ("ran", 2),
    ]


@given(st.lists(st.text("a <unk>", max_size=30), max_size=4))
def test_all_other_words_are_as_they_were(texts: list[str]) -> None:
    """What is left out shares a character with a placeholder, and nothing else does."""
    for scorer in SCORERS:
        scored = zip(texts, WithoutPlaceholders(scorer).score(texts), scorer.score(texts), strict=True)
        for text, found, plain in scored:
            hidden = {place for match in re.finditer(PLACEHOLDER, text) for place in range(match.start(), match.end())}
            assert found == [word for word in plain if not hidden & set(range(word.start, word.end))]


def test_what_it_says_of_itself() -> None:
    assert WithoutPlaceholders(RandomScorer(3)).describe() == {"seed": 3, "placeholder": "<unk>"}
