"""The settings that decide a judge: the size of its network, its windows and its training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cascaded_dllm.checks import one_of, require_at_least, require_share
from cascaded_dllm.data.windows import PACKINGS
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.train.optim import OptimConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSize:
    """The shape of a GPT-2.

    Attributes:
        width: size of the vector of a token.
        blocks: transformer blocks.
        heads: attention heads of each; they share the width evenly.
    """

    width: int
    blocks: int
    heads: int

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "heads"):
            require_at_least(f"--{name}", getattr(self, name), 1)
        if self.width % self.heads:
            raise ConfigError(
                f"--width is {self.width} and --heads {self.heads}, which do not divide it; choose a width that is a "
                f"multiple of {self.heads}"
            )


SIZES: Mapping[str, JudgeSize] = {
    "tiny": JudgeSize(width=128, blocks=4, heads=4),
    "small": JudgeSize(width=384, blocks=6, heads=6),
    "gpt2": JudgeSize(width=768, blocks=12, heads=12),
}
"""Sizes by name."""


def judge_size(
    name: str, *, width: int | None = None, blocks: int | None = None, heads: int | None = None
) -> JudgeSize:
    """The size called `name`, with the given numbers in place of its own.

    Raises:
        ConfigError: there is no such size, or the numbers do not fit together.
    """
    size = SIZES[one_of("--model", name, SIZES)]
    asked = {"width": width, "blocks": blocks, "heads": heads}
    return replace(size, **{key: value for key, value in asked.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """All that decides a judge, besides the corpus.

    Attributes:
        size: of its network.
        length: tokens of a window; its context is one longer, for the token that begins a text.
        packing: how documents lie in windows, see `data.windows.Layout`.
        num_steps: optimizer steps.
        batch_size: windows a step.
        dropout: probability of dropping an activation in training.
        seed: decides the first weights, the order of the windows and the dropout.
        optim: optimizer settings.
    """

    size: JudgeSize
    length: int = 256
    packing: str = "document"
    num_steps: int = 2000
    batch_size: int = 32
    dropout: float = 0.1
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        require_at_least("--length", self.length, 2, hint="since a window of one token has no token before it")
        one_of("--packing", self.packing, PACKINGS)
        for name, value in (("steps", self.num_steps), ("batch-size", self.batch_size)):
            require_at_least(f"--{name}", value, 1)
        require_share("--dropout", self.dropout)

    def flattened(self) -> dict[str, Any]:
        """All settings by name, in one level."""
        values = asdict(self)
        return {**values.pop("size"), **{f"optim.{k}": v for k, v in values.pop("optim").items()}, **values}
