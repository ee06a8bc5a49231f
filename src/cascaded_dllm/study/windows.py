"""The windows that all arms are measured on: those that are in the data of every one of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cascaded_dllm.data.array_file import Stored
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError

Windows = Stored
_Key = tuple[bytes, int]


def common_rows(every: Sequence[Windows]) -> list[npt.NDArray[np.int64]]:
    """For each set of windows, the rows that hold the windows which are in all sets, in the order of the first set.

    Methods drop different windows, those that are too short of different tokens for their stages, so that row i of two
    sets may be two texts. Of equal windows the n-th one of a set is the n-th one of another.

    Args:
        every: whole windows, (number, length), of each set.

    Raises:
        ConfigError: not one window is in all sets.
    """
    tables = [{key: row for row, key in enumerate(_keys(windows))} for windows in every]
    shared = [key for key in tables[0] if all(key in table for table in tables[1:])]
    if not shared:
        sizes = ", ".join(str(len(windows)) for windows in every)
        raise ConfigError(
            f"the arms have {sizes} windows to measure on, and not one in common; give folders of the same texts "
            "(corpus.folders)"
        )
    return [np.array([table[key] for key in shared], dtype=np.int64) for table in tables]


def rows_of(arrays: StageArrays, rows: npt.NDArray[np.int64]) -> StageArrays:
    """The same arrays with these rows alone, in this order, in memory and as int32."""
    return replace(
        arrays,
        stages=tuple(stage[rows].astype(np.int32) for stage in arrays.stages),
        positions=tuple(positions[rows].astype(np.int32) for positions in arrays.positions),
    )


def _keys(windows: Windows) -> Iterator[_Key]:
    """Every window as the bytes of its ids, however they are stored, and how many equal ones come before it."""
    seen = Counter[bytes]()
    for row in windows:
        content = row.astype(np.int32).tobytes()
        yield content, seen[content]
        seen[content] += 1
