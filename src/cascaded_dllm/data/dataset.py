"""What one stage trains on: its tokens and those of the stage before."""

from typing import final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.data.stages import StageArrays


@final
class StageDataset:
    """The windows of one stage as (prefix, target) pairs.

    Attributes:
        num_windows: number of pairs.
        prefix_length: tokens of the stage before; 0 for the first.
        target_length: tokens of this stage.

    Raises:
        ConfigError: `stage` is not one of 1..K.
    """

    def __init__(self, arrays: StageArrays, stage: int) -> None:
        self.num_windows = arrays.num_windows
        self.prefix_length = arrays.spec.prefix_length(stage)
        self.target_length = arrays.spec.target_length(stage)
        self._target = arrays.stages[stage - 1]
        self._prefix = arrays.stages[stage - 2] if stage > 1 else None

    @classmethod
    def flat(cls, arrays: StageArrays) -> "StageDataset":
        """The view of a model without a cascade, over the same windows: no prefix, the last stage as target."""
        return cls(arrays.flat(), 1)

    def __len__(self) -> int:
        return self.num_windows

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64]]:
        """The prefixes (B, P), None for a stage without one, and the targets (B, L) of the windows `indices`."""
        prefix = None if self._prefix is None else self._prefix[indices].astype(np.int64)
        return prefix, self._target[indices].astype(np.int64)
