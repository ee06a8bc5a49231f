"""Random importance: the control with which a study shows that it matters which words are kept."""

import hashlib
from collections.abc import Sequence
from typing import final

from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.importance.tfidf import PUNCTUATION, WORD
from cascaded_dllm.rng import derive_seed, numpy_generator

DRAWN_PER = ("occurrence", "word")
"""Whether every occurrence or every distinct word gets its own number; the first is the default."""

_BITS = 24
"""Bits of a number in [0, 1): float32, in which shards store it, represents all of these numbers exactly."""


@final
class RandomScorer:
    """Scorer of the method "random": every word gets a uniform random number in [0, 1), punctuation -1.

    The words are those of the method "tfidf". Drawn per occurrence, a number depends on the seed, the text and the
    place of the word among its words, not on batches or the order of documents; equal texts have equal numbers. A
    model cannot predict such a choice z of words from the text x, and its joint bound pays for it with -log p(z | x).

    Drawn per word, a number depends only on the seed and the lower-cased word. Then the choice is a function of the
    text, as with importance that means something, and costs nothing. What remains of the difference between methods
    shows whether it matters which words come first.

    Args:
        seed: any integer.
        per: one of `DRAWN_PER`; `ScorerChoice.check` checks it.
    """

    method = "random"
    background = PUNCTUATION

    def __init__(self, seed: int, per: str = DRAWN_PER[0]) -> None:
        assert per in DRAWN_PER, per
        self._seed, self._is_per_word = seed, per == "word"

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their importance; see `Scorer.score`."""
        return [self._score_per_word(text) if self._is_per_word else self._score(text) for text in texts]

    def describe(self) -> dict[str, JsonScalar]:
        """The seed, and "per" unless it is "occurrence", as in older datasets; see `Scorer.describe`."""
        return {"seed": self._seed, "per": "word"} if self._is_per_word else {"seed": self._seed}

    def _score(self, text: str) -> list[Word]:
        spans = [match.span() for match in WORD.finditer(text)]
        digest = hashlib.sha256(text.encode()).digest()
        generator = numpy_generator(self._seed, "random importance", int.from_bytes(digest[:8], "little"))
        # In float32, as shards store it: there a float64 such as 0.99999999 would be rounded to 1.
        drawn = generator.random(len(spans), dtype="float32").tolist()
        return [Word(start, end, value) for (start, end), value in zip(spans, drawn, strict=True)]

    def _score_per_word(self, text: str) -> list[Word]:
        return [Word(*match.span(), self._of_word(match.group().lower())) for match in WORD.finditer(text)]

    def _of_word(self, word: str) -> float:
        return (derive_seed(self._seed, f"random importance of the word {word}") >> (63 - _BITS)) / (1 << _BITS)
