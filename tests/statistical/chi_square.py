"""Pearson's test, for frequencies of draws against the probabilities they should have."""

import torch
from scipy.stats import chi2
from torch import Tensor

FALSE_ALARM = 1e-6
"""A test fails if a fit this bad has a smaller probability; seeds are fixed, so it does so always or never."""

SMALLEST_EXPECTED = 8.0


def p_value(counts: Tensor, probabilities: Tensor) -> float:
    """Probability of a fit at least as bad by chance; 0 if something impossible was drawn.

    Cells of fewer than 8 expected draws are counted as one.
    """
    counts, probabilities = counts.flatten().double(), probabilities.flatten().double()
    assert counts.shape == probabilities.shape
    assert abs(float(probabilities.sum()) - 1) < 1e-6
    if (counts[probabilities == 0] > 0).any():
        return 0.0
    expected = probabilities * counts.sum()
    is_rare = expected < SMALLEST_EXPECTED
    if is_rare.any():
        counts = torch.cat([counts[~is_rare], counts[is_rare].sum()[None]])
        expected = torch.cat([expected[~is_rare], expected[is_rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    if len(counts) == 1:
        return 1.0
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, len(counts) - 1))


def fits(counts: Tensor, probabilities: Tensor) -> bool:
    """Whether the counts may well come from the probabilities."""
    return p_value(counts, probabilities) > FALSE_ALARM


def is_refuted(counts: Tensor, probabilities: Tensor) -> bool:
    """Whether the counts cannot reasonably come from the probabilities: what a test of power asserts."""
    return p_value(counts, probabilities) < FALSE_ALARM
