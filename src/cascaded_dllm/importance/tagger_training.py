"""Learning the weights of a linear tagger: multinomial logistic regression, rounded to small integers."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from cascaded_dllm.errors import MissingExtraError
from cascaded_dllm.importance.english import WordSplitter, import_parser, sentences
from cascaded_dllm.importance.tagged_corpora import CLASSES, NO_TAG, TaggedText, class_of
from cascaded_dllm.importance.tagger_features import BOUNDARY, FIRST, ROLES, WordFeatures, word_features
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, Weights, bucket
from cascaded_dllm.importance.word_layout import Layout, lay_out, stack_properties

UNKNOWN = -1
"""Class of a word from which nothing is learnt."""

MIN_COUNT = 4
"""Features that are rarer in the corpus are left out."""
PENALTY = 5.0
"""Half of it times the sum of the squared weights is added to the loss."""
LARGEST = 127
"""Of the integer weights."""

# Parts of the sentences that are learnt from once more in another case, for the names of careless writers and for the
# words of headlines. Longer sentences are no headlines.
_IN_SMALL, _IN_CAPITALS, _AS_TITLE = 0.15, 0.05, 0.2
_LONGEST_TITLE = 13

_RARE = -1

Matrix: TypeAlias = Any
"""A sparse matrix of scipy, words by features."""
Flat: TypeAlias = Float64[np.ndarray, " weights"]
"""The weights of all features, and of each those of all classes."""


class Example(NamedTuple):
    """A sentence.

    Attributes:
        words: as our rules have them.
        classes: of each word, the place in CLASSES or UNKNOWN.
        begins_paragraph: whether each word does.
    """

    words: list[str]
    classes: list[int]
    begins_paragraph: list[bool]


def examples(texts: Iterable[TaggedText]) -> Iterator[Example]:
    """The sentences of tagged texts.

    A word has a class if it is one of the tagged words exactly; the others, such as the parts of "e-mail", are only
    looked at as neighbours.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    splitter = WordSplitter("training a tagger")
    for text in texts:
        classes = {gold[:2]: class_of(gold.tag) for gold in text.words if gold.tag != NO_TAG}
        for words in splitter.split(text.text):
            for sentence in sentences(words):
                yield Example(
                    [word.text for word in sentence],
                    [classes.get((word.start, word.end), UNKNOWN) for word in sentence],
                    [word.begins_paragraph for word in sentence],
                )


def with_other_cases(sentences: Sequence[Example]) -> list[Example]:
    """The sentences, and behind them some of them once more in small letters, in capitals and as headlines."""
    draws = random.Random(0)
    changes: list[tuple[float, Callable[[str], str], int | None]] = [
        (_IN_SMALL, str.lower, None),
        (_IN_CAPITALS, str.upper, None),
        (_AS_TITLE, lambda word: word[0].upper() + word[1:], _LONGEST_TITLE),
    ]
    result = list(sentences)
    for part, change, longest in changes:
        for words, classes, begins in sentences:
            if draws.random() < part and (longest is None or len(words) <= longest):
                result.append(Example([change(word) for word in words], classes, [True, *begins[1:]]))
    return result


