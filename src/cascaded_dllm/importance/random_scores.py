"""Importance by chance: the control against which a study shows that it matters which words are kept."""

import hashlib
from collections.abc import Sequence
from typing import final

from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.importance.tfidf import PUNCTUATION, WORD
from cascaded_dllm.rng import derive_seed, numpy_generator

DRAWN_PER = ("occurrence", "word")
"""What a number of its own is drawn for; the first is the default."""

_BITS = 24
"""Of a number: all that float32, in which shards keep it, can hold below 1."""


@final
class RandomScorer:
    """Scorer of the method "random": every word at a number drawn uniformly from [0, 1), punctuation at -1.

    The words are those of the method "tfidf". Drawn per occurrence, a number depends on the seed, the text and which of
    its words it is for, so that neither batches nor the order of documents matter; equal texts have equal numbers. Such
    a choice of words cannot be foretold from the text's law, and a joint bound pays for it, -log p(z | x).

    Drawn per word, a number depends on the seed and the lower-cased word alone, whatever the text. Then a choice is a
    function of the text, as with importance that means something, and costs nothing: what is left of the difference is
    whether it matters which words come first.

    Args:
        seed: any integer.
        per: one of `DRAWN_PER`; `ScorerChoice.check` sees to it.
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
        """The seed, and "per" where it is no occurrence, which older datasets do not name; see `Scorer.describe`."""
        return {"seed": self._seed, "per": "word"} if self._is_per_word else {"seed": self._seed}

    def _score(self, text: str) -> list[Word]:
        spans = [match.span() for match in WORD.finditer(text)]
        digest = hashlib.sha256(text.encode()).digest()
        generator = numpy_generator(self._seed, "random importance", int.from_bytes(digest[:8], "little"))
        # In float32, as shards keep it: 0.99999999 would be rounded to 1.
        drawn = generator.random(len(spans), dtype="float32").tolist()
        return [Word(start, end, value) for (start, end), value in zip(spans, drawn, strict=True)]

    def _score_per_word(self, text: str) -> list[Word]:
        return [Word(*match.span(), self._of_word(match.group().lower())) for match in WORD.finditer(text)]

    def _of_word(self, word: str) -> float:
        return (derive_seed(self._seed, f"random importance of the word {word}") >> (63 - _BITS)) / (1 << _BITS)
