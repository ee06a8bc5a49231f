"""`.npy` files with rows of integers, written piece by piece and read through the page cache."""

import contextlib
import mmap
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.errors import DataError

Stored: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int32]
"""The types of the stored arrays; convert to a wider type before computing, since sums of small types overflow."""

_TYPES: tuple[np.dtype[Any], ...] = tuple(np.dtype(name) for name in ("u1", "<u2", "<i4"))


def stored_type(largest: int) -> np.dtype[Any]:
    """The smallest type for integers from 0 to `largest`."""
    return next(kind for kind in _TYPES if kind == _TYPES[-1] or np.iinfo(kind).max >= largest)


@final
class ArrayFile:
    """Writes an array of `columns` columns whose number of rows is known only at the end.

    The header is rewritten in place at the end: NumPy reserves room in it for a larger first axis.
    """

    def __init__(self, path: Path, columns: int, kind: np.dtype[Any] = _TYPES[-1]) -> None:
        self._columns, self._kind = columns, kind
        self._rows = 0
        self._file = path.open("wb")
        self._write_header()
        self._header_bytes = self._file.tell()

    def __enter__(self) -> "ArrayFile":
        return self

    def append(self, rows: Stored) -> None:
        """Adds rows of exactly `columns` values each."""
        assert rows.dtype == self._kind
        assert rows.shape[1:] == (self._columns,)
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def __exit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exception is None:
            self._file.seek(0)
            self._write_header()
            assert self._file.tell() == self._header_bytes
        self._file.close()

    def _write_header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": self._kind.str, "fortran_order": False, "shape": (self._rows, self._columns)}
        )


def open_array(path: Path, shape: tuple[int, int]) -> Stored:
    """The array in `path`, memory-mapped and read-only.

    Raises:
        DataError: the file is missing, truncated, foreign, or has another shape or type.
    """
    remedy = f"remove {path.parent}, and it will be built again"
    try:
        array = np.load(path, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError) as error:
        raise DataError(f"{path} is missing or broken ({error}); {remedy}") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check the disk, the rights to read it and the limits of this "
            "process (ulimit)"
        ) from error
    if array.shape != shape or array.dtype not in _TYPES:
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}, the manifest says {shape}, of uint8, uint16 or int32; {remedy}"
        )
    return np.asarray(array)


def expect_random_rows(array: Stored) -> None:
    """Tells the system that rows of a mapped array will be read in random order; does nothing for an array in memory.

    Otherwise the system reads ahead, up to megabytes for a row of some hundred bytes, which only helps a reader of all
    rows in order.
    """
    if (mapped := _map_of(array)) is not None:
        mapped.madvise(mmap.MADV_RANDOM)


def read_ahead(array: Stored, rows: npt.NDArray[np.int64]) -> None:
    """Asks the system to fetch rows of a mapped array that are not in memory yet, and does not wait for them.

    It only changes the time at which rows are read: a read error shows where a row is used, not here.
    """
    mapped = _map_of(array)
    if mapped is None or array.size == 0:
        return
    start = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    begins, size = start + rows * array.strides[0], array.shape[1] * array.itemsize
    pages = np.unique(np.stack([begins // mmap.PAGESIZE, (begins + size - 1) // mmap.PAGESIZE], -1), axis=0)
    with contextlib.suppress(OSError):
        for first, last in (pages * mmap.PAGESIZE).tolist():
            mapped.madvise(mmap.MADV_WILLNEED, first, last - first + mmap.PAGESIZE)


def _map_of(array: Stored) -> mmap.mmap | None:
    """The map under a view of a mapped file; None for an array in memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
