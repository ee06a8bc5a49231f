"""Copying a trainer's state into the memory of the host, from where it is written while training goes on."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cascaded_dllm.train.checkpoint import HostCopy
from cascaded_dllm.train.moments import moments_by_name, without_moments
from cascaded_dllm.train.trainer import Trainer


def copy_to_host(trainer: Trainer) -> HostCopy:
    """The content of a checkpoint of the present step; all processes must call this.

    Split weights are gathered one tensor after another, and only the first process keeps them.

    Raises:
        NonFiniteError: a step since the last reading was not finite.
    """
    state, storage = trainer.state(), trainer.parallel.storage
    model = trainer.model.state_dict()
    parts = {}
    optimizer = state.optimizer
    if storage.is_split:
        parts = {k: storage.part_on_host(moment) for k, moment in moments_by_name(optimizer, trainer.model).items()}
        optimizer = without_moments(optimizer)
    return HostCopy(
        model=_whole(trainer, model),
        ema=_whole(trainer, model | trainer.ema.state_dict()),
        state=replace(state, optimizer=_on_host(optimizer) if trainer.group.is_first else {}),
        parts=parts,
    )


def _whole(trainer: Trainer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of whole tensors in the first process; empty in the others, which take part in gathering them."""
    copies = {}
    for name, tensor in tensors.items():
        whole = trainer.parallel.storage.full(tensor)
        if trainer.group.is_first:
            copies[name] = whole.to("cpu", copy=True)
    return copies


def _on_host(value: Any) -> Any:
    """A copy of nested dictionaries and lists whose tensors are in the memory of the host."""
    match value:
        case Tensor():
            return value.to("cpu", copy=True)
        case dict():
            return {key: _on_host(inner) for key, inner in value.items()}
        case list():
            return [_on_host(inner) for inner in value]
        case _:
            return copy.deepcopy(value)
