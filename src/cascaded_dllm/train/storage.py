"""Where the parameters of a network, and what belongs to each of them, are: whole in every process, or split over them.

A tensor below is a parameter or something of its shape: a gradient, a moment, an average.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Storage(Protocol):
    """What training, averages and checkpoints need to know of where tensors are.

    Attributes:
        is_split: whether a process holds a part only.
    """

    is_split: bool

    def local(self, tensor: Tensor) -> Tensor:
        """What this process holds of a tensor, in the same memory."""

    def full(self, tensor: Tensor) -> Tensor:
        """All of a tensor, in every process."""

    def fill(self, tensor: Tensor, full: Tensor) -> None:
        """Overwrite a tensor with its part of `full`, which every process has."""

    def part_on_host(self, tensor: Tensor) -> Tensor:
        """A copy of what this process holds, in the memory of the host, which still knows its place in the whole."""

    def write_parts(self, parts: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
        """Write the parts of all processes into `folder`; the checksum of every file by its name.

        All processes call it, from a thread in the background.
        """

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """Inside, parts of the network may be called in any order, without gradients, alike in every process."""


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
        """Nothing is needed."""
        yield
