"""MAUVE: how near the law of written texts is to that of real ones (Pillutla et al. 2021, arXiv:2102.01454)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cascaded_dllm.errors import MissingExtraError
from cascaded_dllm.rng import derive_seed, numpy_generator

MIN_TEXTS = 100
"""Fewer texts on a side make fewer than 10 clusters, which hardly distinguish anything."""

_SCALING = 5
_NUM_WEIGHTS = 25
_TEXTS_PER_CLUSTER = 10
_EXPLAINED_VARIANCE = 0.9
_NUM_STARTS, _MAX_ITERATIONS = 5, 500
_NUM_RESAMPLES = 200

Features = Float[np.ndarray, "_ D"]


class Mauve(NamedTuple):
    """A score with its resolution and its error.

    Attributes:
        score: in [0, 1], 1 for two sets that fall into the same clusters in the same shares.
        num_clusters: of k-means.
        error: standard error of the score, from the scatter of the written texts; see `mauve`.
    """

    score: float
    num_clusters: int
    error: float


def mauve(samples: Features, reference: Features, *, seed: int) -> Mauve:
    """MAUVE of two sets of features, with the settings of the authors' package.

    Features are scaled to length 1, reduced to the directions that hold 90 % of their variance, and clustered by
    k-means over both sets together, one cluster for ten texts of the smaller set. The score compares the shares of the
    two sets in the clusters. A cluster has about twenty texts, however many there are, so two sets of one law have
    about 0.96, not 1; the fewer texts, the more it scatters (docs/evaluation.md has figures). Only scores of equally
    many texts of the same length with the same features compare.

    The error is that of a bootstrap over the written texts, with fixed clusters and reference: without some texts
    k-means ends elsewhere, so a jackknife would measure k-means and not the scatter of texts. The reference is the same
    for all texts that are compared with it, so its own scatter is left out.

    Args:
        samples: one row for every written text.
        reference: one row for every real text.
        seed: of the starts of k-means, and of the bootstrap.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    most = max(2, round(min(len(samples), len(reference)) / _TEXTS_PER_CLUSTER))
    labels = cluster_labels(np.concatenate([samples, reference]), num_clusters=most, seed=seed)
    num_clusters = int(labels.max()) + 1
    shares = [
        np.bincount(part, minlength=num_clusters) / len(part)
        for part in (labels[: len(samples)], labels[len(samples) :])
    ]
    generator = numpy_generator(seed, "mauve-bootstrap")
    drawn = generator.multinomial(len(samples), shares[0], size=_NUM_RESAMPLES) / len(samples)
    error = float(np.std([mauve_of_shares(p, shares[1]) for p in drawn], ddof=1))
    return Mauve(mauve_of_shares(*shares), num_clusters, error)


def cluster_labels(features: Features, *, num_clusters: int, seed: int) -> Int[np.ndarray, " M"]:
    """The cluster of every row, 0 .. k - 1; fewer clusters than asked for where there are fewer different rows.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="eval", purpose="MAUVE") from error

    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    # A feature of zeros has no direction and stays as it is.
    unit = features / np.where(lengths == 0, 1, lengths)
    num_clusters = min(num_clusters, len(np.unique(unit, axis=0)))
    if num_clusters == 1:
        return np.zeros(len(unit), dtype=np.int64)
    # scikit-learn takes seeds of 32 bits.
    start = derive_seed(seed, "mauve") % (1 << 32)
    reduced = PCA(n_components=_EXPLAINED_VARIANCE, svd_solver="full").fit_transform(unit)
    means = KMeans(num_clusters, n_init=_NUM_STARTS, max_iter=_MAX_ITERATIONS, random_state=start)
    labels: Int[np.ndarray, " M"] = means.fit_predict(reduced).astype(np.int64)
    return labels


def mauve_of_shares(p: Float[np.ndarray, " K"], q: Float[np.ndarray, " K"]) -> float:
    """The area under the divergence frontier of two laws over the same K clusters; section 2 of the paper.

        C(P, Q) = { (exp(-c KL(Q | R_w)), exp(-c KL(P | R_w))) : R_w = w P + (1 - w) Q, 0 < w < 1 },   c = 5

    with the ends (1, 0) and (0, 1), by the trapezoid rule over 25 weights. With rising w the first coordinate falls and
    the second one rises, so no point has to be sorted; and as both ends lie on the axes, the area is the same seen from
    either of them.

    Args:
        p: shares of the written texts, adding up to 1.
        q: shares of the real texts.
    """
    w = np.linspace(1e-6, 1 - 1e-6, _NUM_WEIGHTS)[:, None]
    mixed = w * p + (1 - w) * q
    x = np.concatenate([[1.0], np.exp(-_SCALING * _kl_nats(q, mixed)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-_SCALING * _kl_nats(p, mixed)), [1.0]])
    return float(((y[1:] + y[:-1]) / 2 * (x[:-1] - x[1:])).sum())


def _kl_nats(p: Float[np.ndarray, " K"], mixed: Float[np.ndarray, "W K"]) -> Float[np.ndarray, " W"]:
    """KL(p | mixed) for every mixture; a cluster where p is 0 adds nothing, and no mixture is 0 where p is not."""
    has = p > 0
    return np.asarray((p[has] * np.log(p[has] / mixed[:, has])).sum(axis=1))
