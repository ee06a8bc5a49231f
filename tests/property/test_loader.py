import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.data.loader import global_batch_indices, rank_slice


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**40))
def test_epochs_are_permutations_whatever_the_batch(num_windows, batch_size, seed):
    """The steps laid end to end are whole epochs, each with every window once."""
    num_steps = -(-3 * num_windows // batch_size)
    steps = [global_batch_indices(num_windows, batch_size, step, seed=seed) for step in range(num_steps)]
    assert all(len(batch) == batch_size for batch in steps)
    order = np.concatenate(steps)
    for epoch in range(3):
        part = order[epoch * num_windows : (epoch + 1) * num_windows]
        assert sorted(part.tolist()) == list(range(num_windows))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
def test_order_does_not_depend_on_the_batch_size(num_windows, first_size, second_size, seed):
    def order(batch_size):
        num_steps = -(-2 * num_windows // batch_size)
        steps = [global_batch_indices(num_windows, batch_size, step, seed=seed) for step in range(num_steps)]
        return np.concatenate(steps)[: 2 * num_windows]

    np.testing.assert_array_equal(order(first_size), order(second_size))


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(0, 20))
def test_ranks_share_the_global_batch(num_windows, per_rank, world_size, step):
    batch = global_batch_indices(num_windows, per_rank * world_size, step, seed=0)
    parts = [rank_slice(batch, rank, world_size) for rank in range(world_size)]
    assert all(len(part) == per_rank for part in parts)
    np.testing.assert_array_equal(np.stack(parts, axis=1).ravel(), batch)
    if len(batch) <= num_windows - step * len(batch) % num_windows:
        # Within one epoch the ranks see different windows.
        assert len(set(batch.tolist())) == len(batch)
