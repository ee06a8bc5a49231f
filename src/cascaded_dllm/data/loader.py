"""The windows of a training step, as a function of its number, so that there is no state to resume."""

import numpy as np
import numpy.typing as npt

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.data.order import windows_at
from cascaded_dllm.errors import ConfigError


def global_batch_indices(num_windows: int, batch_size: int, step: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The windows of the batch of `step`, over all processes: (batch_size,) int64.

    Steps go through an endless sequence of epochs, each an independent permutation of all windows. So nothing is lost
    or repeated within an epoch, and a batch may hold the end of one epoch and the beginning of the next.

    Args:
        num_windows: size of the dataset.
        batch_size: windows per step.
        step: 0, 1, ...
        seed: of the order.

    Raises:
        ConfigError: there is no window, the batch is empty or the step is negative.
    """
    for name, value, least in (("num_windows", num_windows, 1), ("batch_size", batch_size, 1), ("step", step, 0)):
        require_at_least(name, value, least)
    start, end = step * batch_size, (step + 1) * batch_size
    pieces = []
    for epoch in range(start // num_windows, (end - 1) // num_windows + 1):
        first = epoch * num_windows
        places = np.arange(max(start - first, 0), min(end - first, num_windows))
        pieces.append(windows_at(places, num_windows, seed=seed, epoch=epoch))
    return np.concatenate(pieces)


def rank_slice(indices: npt.NDArray[np.int64], rank: int, world_size: int) -> npt.NDArray[np.int64]:
    """The part of a global batch for process `rank` of `world_size`: every `world_size`-th window, from `rank` on.

    Diffusion times fall along the batch, and with them the number of masked tokens and the work; so all parts take
    about the same work.

    Raises:
        ConfigError: there is no such rank, or the batch does not divide.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} does not exist among {world_size} processes; ranks are 0..{world_size - 1}")
    if len(indices) % world_size:
        raise ConfigError(
            f"a batch of {len(indices)} windows does not divide among {world_size} processes; choose a batch size that "
            f"is a multiple of {world_size}"
        )
    return indices[rank::world_size]
