"""The protocol of a scorer, and the step from the importance of words to the importance of tokens."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from cascaded_dllm.errors import ConfigError

JsonScalar: TypeAlias = str | int | float | bool


class Word(NamedTuple):
    """A word of a text, the characters `text[start:end]`, with its importance for a short version of that text."""

    start: int
    end: int
    importance: float


@runtime_checkable
class Scorer(Protocol):
    """Finds the words of texts and the importance of each; the unit of importance is the scorer's own.

    Attributes:
        method: the selection rule (cascade.select) that understands this scorer's numbers.
        background: importance of a token outside all words.
    """

    method: str
    background: float

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text, in text order and not overlapping.

        There is one list per text, also for an empty text. The words of a text do not depend on the other texts.
        """
        ...

    def describe(self) -> dict[str, JsonScalar]:
        """Everything that changes the result of `score`; it goes into the manifest and its fingerprint."""
        ...


def description_of(scorer: Scorer) -> dict[str, Any]:
    """What a scorer says of itself, which is to be stored as JSON.

    Raises:
        ConfigError: it is not a dictionary, or JSON cannot hold it.
    """
    found: Any = scorer.describe()
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the scorer describes itself by {found!r}, which JSON cannot hold ({error}); give texts and plain numbers"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"the scorer describes itself by {found!r}; it must be a dictionary")
    return found


def align(words: Sequence[Word], offsets: Iterable[tuple[int, int]], background: float) -> list[float]:
    """The importance of every token: that of the word with which it shares most characters, the first one in a tie.

    Words and sub-word tokens have only their characters in common: a token may be a part of a word, begin with the
    space before it, or reach over several words.

    Args:
        words: in text order, not overlapping.
        offsets: the characters [start, end) of every token, in text order. Each piece of a character that is spread
            over several tokens has the offsets of the whole character.
        background: for tokens that share no character with any word.
    """
    importance: list[float] = []
    first = 0
    for start, end in offsets:
        while first < len(words) and words[first].end <= start:
            first += 1
        best, best_shared = background, 0
        for index in range(first, len(words)):
            word = words[index]
            if word.start >= end:
                break
            shared = min(end, word.end) - max(start, word.start)
            if shared > best_shared:
                best, best_shared = word.importance, shared
        importance.append(best)
    return importance
