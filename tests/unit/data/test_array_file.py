import mmap

import numpy as np
import pytest

from cascaded_dllm.data.array_file import ArrayFile, expect_random_rows, open_array, read_ahead, stored_type
from cascaded_dllm.errors import DataError


def test_rows_are_appended(tmp_path):
    path = tmp_path / "a.npy"
    rows = [[i, -i, 2**31 - 1] for i in range(100_000)]
    with ArrayFile(path, 3) as file:
        for part in (rows[:1], [], rows[1:]):
            file.append(np.array(part, dtype=np.int32).reshape(-1, 3))
    array = open_array(path, (100_000, 3))
    assert array.dtype == np.int32
    assert array.tolist() == rows
    # Any NumPy can read it.
    np.testing.assert_array_equal(np.load(path), array)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_rows_may_lie_scattered_in_memory(tmp_path):
    rows = np.arange(24, dtype=np.int32).reshape(4, 6)
    with ArrayFile(tmp_path / "a.npy", 2) as file:
        file.append(rows[::2, 1:5:3])
    assert open_array(tmp_path / "a.npy", (2, 2)).tolist() == [[1, 4], [13, 16]]


def test_no_rows(tmp_path):
    with ArrayFile(tmp_path / "a.npy", 3):
        pass
    assert np.load(tmp_path / "a.npy").shape == (0, 3)


def test_exception_leaves_a_file_without_rows(tmp_path):
    def fail():
        with ArrayFile(tmp_path / "a.npy", 1) as file:
            file.append(np.array([[1]], dtype=np.int32))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert np.load(tmp_path / "a.npy").shape == (0, 1)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"a.npy is missing or broken .* it will be built again"):
        open_array(tmp_path / "a.npy", (1, 1))


@pytest.mark.parametrize(
    ("largest", "kind"),
    [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "int32"), (2**31 - 1, "int32")],
)
def test_the_smallest_type_is_stored_and_read(tmp_path, largest, kind):
    assert stored_type(largest) == np.dtype(kind)
    rows = np.array([[0, largest], [largest, 1]], dtype=kind)
    with ArrayFile(tmp_path / "a.npy", 2, stored_type(largest)) as file:
        file.append(rows)
    array = open_array(tmp_path / "a.npy", (2, 2))
    assert (array.dtype, array.tolist()) == (np.dtype(kind), [[0, largest], [largest, 1]])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_foreign_file(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="is missing or broken"):
        open_array(tmp_path / "a.npy", (1, 1))


def test_truncated_file(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((10, 2), dtype=np.int32))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="is missing or broken"):
        open_array(path, (10, 2))


@pytest.mark.parametrize("array", [np.zeros((10, 3), dtype=np.int32), np.zeros((10, 2), dtype=np.int64)])
def test_other_shape_or_type(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"holds int.* the manifest says \(10, 2\), of uint8, uint16 or int32; remove"):
        open_array(tmp_path / "a.npy", (10, 2))


class Spy(mmap.mmap):
    """A mapped file that notes what is advised."""

    def madvise(self, option, start=0, length=0):
        self.advice = [*getattr(self, "advice", []), (option, start, length)]


@pytest.fixture
def spied(tmp_path, monkeypatch):
    """1,000 rows of 300 values as `open_array` maps them, and the map, which notes the advice."""
    with ArrayFile(tmp_path / "a.npy", 300) as file:
        file.append(np.arange(300_000, dtype=np.int32).reshape(1000, 300))
    maps = []
    monkeypatch.setattr(mmap, "mmap", lambda *place, **how: maps.append(Spy(*place, **how)) or maps[-1])
    array = open_array(tmp_path / "a.npy", (1000, 300))
    monkeypatch.undo()
    return array, maps[0]


def test_rows_that_are_read_here_and_there(spied):
    array, spy = spied
    expect_random_rows(array)
    assert spy.advice == [(mmap.MADV_RANDOM, 0, 0)]


def test_rows_are_asked_for_ahead(spied):
    """Every byte of them, also where a page ends within (row 3); and, but for the rest of the pages, no other."""
    array, spy = spied
    rows = np.array([999, 0, 3, 3, 500])
    read_ahead(array, rows)
    asked = np.zeros(len(spy) + mmap.PAGESIZE, bool)
    for option, start, length in spy.advice:
        assert (option, start % mmap.PAGESIZE) == (mmap.MADV_WILLNEED, 0)
        asked[start : start + length] = True
    assert array[rows[0]].tolist() == list(range(299_700, 300_000))
    header = len(spy) - array.nbytes
    for row in rows:
        assert asked[header + row * 1200 : header + (row + 1) * 1200].all()
    assert asked.sum() <= 4 * 2 * mmap.PAGESIZE


def test_advice_that_is_not_taken_is_no_error(spied, monkeypatch):
    def refused(self, option, start=0, length=0):
        raise OSError("no room for another request")

    monkeypatch.setattr(Spy, "madvise", refused)
    read_ahead(spied[0], np.array([1]))


def test_nothing_is_advised_of_arrays_in_memory():
    for array in (np.zeros((4, 2), np.int32), np.zeros((0, 2), np.int32)):
        expect_random_rows(array)
        read_ahead(array, np.arange(len(array)))


def test_a_file_that_cannot_be_read_need_not_be_built_again(tmp_path):
    (tmp_path / "a.npy").symlink_to("a.npy")
    with pytest.raises(DataError, match=r"a\.npy cannot be read \(Too many levels .*\); check the disk, the rights to"):
        open_array(tmp_path / "a.npy", (1, 1))
