"""MAUVE against the authors' package, against an integral, and by hand."""

import itertools
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import MissingExtraError
from cascaded_dllm.evaluate.mauve import cluster_labels, mauve, mauve_of_shares

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra eval)")


def library():
    """The authors' module, with what it computes from shares in clusters and from features."""
    return pytest.importorskip("mauve.compute_mauve", reason="mauve-text is not installed (extra dev)")


def library_score(p, q):
    """The area as the package computes it, which sorts the points."""
    module = library()
    curve = module.get_divergence_curve_for_multinomials(p, q, np.linspace(1e-6, 1 - 1e-6, 25), 5)
    x, y = curve.T
    by_x, by_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    area = module.compute_area_under_curve
    return (area(x[by_x], y[by_x]) + area(y[by_y], x[by_y])) / 2


def normal_features(num, shift, seed):
    """Points around two places of a space of 12 dimensions, in each of which they are moved by `shift`."""
    generator = np.random.default_rng(seed)
    centre = np.where(generator.random((num, 1)) < 0.5, 2.0, -1.0)
    return generator.normal(size=(num, 12)) + centre + shift


COUNTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6).filter(
    lambda pairs: all(sum(side) > 0 for side in zip(*pairs, strict=True))
)


@pytest.mark.slow
def test_the_error_is_the_spread_over_written_texts():
    """30 sets of texts on the same reference, of its law or another one; roughly, since clusters move with texts."""
    errors = {}
    for num, shift in ((100, 0.0), (400, 0.0), (400, 0.4)):
        reference = normal_features(num, 0.0, 1)
        found = [mauve(normal_features(num, shift, 10 + seed), reference, seed=0) for seed in range(30)]
        errors[num, shift] = np.mean([one.error for one in found])
        assert 0.6 <= errors[num, shift] / np.std([one.score for one in found], ddof=1) <= 1.7
    # A quarter of the texts has twice the error.
    assert errors[100, 0.0] == pytest.approx(2 * errors[400, 0.0], rel=0.2)
    assert mauve(reference[:100], reference, seed=0) == mauve(reference[:100], reference, seed=0)


@given(COUNTS)
def test_equals_the_library_on_the_same_clusters(pairs):
    p, q = (np.array(side) / sum(side) for side in zip(*pairs, strict=True))
    # Where both are alike all points of its curve are one, and how it sorts them decides.
    expected = 1.0 if np.allclose(p, q) else library_score(p, q)
    assert mauve_of_shares(p, q) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_near_the_library_on_the_same_features(shift):
    """Clusters are found by another k-means, from other starts: a few hundredths lie between two seeds of either."""
    p, q = normal_features(400, shift, 0), normal_features(500, 0.0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of faiss, about few points in a cluster
        theirs = library().compute_mauve(p_features=p, q_features=q)
    ours = mauve(p, q, seed=0)
    assert ours.num_clusters == theirs.num_buckets == 40
    assert ours.score == pytest.approx(theirs.mauve, abs=0.06)


def test_is_the_paper_s_area():
    """Of two clusters, by an integral over a thousand times as many weights."""
    p, q = np.array([0.7, 0.3]), np.array([0.4, 0.6])

    def divergence(a, w):
        return sum(ai * math.log(ai / (w * pi + (1 - w) * qi)) for ai, pi, qi in zip(a, p, q, strict=True))

    points = [
        (math.exp(-5 * divergence(q, w)), math.exp(-5 * divergence(p, w))) for w in np.linspace(1e-9, 1 - 1e-9, 25001)
    ]
    points = [(1.0, 0.0), *points, (0.0, 1.0)]
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    assert mauve_of_shares(p, q) == pytest.approx(area, abs=2e-3)


def test_ends_of_the_scale():
    """Equal laws have 1. Of laws that share nothing the points are ((1 - w)^5, w^5), as KL(P | R_w) is -log w: the
    area is the integral of w^5 * 5 (1 - w)^4, which is 5 B(6, 5) = 5 * 5! 4! / 10!.
    """
    half = np.array([0.5, 0.5])
    assert mauve_of_shares(half, half) == pytest.approx(1)
    apart = mauve_of_shares(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert apart == pytest.approx(5 * math.factorial(5) * math.factorial(4) / math.factorial(10), abs=2e-4)


@given(COUNTS)
def test_is_symmetric_and_in_range(pairs):
    p, q = (np.array(side) / sum(side) for side in zip(*pairs, strict=True))
    assert mauve_of_shares(p, q) == pytest.approx(mauve_of_shares(q, p), abs=1e-9)
    assert 0 < mauve_of_shares(p, q) <= 1 + 1e-9


def test_falls_with_the_distance():
    real = normal_features(300, 0.0, 0)
    scores = [mauve(normal_features(300, shift, 1), real, seed=0).score for shift in (0.0, 0.5, 2.0)]
    assert scores[0] > 0.8
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 0.3


def test_seed_decides():
    p, q = normal_features(200, 0.2, 0), normal_features(200, 0.0, 1)
    assert mauve(p, q, seed=3) == mauve(p, q, seed=3)
    assert len({mauve(p, q, seed=seed).score for seed in range(4)}) > 1


def test_clusters_that_can_be_told_apart():
    """Lengths do not count, and the label of a point is that of its direction."""
    directions = np.repeat(np.eye(3), 5, axis=0)
    lengths = np.linspace(1, 9, 15)[:, None]
    labels = cluster_labels(directions * lengths, num_clusters=3, seed=0)
    assert [set(labels[i : i + 5]) for i in (0, 5, 10)] == [{label} for label in labels[::5]]
    assert len(set(labels)) == 3


def test_fewer_different_texts_than_clusters():
    """Copies of one text or two are in as many clusters; nothing is divided by a variance of 0."""
    one = np.ones((120, 4))
    assert mauve(one, one, seed=0) == (pytest.approx(1), 1, pytest.approx(0, abs=1e-9))
    two = np.repeat(np.eye(4)[:2], 60, axis=0)
    assert mauve(two, two, seed=0)[:2] == (pytest.approx(1), 2)
    assert mauve(np.zeros((120, 4)), one, seed=0).num_clusters == 2


def test_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=r"MAUVE needs scikit-learn, .*'cascaded-dllm\[eval\]'"):
        mauve(np.eye(4), np.eye(4), seed=0)
