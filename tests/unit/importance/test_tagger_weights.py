import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.importance.pos import CLASSES
from cascaded_dllm.importance.tagger_features import VERSION
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, bucket, read_weights, save_weights


def table(entries):
    weights = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    for place, values in entries.items():
        weights[place] = values
    return weights


@pytest.fixture(scope="module")
def sample():
    generator = np.random.default_rng(0)
    return table({int(place): generator.integers(-127, 128, 6) for place in generator.integers(0, NUM_BUCKETS, 300)})


ROW = st.lists(st.integers(-127, 127), min_size=6, max_size=6)


PLACE = st.one_of(st.sampled_from([0, NUM_BUCKETS - 1]), st.integers(0, NUM_BUCKETS - 1))


@pytest.mark.slow
@given(st.dictionaries(PLACE, ROW, max_size=9))
def test_round_trip(tmp_path_factory, entries):
    path = tmp_path_factory.getbasetemp() / "round_trip.npz"
    save_weights(table(entries), path)
    assert np.array_equal(read_weights(path), table(entries))


def test_equal_weights_make_equal_files(tmp_path, sample):
    for name in ("a.npz", "b.npz"):
        save_weights(sample, tmp_path / "new" / name)
    assert (tmp_path / "new" / "a.npz").read_bytes() == (tmp_path / "new" / "b.npz").read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.npz", "b.npz"]


def test_leading_bits_are_the_bucket():
    hashes = np.array([0, 1, 1 << 43, (1 << 64) - 1], dtype=np.uint64)
    assert bucket(hashes).tolist() == [0, 0, 1, NUM_BUCKETS - 1]


def test_truncated_anywhere(tmp_path, sample):
    save_weights(sample, tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for length in [0, 1, 4, 30, 60, *range(100, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.npz holds no tagger, or is missing or broken .*train one with"):
            read_weights(path)


def test_damaged_anywhere(tmp_path, sample):
    """A byte that is another one is found, or is of no importance, such as a date in the archive."""
    save_weights(sample, tmp_path / "whole.npz")
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    path = tmp_path / "damaged.npz"
    num_found = 0
    places = range(0, len(content), 7)
    for place in places:
        damaged = content.copy()
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read_weights(path), sample)
        except DataError:
            num_found += 1
    assert num_found > 0.8 * len(places)


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


WEIGHTS = np.ones((2, 6), dtype=np.int8)
GAPS = np.array([3, 4], dtype=np.int32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"missing or broken \(.*No such file"),
        (b"these are words\n", "missing or broken"),
        (npy(WEIGHTS), "missing or broken"),
        (npy(np.array([{"a": 1}], dtype=object)), "missing or broken"),
        (npz(weights=WEIGHTS), r"broken \(.*version"),
        (npz(version=np.int32(VERSION), gaps=np.array([object()]), weights=WEIGHTS), "broken"),
        (npz(version=np.int32(VERSION + 1), gaps=GAPS, weights=WEIGHTS), "of version 2, and this program has 1"),
        (npz(version=np.array([1, 1]), gaps=GAPS, weights=WEIGHTS), r"of version \[1, 1\], and"),
        (npz(version=np.int32(VERSION), gaps=GAPS, weights=WEIGHTS[:1]), "its arrays have other shapes, types or"),
        (npz(version=np.int32(VERSION), gaps=GAPS, weights=WEIGHTS[:, :5]), "its arrays have other shapes"),
        (npz(version=np.int32(VERSION), gaps=GAPS, weights=WEIGHTS.astype(np.float32)), "its arrays have other shapes"),
        (npz(version=np.int32(VERSION), gaps=GAPS.astype(float), weights=WEIGHTS), "its arrays have other shapes"),
        (npz(version=np.int32(VERSION), gaps=-GAPS, weights=WEIGHTS), "its arrays have other shapes"),
        (npz(version=np.int32(VERSION), gaps=np.array([1, NUM_BUCKETS], np.int32), weights=WEIGHTS), "its arrays have"),
        (npz(version=np.int32(VERSION), gaps=np.array(["a", "b"]), weights=WEIGHTS), "its arrays have other shapes"),
        (npz(version=np.int32(VERSION), gaps=np.int32(1), weights=WEIGHTS), "its arrays have other shapes"),
    ],
)  # fmt: skip
def test_no_tagger(tmp_path, content, message):
    path = tmp_path / "foreign.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"foreign\.npz holds .*{message}"):
        read_weights(path)


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match=r"tagger\.npz cannot be written"):
        save_weights(table({}), tmp_path / "file" / "tagger.npz")
