"""How the parameters of a network are stored: whole in every process, or split over the processes.

A tensor below is a parameter or a tensor of its shape: a gradient, a moment, an average.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Storage(Protocol):
    """What training, averages and checkpoints need to know about how tensors are stored.

    Attributes:
        is_split: whether every process holds only a part of a tensor.
    """

    is_split: bool

    def local(self, tensor: Tensor) -> Tensor:
        """The part of a tensor that this process holds, in the same memory."""

    def full(self, tensor: Tensor) -> Tensor:
        """The whole tensor, in every process; all processes must call this."""

    def fill(self, tensor: Tensor, full: Tensor) -> None:
        """Overwrite `tensor` with its part of `full`, which every process has."""

    def part_on_host(self, tensor: Tensor) -> Tensor:
        """A copy of this process's part in the memory of the host, which still knows its place in the whole."""

    def write_parts(self, parts: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
        """Write the parts of all processes into `folder`; return the checksum of every file by its name.

        All processes call it, from a background thread.
        """

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """A block in which all processes may call modules of the network in any one order, without gradients."""


@final
class Whole:
    """Every process holds everything."""

    is_split = False

    def local(self, tensor: Tensor) -> Tensor:
        """The tensor."""
        return tensor

    def full(self, tensor: Tensor) -> Tensor:
        """The tensor."""
        return tensor

    def fill(self, tensor: Tensor, full: Tensor) -> None:
        """Copy `full`."""
        with torch.no_grad():
            tensor.copy_(full)

    def part_on_host(self, tensor: Tensor) -> Tensor:
        """A copy in the memory of the host."""
        return tensor.to("cpu", copy=True)

    def write_parts(self, parts: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
        """Nothing: there are no parts."""
        return {}

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Nothing to do."""
        yield
