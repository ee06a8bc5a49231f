"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class Ema:
    """Averaged weights, updated after every optimizer step.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that the random initial weights are
    forgotten early.

    Args:
        model: the network whose parameters are averaged.
        decay: final decay, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._names = [name for name, _ in model.named_parameters()]
        self._shadow = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self._shadow, [p.detach() for p in model.parameters()], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._shadow, strict=True))

    def load_state_dict(self, state: dict[str, Tensor], *, num_updates: int) -> None:
        """Continue from a stored average."""
        self.num_updates = num_updates
        for name, shadow in zip(self._names, self._shadow, strict=True):
            shadow.copy_(state[name])

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the parameters of `model` with the averages."""
        with torch.no_grad():
            for parameter, shadow in zip(model.parameters(), self._shadow, strict=True):
                parameter.copy_(shadow)
