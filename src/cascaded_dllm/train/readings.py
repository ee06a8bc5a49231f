"""Loss and gradient norm of steps, which stay on the device until they are needed.

Reading a number makes the host wait until the device has computed it, and leaves the device without work afterwards.
"""

import math
from typing import NamedTuple, final

import torch
from torch import Tensor

from cascaded_dllm.errors import NonFiniteError


class Reading(NamedTuple):
    """The numbers of one step.

    Attributes:
        loss: loss of the global batch, nats per target token.
        grad_norm: norm of the gradient before clipping.
    """

    loss: float
    grad_norm: float


@final
class Readings:
    """Loss and gradient norm of the steps since the last reading.

    A step that is not finite must not touch the weights, and neither must any step after it, before the host knows. So
    `is_broken` is on the device, where the updates read it.

    Args:
        device: device of the numbers.

    Attributes:
        is_broken: 0, and 1 from the first step on that is not finite; a float32 scalar.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_broken = torch.zeros((), device=device)
        self._unread: list[tuple[int, float, Tensor]] = []

    def note(self, step: int, lr: float, loss: Tensor, grad_norm: Tensor) -> None:
        """Remember the numbers of step `step` without waiting for them."""
        numbers = torch.stack([loss, grad_norm])
        self._unread.append((step, lr, numbers))
        self.is_broken = torch.maximum(self.is_broken, 1 - numbers.isfinite().all().float())

    def read(self) -> list[Reading]:
        """The numbers of the steps since the last reading, in order.

        Raises:
            NonFiniteError: a number of one of these steps is not finite.
        """
        if not self._unread:
            return []
        values = torch.stack([numbers for _, _, numbers in self._unread]).tolist()
        for (step, lr, _), pair in zip(self._unread, values, strict=True):
            for name, value in zip(("loss", "gradient norm"), pair, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"the {name} is {value} at step {step} with learning rate {lr:g}, it must be finite; the "
                        "weights were not touched: start a new run with a lower optim.lr or optim.grad_clip from the "
                        "weights of a checkpoint before it broke down (pretrained.use_pretrained=true "
                        "pretrained.model_path=...)"
                    )
        self._unread.clear()
        return [Reading(*pair) for pair in values]
