"""Differences of arms against computations by hand."""

import math

import numpy as np
import pytest

from cascaded_dllm.study.pairs import paired_difference, pairs

NATS = {
    ("flat", 0): np.array([10.0, 20.0, 30.0]),
    ("placed", 0): np.array([9.0, 18.0, 27.0]),
    ("flat", 1): np.array([11.0, 19.0, 30.0]),
    ("placed", 1): np.array([10.0, 19.0, 28.0]),
}
COMPARED = [("placed", "flat")]


def test_paired_difference():
    """Differences -1, -2, -3: mean -2, deviation 1, error 1 / sqrt(3); unpaired it would be 5.6."""
    assert paired_difference(NATS["placed", 0], NATS["flat", 0]) == pytest.approx((-2.0, 1 / math.sqrt(3)))
    assert paired_difference(np.array([1.0]), np.array([3.0])) == (-2.0, None)


def test_pairs_are_of_one_seed():
    assert [(pair["seed"], pair["mean_nats_per_window"]) for pair in pairs(NATS, COMPARED)] == [(0, -2.0), (1, -1.0)]
    alone = {("flat", 0): NATS["flat", 0], ("placed", 1): NATS["placed", 1]}
    assert pairs(alone, COMPARED) == []
