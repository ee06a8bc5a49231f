"""Trains the weights of a linear tagger: multinomial logistic regression, rounded to small integers."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance.english import read_lexicon
from cascaded_dllm.importance.pos import CLASSES, class_of
from cascaded_dllm.importance.tagger_examples import NO_TAG, Example
from cascaded_dllm.importance.tagger_features import BOUNDARY, FIRST, ROLES, word_features
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, Weights, bucket
from cascaded_dllm.importance.word_layout import lay_out

MIN_COUNT = 4
"""Features with fewer occurrences in the corpus are left out."""
PENALTY = 5.0
"""The loss includes half of this times the sum of the squared weights."""
LARGEST = 127
"""Largest absolute value of the integer weights."""

_RARE = -1

Matrix: TypeAlias = Any
"""A sparse matrix of scipy, words by features."""
Flat: TypeAlias = Float64[np.ndarray, " weights"]
"""The weights of all features, those of one feature for all classes together."""


def train(sentences: Sequence[list[Example]], *, iterations: int, progress: Callable[[int, float], None]) -> Weights:
    """The weights that maximise the penalised likelihood of the classes, after a number of iterations.

    Args:
        sentences: the examples.
        iterations: maximum number of iterations of L-BFGS.
        progress: called after each iteration with its number and the loss in nats a word, penalty included.

    Raises:
        DataError: too few words have a tag, or the file of TextBlob's lexicon is missing.
        MissingExtraError: TextBlob or scipy is not installed.
    """
    minimize, sparse = _import_scipy()
    examples = [word for sentence in sentences for word in sentence]
    known = np.array([place for place, word in enumerate(examples) if word.tag != NO_TAG], dtype=np.int64)
    if len(known) < MIN_COUNT:
        raise DataError(
            f"{len(known)} of the {len(examples)} words have a tag, and at least {MIN_COUNT} must; give a corpus of "
            "English whose words are split as the Penn Treebank does"
        )
    classes = np.array([class_of(examples[place].tag) for place in known])
    words, hashes = _occurrences(examples, known)
    columns, buckets = _columns(hashes)
    frequent = columns != _RARE
    ones = np.ones(np.count_nonzero(frequent))
    shape = (len(known), len(buckets))
    loss = _Loss(sparse.csr_matrix((ones, (words[frequent], columns[frequent])), shape=shape), classes)
    done = itertools.count(1)
    best = minimize(
        loss,
        np.zeros(len(buckets) * len(CLASSES)),
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: progress(next(done), loss.latest / len(known)),
        # The iterations end the search, before the gradient vanishes.
        options={"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 6},
    )
    table = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    table[buckets] = np.rint(best.x * (LARGEST / max(np.abs(best.x).max(), 1e-9))).reshape(-1, len(CLASSES))
    return table


@final
class _Loss:
    """The penalised negative log likelihood of the classes in nats, and its gradient.

    Args:
        matrix: the number of times that every word has each feature.
        classes: the class of every word.
    """

    def __init__(self, matrix: Matrix, classes: Int64[np.ndarray, " words"]) -> None:
        self._matrix = matrix
        self._transposed = matrix.T.tocsr()
        self._is_class = np.eye(len(CLASSES))[classes]
        self.latest = 0.0

    def __call__(self, flat: Flat) -> tuple[float, Flat]:
        weights = flat.reshape(-1, len(CLASSES))
        # In double precision, so that the integer weights are the same on processors that round other last bits.
        sums = self._matrix @ weights
        sums -= sums.max(axis=1, keepdims=True)
        powers = np.exp(sums)
        totals = powers.sum(axis=1, keepdims=True)
        nats = np.log(totals[:, 0]) - (sums * self._is_class).sum(axis=1)
        gradient = self._transposed @ (powers / totals - self._is_class) + PENALTY * weights
        self.latest = float(nats.sum()) + PENALTY / 2 * float(flat @ flat)
        return self.latest, gradient.ravel()


def _occurrences(
    examples: Sequence[Example], known: Int64[np.ndarray, " known"]
) -> tuple[Int64[np.ndarray, " occurrences"], UInt64[np.ndarray, " occurrences"]]:
    """Every feature of every word that has a tag, as the index of the word in `known` and the hash of the feature.

    Args:
        examples: all words.
        known: the places of the words that have a tag.
    """
    table = {text: row for row, text in enumerate(dict.fromkeys([BOUNDARY, *(word.text for word in examples)]))}
    features = word_features(list(table), read_lexicon("training a tagger"))
    layout = lay_out(
        np.array([table[word.text] for word in examples]), np.array([word.begins_paragraph for word in examples])
    )
    begins_sentence = np.array([examples[place].begins_sentence for place in known])
    ends = np.cumsum(features.counts).reshape(features.counts.shape)
    words, hashes = [], []
    for number, role in enumerate(ROLES):
        rows = layout.at(role.offset, layout.rows)[layout.places[known]]
        counts = features.counts[rows, number] * (begins_sentence if role is FIRST else 1)
        word = np.repeat(np.arange(len(known)), counts)
        # Distance of each feature from the end of its word's features.
        behind = np.repeat(np.cumsum(counts), counts) - np.arange(len(word))
        words.append(word)
        hashes.append(features.hashes[ends[rows, number][word] - behind])
    for found in layout.joint_hashes(features.properties):
        words.append(np.arange(len(known)))
        hashes.append(found[layout.places[known]])
    return np.concatenate(words), np.concatenate(hashes)


def _columns(
    hashes: UInt64[np.ndarray, " occurrences"],
) -> tuple[Int64[np.ndarray, " occurrences"], Int64[np.ndarray, " columns"]]:
    """The column of every occurrence, or _RARE, and the bucket of every column; features of a bucket share a column."""
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
