import numpy as np
import pytest

from cascaded_dllm.data import order
from cascaded_dllm.data.loader import global_batch_indices, rank_slice
from cascaded_dllm.errors import ConfigError


def test_epochs_are_different_permutations():
    epochs = [global_batch_indices(50, 50, step, seed=0) for step in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(50))
    assert not np.array_equal(epochs[0], global_batch_indices(50, 50, 0, seed=1))


def test_order_is_pinned():
    """A change of the order breaks every resumed run; it must not happen by accident."""
    assert global_batch_indices(10, 6, 1, seed=3).tolist() == [4, 2, 0, 8, 0, 4]


def test_step_does_not_depend_on_the_steps_before():
    expected = global_batch_indices(7, 5, 9, seed=2)
    order._table.cache_clear()
    np.testing.assert_array_equal(global_batch_indices(7, 5, 9, seed=2), expected)


def test_batch_larger_than_the_dataset():
    batch = global_batch_indices(3, 8, 0, seed=0)
    assert batch.dtype == np.int64
    assert [sorted(batch[i : i + 3].tolist()) for i in (0, 3)] == [[0, 1, 2]] * 2


def test_batch_can_be_changed_without_changing_the_order():
    batch = global_batch_indices(6, 6, 0, seed=0)
    expected = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(global_batch_indices(6, 6, 0, seed=0), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "num_windows is 0; it must be at least 1"),
        ((4, 0, 0), "batch_size is 0; it must be at least 1"),
        ((4, 4, -1), "step is -1; it must be at least 0"),
    ],
)
def test_bad_numbers(arguments, message):
    with pytest.raises(ConfigError, match=message):
        global_batch_indices(*arguments, seed=0)


def test_ranks_take_turns():
    indices = np.array([5, 3, 1, 0, 2, 4], dtype=np.int64)
    assert [rank_slice(indices, rank, 3).tolist() for rank in range(3)] == [[5, 0], [3, 2], [1, 4]]
    assert rank_slice(indices, 0, 1).tolist() == indices.tolist()


def test_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match=r"a batch of 6 windows does not divide among 4 processes; .* multiple of 4"):
        rank_slice(np.arange(6), 0, 4)


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_that_does_not_exist(rank):
    with pytest.raises(ConfigError, match=f"rank {rank} does not exist among 2 processes; ranks are 0..1"):
        rank_slice(np.arange(6), rank, 2)
