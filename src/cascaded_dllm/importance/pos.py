"""Importance by part of speech: proper nouns first, then nouns, verbs, adjectives, adverbs and the rest."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from cascaded_dllm.importance.base import JsonScalar, Word


class PosLabel(IntEnum):
    """The priority of a word; tokens are kept by RISING label, and tokens labelled NONE never."""

    HEAD_PROPER_NOUN = 1
    PROPER_NOUN = 2
    NOUN = 3
    VERB = 4
    ADJECTIVE = 5
    ADVERB = 6
    OTHER = 7
    NONE = -100


# A number that is made anew for every word takes as much memory as a quarter of the word.
_IMPORTANCE = {label: float(label) for label in PosLabel}

CLASSES = ("NNP", "NN", "VB", "JJ", "RB", "XX")
"""What the labels distinguish besides heads and stop words, each by the Penn tag that stands for it: proper nouns,
nouns, verbs, adjectives, adverbs, and all else."""


class TaggedWord(NamedTuple):
    """A word `text[start:end]` with its Penn Treebank tag; `is_stop` says that it is a function word."""

    start: int
    end: int
    text: str
    tag: str
    is_stop: bool


@runtime_checkable
class Tagger(Protocol):
    """Splits texts into words and tags them; `name` tells taggers and their versions apart."""

    name: str

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text, in text order and without white space; an empty text has none."""
        ...


def pos_labels(tags: Sequence[str], is_stop: Sequence[bool]) -> list[PosLabel]:
    """The label of every word of one text.

    The last word of a run of proper nouns is its head: in "Ada Lovelace" it is "Lovelace" that a short version keeps
    first. A verb that is a stop word ("is", "have") carries no content and counts as OTHER.

    Args:
        tags: Penn Treebank tags in text order.
        is_stop: whether each word is a stop word.
    """
    followers = [*tags[1:], ""][: len(tags)]
    return [_label(tag, follower, stop=stop) for tag, follower, stop in zip(tags, followers, is_stop, strict=True)]


def class_of(tag: str) -> int:
    """The place in CLASSES of a Penn tag."""
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