def train(sentences: Sequence[Example], *, iterations: int, progress: Callable[[int, float], None]) -> Weights:
    """The weights with the highest penalised likelihood of the classes, as far as the iterations go.

    Args:
        sentences: at least one of their words has a class.
        iterations: of L-BFGS.
        progress: called after each with its number and the loss in nats a word.

    Raises:
        MissingExtraError: TextBlob or scipy is not installed.
    """
    minimize, sparse = _import_scipy()
    layout, features = _laid_out(sentences)
    classes = np.array([number for sentence in sentences for number in sentence.classes])
    known = np.flatnonzero(classes != UNKNOWN)
    words, hashes = _occurrences(layout, features, known)
    columns, buckets = _columns(hashes)
    frequent = columns != _RARE
    ones = np.ones(np.count_nonzero(frequent), dtype=np.float32)
    shape = (len(known), len(buckets))
    loss = _Loss(sparse.csr_matrix((ones, (words[frequent], columns[frequent])), shape=shape), classes[known])
    done = itertools.count(1)
    best = minimize(
        loss,
        np.zeros(len(buckets) * len(CLASSES)),
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: progress(next(done), loss.latest / len(known)),
        # The gradient need not vanish: it stops after the iterations.
        options={"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 6},
    )
    table = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    table[buckets] = np.rint(best.x * (LARGEST / max(np.abs(best.x).max(), 1e-9))).reshape(-1, len(CLASSES))
    return table


class _Loss:
    """The penalised negative log likelihood of the classes, and its gradient.

    Args:
        matrix: how often every word has each feature.
        classes: of every word.
    """

    def __init__(self, matrix: Matrix, classes: Int64[np.ndarray, " words"]) -> None:
        self._matrix = matrix
        self._transposed = matrix.T.tocsr()
        self._is_class = np.eye(len(CLASSES), dtype=np.float32)[classes]
        self.latest = 0.0

    def __call__(self, flat: Flat) -> tuple[float, Flat]:
        weights = flat.reshape(-1, len(CLASSES))
        sums = self._matrix @ weights.astype(np.float32)
        sums -= sums.max(axis=1, keepdims=True)
        powers = np.exp(sums)
        totals = powers.sum(axis=1, keepdims=True)
        nats = np.log(totals[:, 0]) - (sums * self._is_class).sum(axis=1)
        gradient = self._transposed @ (powers / totals - self._is_class) + PENALTY * weights
        self.latest = float(nats.sum(dtype=np.float64)) + PENALTY / 2 * float(flat @ flat)
        return self.latest, gradient.ravel()


def _laid_out(sentences: Sequence[Example]) -> tuple[Layout, list[WordFeatures]]:
    """All words in a row, and the table of their features."""
    words = [word for sentence in sentences for word in sentence.words]
    table = {word: row for row, word in enumerate(dict.fromkeys([BOUNDARY, *words]))}
    lexicon = dict(import_parser("training a tagger").lexicon)
    features = [word_features(word, lexicon) for word in table]
    layout = lay_out(
        np.array([table[word] for word in words]),
        np.array([begins for sentence in sentences for begins in sentence.begins_paragraph]),
        np.array([word.is_word for word in features]),
        np.array([word.ends_sentence for word in features]),
    )
    return layout, features


def _occurrences(
    layout: Layout, features: Sequence[WordFeatures], known: Int64[np.ndarray, " known"]
) -> tuple[Int64[np.ndarray, " occurrences"], UInt64[np.ndarray, " occurrences"]]:
    """Every feature of every known word: the place of the word in `known`, and the hash."""
    words, hashes = [], []
    for number, role in enumerate(ROLES):
        lengths = np.array([len(word.by_role[number]) for word in features])
        flat = np.concatenate([word.by_role[number] for word in features])
        starts = np.cumsum(lengths) - lengths
        rows = layout.at(role.offset)[known]
        counts = lengths[rows] * layout.is_first[known] if role is FIRST else lengths[rows]
        word = np.repeat(np.arange(len(known)), counts)
        within = np.arange(len(word)) - np.repeat(np.cumsum(counts) - counts, counts)
        words.append(word)
        hashes.append(flat[starts[rows][word] + within])
    for found in layout.joint_hashes(stack_properties(features)):
        words.append(np.arange(len(known)))
        hashes.append(found[known])
    return np.concatenate(words), np.concatenate(hashes)


def _columns(
    hashes: UInt64[np.ndarray, " occurrences"],
) -> tuple[Int64[np.ndarray, " occurrences"], Int64[np.ndarray, " columns"]]:
    """The column of every occurrence, or _RARE, and the bucket of every column."""
    distinct, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    frequent = counts >= MIN_COUNT
    buckets, columns = np.unique(bucket(distinct[frequent]), return_inverse=True)
    of_distinct = np.full(len(distinct), _RARE)
    of_distinct[frequent] = columns
    return of_distinct[inverse], buckets


def _import_scipy() -> tuple[Any, Any]:
    try:
        from scipy import sparse
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingExtraError("scipy", extra="preprocess", purpose="training a tagger") from error
    return minimize, sparse
