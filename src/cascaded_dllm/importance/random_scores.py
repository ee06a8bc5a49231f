"""Importance by chance: the control against which a study shows that it matters which words are kept."""

import hashlib
from collections.abc import Sequence
from typing import final

from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.importance.tfidf import PUNCTUATION, WORD
from cascaded_dllm.rng import numpy_generator


@final
class RandomScorer:
    """Scorer of the method "random": every word at a number drawn uniformly from [0, 1), punctuation at -1.

    The words are those of the method "tfidf". A number depends on the seed, the text and which of its words it is for,
    so that neither batches nor the order of documents matter; equal texts have equal numbers.

    Args:
        seed: any integer.
    """

    method = "random"
    background = PUNCTUATION

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their importance; see `Scorer.score`."""
        return [self._score(text) for text in texts]

    def describe(self) -> dict[str, JsonScalar]:
        """The seed; see `Scorer.describe`."""
        return {"seed": self._seed}

    def _score(self, text: str) -> list[Word]:
        spans = [match.span() for match in WORD.finditer(text)]
        digest = hashlib.sha256(text.encode()).digest()
        generator = numpy_generator(self._seed, "random importance", int.from_bytes(digest[:8], "little"))
        # In float32, as shards keep it: 0.99999999 would be rounded to 1.
        drawn = generator.random(len(spans), dtype="float32").tolist()
        return [Word(start, end, value) for (start, end), value in zip(spans, drawn, strict=True)]
