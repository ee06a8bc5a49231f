"""The training data of a stage: its tokens, those of the stage before, and the places of these among its own."""

from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.data.array_file import read_ahead
from cascaded_dllm.data.stages import StageArrays

_FAR = 1 << 31
"""More than any position of a window."""


def evenly_spaced(num_windows: int, num_wanted: int) -> npt.NDArray[np.int64]:
    """The numbers of `num_wanted` windows, evenly spaced and rising; all windows if there are not more.

    Neighbouring windows come from one text, and a corpus changes from part to part. So the mean over the first windows
    can lie several of its standard errors, which assume independent windows, away from the mean over all.
    """
    number = min(num_wanted, num_windows)
    return np.arange(number, dtype=np.int64) * num_windows // max(number, 1)


@final
class StageDataset:
    """The windows of one stage as (prefix, target) pairs.

    Args:
        arrays: all stages.
        stage: 1..K.
        is_placed: whether to give the places of the prefix in the target too; ignored for stage 1.

    Attributes:
        num_windows: number of pairs.
        num_dropped: number of windows of the dataset that are not among them, see `StageArrays`.
        prefix_length: number of tokens of the stage before; 0 for the first.
        target_length: number of tokens of this stage.
        is_placed: whether it has places.

    Raises:
        ConfigError: `stage` is not one of 1..K.
    """

    def __init__(self, arrays: StageArrays, stage: int, *, is_placed: bool = False) -> None:
        self.num_windows = arrays.num_windows
        self.num_dropped = arrays.num_dropped
        self.prefix_length = arrays.spec.prefix_length(stage)
        self.target_length = arrays.spec.target_length(stage)
        self._target = arrays.stages[stage - 1]
        self._prefix = arrays.stages[stage - 2] if stage > 1 else None
        self.is_placed = is_placed and stage > 1
        self._inner = arrays.positions[stage - 2] if self.is_placed else None
        # The last stage is the window, whose positions need no array.
        self._outer = arrays.positions[stage - 1] if self.is_placed and stage < arrays.spec.num_stages else None

    @classmethod
    def flat(cls, arrays: StageArrays) -> "StageDataset":
        """The same windows for a model without a cascade: no prefix, and the last stage as target."""
        return cls(arrays.flat(), 1)

    @property
    def parts(self) -> "tuple[StageDataset, ...]":
        """The datasets among which the sequences of a batch are divided: only this one."""
        return (self,)

    @property
    def num_free(self) -> int:
        """Number of tokens of a target that the network writes: all, or for a placed stage those not in the prefix."""
        return self.target_length - (0 if self._inner is None else self.prefix_length)

    def __len__(self) -> int:
        return self.num_windows

    def read_ahead(self, indices: npt.NDArray[np.int64]) -> None:
        """Starts fetching the windows `indices` from the disk, without waiting; see `array_file.read_ahead`."""
        for array in (self._target, self._prefix, self._inner, self._outer):
            if array is not None:
                read_ahead(array, indices)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64]]:
        """The prefixes (B, P), None for the first stage, and the targets (B, L) of the windows `indices`."""
        prefix = None if self._prefix is None else self._prefix[indices].astype(np.int64)
        return prefix, self._target[indices].astype(np.int64)

    def places(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """The places of the prefixes' tokens in the targets, rising, (B, P); None if the stage is not placed."""
        if self._inner is None:
            return None
        inner = self._inner[indices].astype(np.int64)
        if self._outer is None:
            return inner
        # Positions of both stages refer to the same window, and those of the prefix are among those of the target. With
        # all rows in one rising sequence, a single search finds the index of each.
        row = np.arange(len(indices))[:, None]
        outer = self._outer[indices].astype(np.int64) + row * _FAR
        found = np.searchsorted(outer.ravel(), (inner + row * _FAR).ravel()).reshape(inner.shape)
        return found - row * self.target_length


@final
class StageMixture:
    """Several stages of the same windows, for one network; a batch has equally many sequences of each.

    Args:
        parts: the stages.

    Attributes:
        parts: the stages.
    """

    def __init__(self, parts: Sequence[StageDataset]) -> None:
        self.parts = tuple(parts)

    @classmethod
    def of_fills(cls, arrays: StageArrays) -> "StageMixture":
        """The data of the fill of a placed cascade: the first stage, every other stage placed, and the flat window."""
        stages = (StageDataset(arrays, number, is_placed=True) for number in range(1, arrays.spec.num_stages + 1))
        return cls((*stages, StageDataset.flat(arrays)))

    def __len__(self) -> int:
        return len(self.parts[0])
