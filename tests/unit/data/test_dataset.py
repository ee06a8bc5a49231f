import numpy as np
import pytest

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset, evenly_spaced
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError


@pytest.fixture
def arrays(tmp_path, make_dataset):
    token_ids = list(range(40))
    documents = [("d", token_ids, [float(i % 7 + 1) for i in token_ids])]
    return StageArrays.build(make_dataset(tmp_path / "toy", documents), CascadeSpec((2, 4, 8)), packing="stream")


def test_every_stage_is_conditioned_on_the_one_before(arrays):
    indices = np.array([4, 0, 0], dtype=np.int64)
    for stage, lengths in ((1, (0, 2)), (2, (2, 4)), (3, (4, 8))):
        dataset = StageDataset(arrays, stage)
        assert (dataset.prefix_length, dataset.target_length) == lengths
        assert len(dataset) == dataset.num_windows == 5
        prefix, target = dataset.batch(indices)
        assert target.dtype == np.int64
        np.testing.assert_array_equal(target, arrays.stages[stage - 1][[4, 0, 0]])
        if stage == 1:
            assert prefix is None
        else:
            assert prefix.dtype == np.int64
            np.testing.assert_array_equal(prefix, arrays.stages[stage - 2][[4, 0, 0]])


def test_values_are_those_of_the_corpus(arrays):
    prefix, target = StageDataset(arrays, 3).batch(np.array([0], dtype=np.int64))
    assert target.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    # Labels of the window are 1 2 3 4 5 6 7 1: the four smallest stand at 0, 7, 1 and 2.
    assert prefix.tolist() == [[0, 1, 2, 7]]


def test_flat_view_has_the_same_windows_and_no_prefix(arrays):
    flat = StageDataset.flat(arrays)
    assert (len(flat), flat.prefix_length, flat.target_length) == (5, 0, 8)
    prefix, target = flat.batch(np.arange(5, dtype=np.int64))
    assert prefix is None
    np.testing.assert_array_equal(target, arrays.stages[-1])
    assert arrays.flat().spec == CascadeSpec((8,))


def test_batches_are_copies(arrays):
    dataset = StageDataset(arrays, 1)
    indices = np.array([0], dtype=np.int64)
    _, first = dataset.batch(indices)
    expected = first.copy()
    first[:] = -1
    np.testing.assert_array_equal(dataset.batch(indices)[1], expected)


@pytest.mark.parametrize("stage", [0, 4, -1])
def test_stage_that_does_not_exist(arrays, stage):
    with pytest.raises(ConfigError, match=f"stage {stage} does not exist"):
        StageDataset(arrays, stage)


def test_places_are_where_the_prefix_stands(arrays):
    """Also with windows in any order, twice, and with tokens that occur more than once."""
    indices = np.array([4, 0, 0, 3], dtype=np.int64)
    for stage in (2, 3):
        dataset = StageDataset(arrays, stage, is_placed=True)
        prefix, target = dataset.batch(indices)
        places = dataset.places(indices)
        assert (places.shape, places.dtype) == (prefix.shape, np.int64)
        assert (np.diff(places, axis=1) > 0).all()
        np.testing.assert_array_equal(np.take_along_axis(target, places, axis=1), prefix)
        assert dataset.num_free == dataset.target_length - dataset.prefix_length
        outer = arrays.positions[stage - 1][indices] if stage == 2 else np.arange(8)[None].repeat(4, 0)
        np.testing.assert_array_equal(np.take_along_axis(outer, places, axis=1), arrays.positions[stage - 2][indices])


def test_only_placed_stages_have_places(arrays):
    for dataset in (StageDataset(arrays, 1, is_placed=True), StageDataset(arrays, 2), StageDataset.flat(arrays)):
        assert not dataset.is_placed
        assert dataset.places(np.array([0], dtype=np.int64)) is None
        assert dataset.num_free == dataset.target_length


@pytest.mark.parametrize(("num_windows", "num_wanted"), [(6, 3), (7, 3), (5, 5), (3, 9), (1000, 7), (4, 1)])
def test_evenly_spaced_windows_are_from_all_parts(num_windows: int, num_wanted: int) -> None:
    found = evenly_spaced(num_windows, num_wanted)
    assert len(found) == min(num_windows, num_wanted)
    assert found[0] == 0
    steps = np.diff([*found.tolist(), num_windows])
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


def test_evenly_spaced_windows_of_nothing() -> None:
    assert evenly_spaced(0, 4).tolist() == []
