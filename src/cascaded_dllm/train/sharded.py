"""A network split over processes, for sizes that do not fit into the memory of one device (FSDP2, `fully_shard`).

Weights, gradients, moments and averages exist once, with a part in every process. The weights of a block are gathered
when it computes, and freed again. Those outside the blocks (embedding and output layer) stay gathered through a step.
The layout network of a placed stage is gathered for its own calls.
"""

import contextlib
import errno
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cascaded_dllm.atomic import file_sha256
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.group import TIMEOUT, Group
from cascaded_dllm.train.storage import Storage


@final
class FullySharded:
    """Every process holds a part of every parameter ("fsdp").

    Parts are stored and sent in float32. The blocks cast weights to the compute dtype themselves, so the numbers are
    those of replicated weights, and gradients are summed in float32.

    Args:
        model: the network; it is split in place, and moved to the device a block at a time.
        group: the processes.
        device: device of this process.
    """

    name = "fsdp"
    storage: Storage

    def __init__(self, model: ScoreModel, group: Group, device: torch.device) -> None:
        mesh = init_device_mesh(device.type, (group.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
            register_fsdp_forward_method(block, "keys_values")
        if (layout := layout_of(model)) is not None:
            for block in layout.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(layout, mesh=mesh)
        fully_shard(model, mesh=mesh)
        # FSDP takes the first module that is called for the root, and the layout network may be called before `model`.
        # So `model` is called here first.
        register_fsdp_forward_method(model, "log_scale")
        model.log_scale(torch.ones(1, device=device))
        cast(FSDPModule, model).reshard()
        register_fsdp_forward_method(model, "states")
        self.group, self.storage = group, _Split(cast(FSDPModule, model), group)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Discard the gradients."""
        optimizer.zero_grad(set_to_none=True)

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """Add the gradient of a part and exchange it at once, so that whole gradients are never kept."""
        # `fully_shard` takes the mean over processes; the sum is wanted.
        (share * self.group.size).backward()

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """The norm of the whole gradient before it is scaled down to `limit`."""
        gradients = [self.storage.local(p.grad) for p in parameters if p.grad is not None]
        square = torch.stack(torch._foreach_norm(gradients)).square().sum()
        self.group.sum(square)
        norm = square.sqrt()
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm


@final
class _Split:
    """Tensors that `fully_shard` has split over processes."""

    is_split = True

    def __init__(self, model: FSDPModule, group: Group) -> None:
        self._model, self._group = model, group
        # Parts of checkpoints are written in the background, so their messages need a process group of their own.
        self._host_mesh = init_device_mesh("cpu", (group.size,))
        self._writers = dist.new_group(backend="gloo", timeout=TIMEOUT)
        # Blocks return their keys and values as views, and nothing writes to them in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")

    def local(self, tensor: Tensor) -> Tensor:
        """The part of this process, in the same memory."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def full(self, tensor: Tensor) -> Tensor:
        """The whole tensor, gathered from all processes."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def fill(self, tensor: Tensor, full: Tensor) -> None:
        """Overwrite this process's part of `tensor` with that of `full`."""
        with torch.no_grad():
            if isinstance(tensor, DTensor):
                parts = distribute_tensor(full.to(tensor.device), tensor.device_mesh, tensor.placements)
                tensor.to_local().copy_(parts.to_local())
            else:
                tensor.copy_(full)

    def part_on_host(self, tensor: Tensor) -> Tensor:
        """A copy of this process's part in the memory of the host, which still knows its place in the whole."""
        if not isinstance(tensor, DTensor):
            return tensor.to("cpu", copy=True)
        part = tensor.to_local().to("cpu", copy=True)
        return DTensor.from_local(
            part, self._host_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
        )

    def write_parts(self, parts: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
        """Write the parts of all processes into `folder`; return the checksum of every file by its name.

        Raises:
            OSError: a part of any process cannot be written; every process raises it.
        """
        try:
            save(dict(parts), storage_writer=FileSystemWriter(folder), process_group=self._writers)
        except CheckpointException as error:
            # An error from another process arrives without the OSError behind it.
            reasons = (cause.__context__ or cause for cause, _ in error.failures.values())
            raise next(
                (reason for reason in reasons if isinstance(reason, OSError)),
                OSError(errno.EIO, f"process {min(error.failures)} could not write its part; is the disk full?"),
            ) from error
        own = {path.name: file_sha256(path) for path in folder.glob(f"__{self._group.rank}_*")}
        sums: list[dict[str, str]] = [{}] * self._group.size
        dist.all_gather_object(sums, own, group=self._writers)
        return {name: value for part in sums for name, value in part.items()}

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Gathers the weights outside the blocks for the duration of the block."""
        self._model.unshard()
        try:
            yield
        finally:
            self._model.reshard()


def read_parts(parts: dict[str, Tensor], folder: Path) -> None:
    """Fill `parts` from a folder that any number of processes wrote; all processes call this.

    Raises:
        CheckpointError: the folder lacks a part, or a part has another shape.
    """
    with warnings.catch_warnings():
        # A single process reads without torch.distributed, of which the library warns.
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            load(parts, storage_reader=FileSystemReader(folder), no_dist=not dist.is_initialized())
        except CheckpointException as error:
            reason = next(iter(error.failures.values()))[0]
            raise CheckpointError(
                f"{folder} does not hold the state of this optimizer ({str(reason).splitlines()[0]}); resume from "
                "another checkpoint, or train anew with another --out"
            ) from error
