"""The state of the optimizer in a form from which any number of processes can resume.

If every process holds everything, the moments are inside the optimizer's `state_dict`. If they are split over
processes, they are stored beside it in parts, under the names of their parameters.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cascaded_dllm.train.storage import Storage

_MOMENTS = ("exp_avg", "exp_avg_sq")


def without_moments(optimizer: dict[str, Any]) -> dict[str, Any]:
    """A `state_dict` of AdamW without its moments."""
    state = {
        number: {k: v for k, v in entry.items() if k not in _MOMENTS} for number, entry in optimizer["state"].items()
    }
    return optimizer | {"state": state}


def moments_by_name(optimizer: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The moments in a `state_dict` of AdamW over all parameters of `model`, as "exp_avg.<name of the parameter>"."""
    names = [name for name, _ in model.named_parameters()]
    return {
        f"{moment}.{names[number]}": entry[moment]
        for number, entry in optimizer["state"].items()
        for moment in _MOMENTS
    }


def placed_moments(optimizer: dict[str, Any], parts: Path | None, model: nn.Module, storage: Storage) -> dict[str, Any]:
    """A stored `state_dict` with moments that are whole or split as `storage` has the parameters.

    Args:
        optimizer: the `state_dict` as it was stored, with moments or without.
        parts: folder of the moments, if `optimizer` lacks them.
        model: the network whose parameters are optimised.
        storage: how its parameters are stored.

    Raises:
        CheckpointError: a moment is missing from the folder or has another shape.
    """
    parameters = list(model.parameters())
    state: dict[int, dict[str, Tensor]] = {number: dict(entry) for number, entry in optimizer["state"].items()}
    if parts is not None:
        from cascaded_dllm.train.sharded import read_parts

        for number, entry in state.items():
            entry |= {moment: torch.zeros_like(parameters[number].detach()) for moment in _MOMENTS}
        placed = optimizer | {"state": state}
        read_parts(moments_by_name(placed, model), parts)
        return placed
    if storage.is_split:
        for number, entry in state.items():
            for moment in _MOMENTS:
                target = torch.zeros_like(parameters[number].detach())
                storage.fill(target, entry[moment])
                entry[moment] = target
    return optimizer | {"state": state}
