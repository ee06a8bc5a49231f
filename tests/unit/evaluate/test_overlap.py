"""Both shares against their definitions, written out with loops and recursion."""

import functools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.evaluate.overlap import multiset_overlap_per_text, ordered_coverage_per_text

IDS = st.integers(0, 3)


@st.composite
def batches(draw):
    """Prefixes and targets of a few texts over four tokens, so that much repeats."""
    num_texts, length, target_length = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rows = st.lists(IDS, min_size=length, max_size=length)
    target_rows = st.lists(IDS, min_size=target_length, max_size=target_length)
    prefixes = [draw(rows) for _ in range(num_texts)]
    return prefixes, [draw(target_rows) for _ in range(num_texts)]


def plain_overlap(prefix, target):
    return sum((Counter(prefix) & Counter(target)).values()) / len(prefix)


def plain_coverage(prefix, target):
    @functools.cache
    def longest(i, j):
        if i == len(prefix) or j == len(target):
            return 0
        return max(longest(i + 1, j), longest(i, j + 1), (prefix[i] == target[j]) + longest(i + 1, j + 1))

    return longest(0, 0) / len(prefix)


@given(batches())
def test_shares_are_their_definitions(batch):
    prefixes, targets = batch
    pair = torch.tensor(prefixes), torch.tensor(targets)
    overlap, coverage = multiset_overlap_per_text(*pair), ordered_coverage_per_text(*pair)
    texts = list(zip(prefixes, targets, strict=True))
    assert overlap.tolist() == [plain_overlap(*text) for text in texts]
    assert coverage.tolist() == [plain_coverage(*text) for text in texts]
    assert (coverage <= overlap).all()


@pytest.mark.parametrize(
    ("prefix", "target", "overlap", "coverage"),
    [
        ([1, 2, 3], [9, 1, 9, 2, 3], 1, 1),
        ([3, 2, 1], [1, 2, 3], 1, 1 / 3),
        ([1, 1, 1, 1], [1, 5, 1, 5], 0.5, 0.5),
        ([1, 2], [3, 4], 0, 0),
    ],
)
def test_by_hand(prefix, target, overlap, coverage):
    pair = torch.tensor([prefix]), torch.tensor([target])
    assert multiset_overlap_per_text(*pair).tolist() == [overlap]
    assert ordered_coverage_per_text(*pair).tolist() == [pytest.approx(coverage)]


def test_true_texts_hold_their_prefixes():
    """Any ordered part of a text is kept in full, by both."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(5, (20, 30), generator=generator)
    places = torch.rand(20, 30, generator=generator).argsort(-1)[:, :12].sort(-1).values
    prefix = target.gather(1, places)
    assert (multiset_overlap_per_text(prefix, target) == 1).all()
    assert (ordered_coverage_per_text(prefix, target) == 1).all()
