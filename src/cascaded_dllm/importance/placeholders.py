"""Placeholders, with which a corpus replaces words: they are not words of the text, so they have no importance."""

import re
from collections.abc import Sequence

from cascaded_dllm.importance.base import JsonScalar, Scorer, Word

PLACEHOLDER = "<unk>"
"""Replaces every rare word in WikiText and the Penn Treebank; a tagger would take it for a noun or a name."""

_BETWEEN_SPACES = re.compile(r"\S+")


class WithoutPlaceholders:
    """A scorer with the words of another scorer, except placeholders, whose tokens get the background.

    A "word" with spaces, such as a phrase or a sentence, loses only the pieces between spaces that hold a placeholder.

    Args:
        scorer: the other scorer.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.method, self.background = scorer.method, scorer.background

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text; see `Scorer.score`."""
        return [_outside(text, words) for text, words in zip(texts, self._scorer.score(texts), strict=True)]

    def describe(self) -> dict[str, JsonScalar]:
        """The description of the other scorer, and the placeholder; see `Scorer.describe`."""
        return {**self._scorer.describe(), "placeholder": PLACEHOLDER}


def _outside(text: str, words: list[Word]) -> list[Word]:
    """The words, or their parts, that share no character with a placeholder."""
    hidden = {place for match in re.finditer(PLACEHOLDER, text) for place in range(*match.span())}
    return [part for word in words for part in _parts(text, word, hidden)] if hidden else words


def _parts(text: str, word: Word, hidden: set[int]) -> list[Word]:
    """The word, if it shares no character with a placeholder; else those of its pieces between spaces that do not."""
    if hidden.isdisjoint(range(word.start, word.end)):
        return [word]
    spans = (match.span() for match in _BETWEEN_SPACES.finditer(text, word.start, word.end))
    return [Word(*span, word.importance) for span in spans if hidden.isdisjoint(range(*span))]
