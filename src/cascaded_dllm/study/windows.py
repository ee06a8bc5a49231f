"""The windows on which all arms are measured: those that the validation data of every arm contains."""

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
    """For each set of windows, the rows of the windows that all sets contain, in the order of the first set.

    Methods drop different windows, those with too few different tokens for their stages, so row i may be another text
    in each set. Equal windows are matched in order: the n-th one of a set with the n-th one of every other set.

    Args:
        every: whole windows, (number, length), of each set.

    Raises:
        ConfigError: no window is in all sets.
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
    """The arrays with only these rows, in this order, in memory and as int32."""
    return replace(
        arrays,
        stages=tuple(stage[rows].astype(np.int32) for stage in arrays.stages),
        positions=tuple(positions[rows].astype(np.int32) for positions in arrays.positions),
    )


def _keys(windows: Windows) -> Iterator[_Key]:
    """A key for every window: the bytes of its ids as int32, and the number of equal windows before it."""
    seen = Counter[bytes]()
    for row in windows:
        content = row.astype(np.int32).tobytes()
        yield content, seen[content]
        seen[content] += 1
