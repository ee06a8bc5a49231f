"""A tagger that adds up integer weights: small, fast, trainable on any tagged corpus, the same on every machine."""

import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Int8, Int32

from cascaded_dllm.importance.english import MAX_WORDS, SplitText, WordSplitter, read_lexicon, require_libraries
from cascaded_dllm.importance.pos import CLASSES, TaggedWord
from cascaded_dllm.importance.tagger_features import (
    BOUNDARY,
    FIRST,
    NUM_PROPERTIES,
    ROLES,
    Hashes,
    word_features,
)
from cascaded_dllm.importance.tagger_weights import Weights, bucket, read_weights
from cascaded_dllm.importance.word_layout import lay_out

SHIPPED = Path(__file__).with_name("english_tagger.npz")
# Characters that are tagged together: enough for NumPy to be fast, few enough to need little memory.
_GROUP_CHARACTERS = 100_000
# The weights of a bucket, one for each of CLASSES, are padded to the 8 bytes that are fetched at once.
_PADDED = 8

Sums: TypeAlias = Int32[np.ndarray, "words classes"]


@final
class LinearTagger:
    """Tags by the word, its neighbours and TextBlob's lexicon; the class with the largest sum of weights wins.

    The tag of a word is one of CLASSES: the Penn tag that stands for its class, or XX. The class of a word does not
    depend on the classes of others, so all words are classified at once. Words and stop words are those of spaCy's
    rules.

    Args:
        weights: of the features, see `tagger_weights`.
        title: begins the name of the tagger.

    Raises:
        MissingExtraError: spaCy or TextBlob is not installed.
    """

    def __init__(self, weights: Weights, title: str) -> None:
        self._purpose, self._given_weights = f"the tagger {title}", weights
        require_libraries(self._purpose)
        versions = [f"{library} {importlib.metadata.version(library)}" for library in ("textblob", "spacy")]
        digest = hashlib.sha256(weights.tobytes()).hexdigest()[:16]
        self.name = f"{title} ({', '.join([digest, *versions])})"

    @classmethod
    def load(cls, path: Path) -> "LinearTagger":
        """The tagger whose weights are in a file of `save_weights`.

        Raises:
            DataError: the file is missing, truncated or foreign.
            MissingExtraError: spaCy or TextBlob is not installed.
        """
        return cls(read_weights(path), "linear")

    @classmethod
    def shipped(cls) -> "LinearTagger":
        """The tagger "english", which comes with the package.

        Raises:
            MissingExtraError: spaCy or TextBlob is not installed.
        """
        return cls(read_weights(SHIPPED), "english")

    # Made when needed: the process that plans a job only asks for the name, and the libraries take seconds to import.
    @functools.cached_property
    def _splitter(self) -> WordSplitter:
        return WordSplitter(self._purpose)

    @functools.cached_property
    def _table(self) -> "_Table":
        return _Table(self._given_weights, read_lexicon(self._purpose))

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        tagged: list[list[TaggedWord]] = [[] for _ in texts]
        for group in _groups(_pieces(texts)):
            for piece, words in zip(group, self._tag(group), strict=True):
                tagged[piece.number] += words
        return tagged

    def _tag(self, pieces: Sequence["_Piece"]) -> Iterator[list[TaggedWord]]:
        splits = [self._splitter.split(piece.text) for piece in pieces]
        numbers = iter(self._table.sums(splits).argmax(axis=1).tolist())
        for piece, split in zip(pieces, splits, strict=True):
            starts = (piece.start + start for start in split.starts)
            columns = zip(starts, split.words, split.is_stop, strict=True)
            yield [
                TaggedWord(start, start + len(word), word, CLASSES[next(numbers)], is_stop)
                for start, word, is_stop in columns
            ]


@final
class _Table:
    """For each distinct word, the sums of the weights of its features by role, computed once.

    Args:
        weights: of the features.
        lexicon: word -> its usual tag.
    """

    def __init__(self, weights: Weights, lexicon: Mapping[str, str]) -> None:
        # NumPy gathers 8-byte numbers several times faster than rows of 6 bytes.
        padded = np.zeros((len(weights), _PADDED), dtype=np.int8)
        padded[:, : len(CLASSES)] = weights
        self._weights = padded.view(np.uint64)[:, 0]
        self._lexicon = lexicon
        self._forget()

    def sums(self, splits: Sequence[SplitText]) -> Sums:
        """For every word of the texts, the sum of weights of every class."""
        words = [word for split in splits for word in split.words]
        if len(self._rows) > MAX_WORDS:
            self._forget()
        self._learn(words)
        rows = np.array([self._rows[word] for word in words], dtype=np.int64)
        begins_paragraph = np.array([begins for split in splits for begins in split.begins_paragraph], dtype=bool)
        layout = lay_out(rows, begins_paragraph)
        total = np.zeros((len(layout.at(0, layout.rows)), _PADDED), dtype=np.int32)
        for hashes in layout.joint_hashes(self._properties):
            total += self._weights_of(hashes)
        for number, role in enumerate(ROLES):
            if role is not FIRST:
                total += layout.at(role.offset, self._sums[layout.rows, number])
        total = total[layout.places]
        begins_sentence = np.flatnonzero([begins for split in splits for begins in split.begins_sentence])
        total[begins_sentence] += self._sums[rows[begins_sentence], ROLES.index(FIRST)]
        return total[:, : len(CLASSES)]

    def _weights_of(self, hashes: Hashes) -> Int8[np.ndarray, "features padded"]:
        return self._weights[bucket(hashes)].view(np.int8).reshape(-1, _PADDED)

    def _forget(self) -> None:
        self._rows: dict[str, int] = {}
        self._sums = np.zeros((0, len(ROLES), _PADDED), dtype=np.int32)
        self._properties = np.zeros((0, NUM_PROPERTIES), dtype=np.uint64)
        self._learn([BOUNDARY])

    def _learn(self, words: Sequence[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._rows]
        if not new:
            return
        features = word_features(new, self._lexicon)
        starts = np.cumsum(features.counts) - features.counts.ravel()
        sums = np.add.reduceat(self._weights_of(features.hashes), starts, axis=0, dtype=np.int32)
        self._sums = np.concatenate([self._sums, sums.reshape(len(new), len(ROLES), _PADDED)])
        self._properties = np.concatenate([self._properties, features.properties])
        self._rows.update(zip(new, range(len(self._rows), len(self._properties)), strict=True))


class _Piece(NamedTuple):
    """Whole paragraphs of a text.

    Attributes:
        number: of the text.
        start: the place in the text at which they begin.
        text: the paragraphs.
    """

    number: int
    start: int
    text: str


def _pieces(texts: Iterable[str]) -> Iterator[_Piece]:
    """The texts, long ones in pieces that end with an empty line: tags do not depend on other paragraphs."""
    for number, text in enumerate(texts):
        start = 0
        while (end := text.find("\n\n", start + _GROUP_CHARACTERS)) >= 0:
            yield _Piece(number, start, text[start : end + 2])
            start = end + 2
        yield _Piece(number, start, text[start:])


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """The pieces in groups of _GROUP_CHARACTERS or a little more."""
    group: list[_Piece] = []
    characters = 0
    for piece in pieces:
        group.append(piece)
        characters += len(piece.text)
        if characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
