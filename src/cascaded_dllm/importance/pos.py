"""Importance by part of speech: proper nouns first, then nouns, verbs, adjectives, adverbs and the rest."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from cascaded_dllm.importance.base import JsonScalar, Word


class PosLabel(IntEnum):
    """The priority of a word: tokens are kept by rising label. Tokens outside all words have NONE."""

    HEAD_PROPER_NOUN = 1
    PROPER_NOUN = 2
    NOUN = 3
    VERB = 4
    ADJECTIVE = 5
    ADVERB = 6
    OTHER = 7
    NONE = -100


# One number object per label: a new one for every word would take a quarter of the word's memory.
_IMPORTANCE = {label: float(label) for label in PosLabel}

CLASSES = ("NNP", "NN", "VB", "JJ", "RB", "XX")
"""The Penn tags that stand for the classes of words: proper nouns, nouns, verbs, adjectives, adverbs, and all else.
Labels also distinguish heads and stop words."""


class TaggedWord(NamedTuple):
    """A word `text[start:end]` with its Penn Treebank tag, and whether it is a stop word."""

    start: int
    end: int
    text: str
    tag: str
    is_stop: bool


@runtime_checkable
class Tagger(Protocol):
    """Splits texts into words and tags them; `name` distinguishes taggers and their versions."""

    name: str

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text, in text order and without white space; an empty text has none."""
        ...


def pos_labels(tags: Sequence[str], is_stop: Sequence[bool]) -> list[PosLabel]:
    """The label of every word of one text.

    The last word of a run of proper nouns is its head: of "Ada Lovelace", a short version keeps "Lovelace" first. A
    verb that is a stop word ("is", "have") carries no content and counts as OTHER.

    Args:
        tags: Penn Treebank tags in text order.
        is_stop: whether each word is a stop word.
    """
    followers = [*tags[1:], ""][: len(tags)]
    return [_label(tag, follower, stop=stop) for tag, follower, stop in zip(tags, followers, is_stop, strict=True)]


def class_of(tag: str) -> int:
    """The index in CLASSES of the class of a Penn tag."""
    other = len(CLASSES) - 1
    return next((number for number, prefix in enumerate(CLASSES[:other]) if tag.startswith(prefix)), other)


def _label(tag: str, follower: str, *, stop: bool) -> PosLabel:
    """The label of one word, given the tag of the next one."""
    if tag.startswith("NNP"):
        return PosLabel.PROPER_NOUN if follower.startswith("NNP") else PosLabel.HEAD_PROPER_NOUN
    if tag.startswith("NN"):
        return PosLabel.NOUN
    if tag.startswith("VB"):
        return PosLabel.OTHER if stop else PosLabel.VERB
    if tag.startswith("JJ"):
        return PosLabel.ADJECTIVE
    if tag.startswith("RB"):
        return PosLabel.ADVERB
    return PosLabel.OTHER


class PosScorer:
    """Scorer of the method "constituency": the importance of a word is its `PosLabel`, smaller is kept longer."""

    method = "constituency"
    background = float(PosLabel.NONE)

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their labels; see `Scorer.score`."""
        return [_label_words(words) for words in self._tagger.tag(texts)]

    def describe(self) -> dict[str, JsonScalar]:
        """The tagger's name; see `Scorer.describe`."""
        return {"tagger": self._tagger.name}


def _label_words(words: Sequence[TaggedWord]) -> list[Word]:
    """The tagged words of one text with their labels as importance."""
    labels = pos_labels([word.tag for word in words], [word.is_stop for word in words])
    return [Word(word.start, word.end, _IMPORTANCE[label]) for word, label in zip(words, labels, strict=True)]
