"""The windows of a step as tensors: a global batch, divided among processes and among the parts of each process."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from cascaded_dllm.data.dataset import StageDataset, StageMixture
from cascaded_dllm.data.loader import global_batch_indices, rank_slice
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Batch


def parts_of_step(dataset: StageDataset | StageMixture, loop: LoopConfig, group: Group, step: int) -> Iterator[Batch]:
    """This process's share of the global batch of a step, in `accum` parts of every kind of sequence.

    Sequence i is of kind i modulo the number of kinds, so the times of each kind cover the whole interval. Sequences
    are divided kind by kind, so every process gets the same number of each.

    Args:
        dataset: windows of one stage, or of several kinds.
        loop: sizes of the batches.
        group: the processes that share them.
        step: optimizer steps done.
    """
    for windows, own, indices in _shares(dataset, loop, group, step):
        yield make_batch(windows, indices, own)


def read_ahead(dataset: StageDataset | StageMixture, loop: LoopConfig, group: Group, step: int) -> None:
    """Asks the system to fetch this process's windows of a step from the disk, without waiting for them.

    The system reads them while the device computes. The run does not depend on it: there is no thread, no order and no
    error to handle.
    """
    for windows, _, indices in _shares(dataset, loop, group, step):
        windows.read_ahead(indices)


def _shares(
    dataset: StageDataset | StageMixture, loop: LoopConfig, group: Group, step: int
) -> Iterator[tuple[StageDataset, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The parts of `parts_of_step`, each as its dataset, its places in the global batch, and the windows there."""
    kinds = dataset.parts
    indices = global_batch_indices(len(dataset), loop.batch_size, step, seed=loop.seed)
    by_kind = np.arange(loop.batch_size).reshape(-1, len(kinds)).T.ravel()
    places = rank_slice(by_kind, group.rank, group.size)
    for number in range(loop.accum):
        part = rank_slice(places, number, loop.accum)
        for kind, windows in enumerate(kinds):
            own = part[part % len(kinds) == kind]
            yield windows, own, indices[own]


def make_batch(
    dataset: StageDataset,
    indices: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    device: torch.device | None = None,
) -> Batch:
    """The windows `indices`, which stand at `places` of their global batch, as tensors on `device` (None: the host)."""
    prefix, target = dataset.batch(indices)
    stand = dataset.places(indices)
    index = torch.from_numpy(places)
    prefix_ids = None if prefix is None else torch.from_numpy(prefix)
    where = None if stand is None else torch.from_numpy(stand)
    batch = Batch(torch.from_numpy(target), prefix_ids, index, torch.from_numpy(indices), where)
    return batch if device is None else batch.to(device)


def size_of(batch: Batch) -> tuple[int, int]:
    """Number of positions that go through the network, and how many of them can be masked."""
    num_known = 0 if batch.prefix is None else batch.prefix.numel()
    num_targets = batch.target.numel()
    return (num_targets + num_known, num_targets) if batch.places is None else (num_targets, num_targets - num_known)
