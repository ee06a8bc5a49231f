"""What stands in a corpus for words that it does not tell: no word of the text, and never one that matters."""

import re
from collections.abc import Sequence

from cascaded_dllm.importance.base import JsonScalar, Scorer, Word

PLACEHOLDER = "<unk>"
"""Of WikiText and of the Penn Treebank, in place of every rare word; a tagger takes it for a noun or a name."""

_BETWEEN_SPACES = re.compile(r"\S+")


class WithoutPlaceholders:
    """A scorer whose words are those of another one, but for placeholders, whose tokens get the background.

    What is no word but a phrase, or a whole sentence, loses the word with the placeholder only.

    Args:
        scorer: the other one.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.method, self.background = scorer.method, scorer.background

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text; see `Scorer.score`."""
        return [_outside(text, words) for text, words in zip(texts, self._scorer.score(texts), strict=True)]

    def describe(self) -> dict[str, JsonScalar]:
        """That of the other scorer, and the placeholder; see `Scorer.describe`."""
        return {**self._scorer.describe(), "placeholder": PLACEHOLDER}


def _outside(text: str, words: list[Word]) -> list[Word]:
    """The words that share no character with a placeholder."""
    hidden = {place for match in re.finditer(PLACEHOLDER, text) for place in range(*match.span())}
    return [part for word in words for part in _parts(text, word, hidden)] if hidden else words


def _parts(text: str, word: Word, hidden: set[int]) -> list[Word]:
    """The word, if it shares no character with a placeholder, and else what of it stands between other spaces."""
    if hidden.isdisjoint(range(word.start, word.end)):
        return [word]
    spans = (match.span() for match in _BETWEEN_SPACES.finditer(text, word.start, word.end))
    return [Word(*span, word.importance) for span in spans if hidden.isdisjoint(range(*span))]
