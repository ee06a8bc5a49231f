"""A tagger that adds up integer weights: small, fast, trained on any tagged corpus, the same on every machine."""

import hashlib
import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Int32

from cascaded_dllm.importance.english import PIECE_CHARACTERS, SplitWord, WordSplitter, import_parser
from cascaded_dllm.importance.pos import TaggedWord
from cascaded_dllm.importance.tagged_corpora import CLASSES
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
# Of the distinct words whose sums are kept. Memory is bounded, whatever the size of a corpus.
MAX_WORDS = 1 << 17

Sums: TypeAlias = Int32[np.ndarray, "words classes"]


@final
class LinearTagger:
    """Tags by the word, its neighbours and TextBlob's lexicon; the class with the largest sum of weights wins.

    A word's class is one of CLASSES, and its tag the Penn tag that stands for the class, or XX. Classes do not depend
    on those of other words, so that all words are decided together. Words and stop words are those of spaCy's rules.

    Args:
        weights: of the features, see `tagger_weights`.
        title: how the tagger is called.

    Raises:
        MissingExtraError: spaCy or TextBlob is not installed.
    """

    def __init__(self, weights: Weights, title: str) -> None:
        self._splitter = WordSplitter("LinearTagger")
        self._table = _Table(weights, dict(import_parser("LinearTagger").lexicon))
        versions = [f"{library} {importlib.metadata.version(library)}" for library in ("textblob", "spacy")]
        digest = hashlib.sha256(weights.tobytes()).hexdigest()[:16]
        self.name = f"{title} ({', '.join([digest, *versions])})"

    @classmethod
    def load(cls, path: str | Path) -> "LinearTagger":
        """The tagger whose weights are in a file of `save_weights`.

        Raises:
            DataError: the file is missing, truncated or foreign.
            MissingExtraError: spaCy or TextBlob is not installed.
        """
        return cls(read_weights(Path(path)), "linear")

    @classmethod
    def shipped(cls) -> "LinearTagger":
        """The tagger "english", which comes with the package.

        Raises:
            MissingExtraError: spaCy or TextBlob is not installed.
        """
        return cls(read_weights(SHIPPED), "english")

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        return [words for group in _groups(texts) for words in self._tag(group)]

    def _tag(self, texts: Sequence[str]) -> Iterator[list[TaggedWord]]:
        split = [list(itertools.chain.from_iterable(self._splitter.split(text))) for text in texts]
        tags = iter(self._tags([word for words in split for word in words]))
        for words in split:
            yield [TaggedWord(start, end, text, next(tags), is_stop) for start, end, text, is_stop, _ in words]

    def _tags(self, words: Sequence[SplitWord]) -> list[str]:
        sums = self._table.sums([word.text for word in words], [word.begins_paragraph for word in words])
        return [CLASSES[number] for number in sums.argmax(axis=1).tolist()]


@final
class _Table:
    """The sums of the weights of single words, by their role, each computed once.

    Args:
        weights: of the features.
        lexicon: the usual tag of a word.
    """

    def __init__(self, weights: Weights, lexicon: Mapping[str, str]) -> None:
        self._weights = weights
        self._lexicon = lexicon
        self._clear()

    def sums(self, words: Sequence[str], begins_paragraph: Sequence[bool]) -> Sums:
        """The sums of the weights of every class for every word."""
        if len(self._rows) > MAX_WORDS:
            self._clear()
        rows = np.array([self._rows.get(word) or self._add(word) for word in words], dtype=np.int64)
        layout = lay_out(rows, np.array(begins_paragraph, dtype=bool), self._is_word, self._ends_sentence)
        total = np.zeros((len(rows), len(CLASSES)), dtype=np.int32)
        for number, role in enumerate(ROLES):
            sums = self._sums[layout.at(role.offset), number]
            total += sums * layout.is_first[:, None] if role is FIRST else sums
        for hashes in layout.joint_hashes(self._properties):
            total += self._weights[bucket(hashes)]
        return total

    def _clear(self) -> None:
        self._rows: dict[str, int] = {}
        self._sums = np.zeros((1024, len(ROLES), len(CLASSES)), dtype=np.int32)
        self._properties = np.zeros((1024, NUM_PROPERTIES), dtype=np.uint64)
        self._is_word = np.zeros(1024, dtype=bool)
        self._ends_sentence = np.zeros(1024, dtype=bool)
        self._add(BOUNDARY)

    def _add(self, word: str) -> int:
        row = len(self._rows)
        if row == len(self._sums):
            self._sums, self._properties = _doubled(self._sums), _doubled(self._properties)
            self._is_word, self._ends_sentence = _doubled(self._is_word), _doubled(self._ends_sentence)
        features = word_features(word, self._lexicon)
        self._sums[row] = [self._sum(hashes) for hashes in features.by_role]
        self._properties[row] = features.properties
        self._is_word[row], self._ends_sentence[row] = features.is_word, features.ends_sentence
        self._rows[word] = row
        return row

    def _sum(self, hashes: Hashes) -> Int32[np.ndarray, " classes"]:
        return self._weights[bucket(hashes)].sum(axis=0, dtype=np.int32)


def _doubled(array: np.ndarray) -> np.ndarray:
    """The array with room for as many rows again."""
    return np.concatenate([array, np.zeros_like(array)])


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in groups that are worth NumPy's while and need little memory."""
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if characters >= PIECE_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
