"""The order of an epoch of more windows than a table is made for."""

import numpy as np
import pytest
import torch

from cascaded_dllm.data import order
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.data.order import TABLE_LIMIT, windows_at
from tests.statistical.chi_square import fits, is_refuted

LARGE = TABLE_LIMIT + 4_321


def whole_epoch(num_windows: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return order._bijection(np.arange(num_windows), num_windows, order._keys(seed, epoch))


@pytest.mark.parametrize("num_windows", [2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 1000, 4096, 4097, LARGE])
def test_every_window_once(num_windows):
    found = whole_epoch(num_windows)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(np.sort(found), np.arange(num_windows))


def test_a_place_does_not_need_the_others():
    places = np.array([LARGE - 1, 7, 0, 123_456])
    expected = whole_epoch(LARGE, seed=5, epoch=2)[places]
    np.testing.assert_array_equal(windows_at(places, LARGE, seed=5, epoch=2), expected)


def test_no_table_is_made_of_many(monkeypatch):
    """A billion windows cost what a batch costs."""
    monkeypatch.setattr(order, "_table", None)
    batch = global_batch_indices(10**9, 512, 3 * 10**6, seed=0)
    assert len(set(batch.tolist())) == 512
    assert batch.max() < 10**9
    assert batch.min() < 10**7


def test_batch_over_the_end_of_an_epoch():
    step = LARGE // 512
    batch = global_batch_indices(LARGE, 512, step, seed=1)
    left = LARGE - step * 512
    np.testing.assert_array_equal(batch[:left], whole_epoch(LARGE, seed=1)[step * 512 :])
    np.testing.assert_array_equal(batch[left:], whole_epoch(LARGE, seed=1, epoch=1)[: 512 - left])


def test_order_is_pinned():
    """A change of the order breaks every resumed run; it must not happen by accident."""
    assert windows_at(np.arange(4), 10**8, seed=3, epoch=1).tolist() == [95470443, 68881235, 77565320, 62068682]


def pairs_of(found: np.ndarray, num_windows: int, cells: int = 16) -> torch.Tensor:
    """How often a place of one part of the epoch has a window of one part of the dataset."""
    place = np.arange(len(found)) * cells // len(found)
    return torch.from_numpy(np.bincount(place * cells + found * cells // num_windows, minlength=cells**2))


def neighbours_of(found: np.ndarray, num_windows: int, cells: int = 16) -> torch.Tensor:
    """How far the window at the next place is, around the end, in parts of the dataset."""
    steps = (np.diff(found) % num_windows) * cells // num_windows
    return torch.from_numpy(np.bincount(steps, minlength=cells))


@pytest.mark.parametrize("num_windows", [50_000, 65_536, 65_537, LARGE])
@pytest.mark.parametrize("epoch", [0, 1])
def test_looks_drawn_by_chance(num_windows, epoch):
    found = windows_at(np.arange(20_000), LARGE, seed=0, epoch=epoch) if num_windows == LARGE else None
    found = whole_epoch(num_windows, epoch=epoch)[:20_000] if found is None else found
    for counts in (pairs_of(found, num_windows), neighbours_of(found, num_windows)):
        assert fits(counts, torch.full((len(counts),), 1 / len(counts)))


def test_power():
    """An order that walks through the dataset in large steps is found."""
    found = np.arange(20_000) * 7_919 % 50_000
    counts = neighbours_of(found, 50_000)
    assert is_refuted(counts, torch.full((16,), 1 / 16))
    shifted = (np.arange(20_000) + 17) % 50_000
    assert is_refuted(pairs_of(shifted, 50_000), torch.full((256,), 1 / 256))


def test_epochs_and_seeds_have_little_in_common():
    """Of two independent orders one place in so many has the same window: Poisson with mean 1."""
    first = whole_epoch(50_000)
    for other in (whole_epoch(50_000, epoch=1), whole_epoch(50_000, seed=1)):
        assert (first == other).sum() < 10
