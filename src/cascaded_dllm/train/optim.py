"""The optimizer and its learning rate as a pure function of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from cascaded_dllm.checks import one_of, require_at_least, require_share
from cascaded_dllm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and clipping; the defaults are the original's.

    Attributes:
        lr: peak learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay.
        warmup: steps over which the rate rises linearly from zero.
        decay: `constant` after warm-up, or `cosine` down to a tenth of `lr` at the last step.
        grad_clip: largest norm of the gradient; a larger gradient is scaled down to it.
    """

    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 2500
    decay: str = "constant"
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it must be greater than 0")
        for name in ("lr", "eps", "weight_decay"):
            if math.isinf(getattr(self, name)):
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it must be finite")
        for name in ("beta1", "beta2"):
            require_share(f"optim.{name}", getattr(self, name))
        for name in ("warmup", "weight_decay"):
            require_at_least(f"optim.{name}", getattr(self, name), 0)
        one_of("optim.decay", self.decay, ("constant", "cosine"))

    def learning_rate(self, step: int, num_steps: int) -> float:
        """Learning rate of optimizer step `step` (0 for the first) of `num_steps`."""
        rate = self.lr * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine" and step >= self.warmup:
            progress = (step - self.warmup) / max(1, num_steps - 1 - self.warmup)
            rate *= 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return rate


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters, in its fused form."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
