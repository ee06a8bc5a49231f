"""Exponential moving average of the weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from cascaded_dllm.train.storage import Storage, Whole


class Ema:
    """Averaged weights, updated after every optimizer step.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that the random initial weights are
    forgotten early.

    Args:
        model: the network whose parameters are averaged.
        decay: final decay, in [0, 1).
        storage: how its parameters are stored; the averages are stored in the same way.
    """

    def __init__(self, model: nn.Module, decay: float, storage: Storage | None = None) -> None:
        self.decay = decay
        self.num_updates = 0
        self._storage = storage or Whole()
        self._names = [name for name, _ in model.named_parameters()]
        self._shadow = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self, model: nn.Module, *, is_void: Tensor | None = None) -> None:
        """Move the average towards the current weights.

        Args:
            model: the network.
            is_void: a tensor on the device, 1 if the step must leave no trace and 0 otherwise, for which the host need
                not wait; None means 0.
        """
        self.num_updates += 1
        weight = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        shadow, now = self._local(self._shadow), self._local(model.parameters())
        if is_void is None:
            torch._foreach_lerp_(shadow, now, weight)
        else:
            torch._foreach_lerp_(shadow, now, [weight * (1 - is_void)] * len(shadow))

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._shadow, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Continue from a stored average."""
        self.num_updates = num_updates
        for name, shadow in zip(self._names, self._shadow, strict=True):
            self._storage.fill(shadow, state[name])

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the parameters of `model` with the averages."""
        with torch.no_grad():
            torch._foreach_copy_(self._local(model.parameters()), self._local(self._shadow))

    def _local(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        return [self._storage.local(tensor.detach()) for tensor in tensors]
