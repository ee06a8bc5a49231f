"""What was done to the prefixes of a stage in training; it is stored in checkpoints, because sampling depends on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import ConfigError

NOISE_KINDS = ("random", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSettings:
    """How the prefixes of a stage differ from the true ones in training; by default not at all.

    Attributes:
        noise_prob: probability that a prefix token is replaced.
        noise_kind: its replacement: `random`, a uniformly random token, or `mask`.
        dropout: probability that a whole prefix is replaced by MASK, so that the stage also learns to write without
            one.
        generated_prob: probability that a part of a prefix is rewritten by the stages before.
        generated_level: largest probability that a token of a rewritten prefix is noised.
    """

    noise_prob: float = 0.0
    noise_kind: str = "random"
    dropout: float = 0.0
    generated_prob: float = 0.0
    generated_level: float = 0.0

    def __post_init__(self) -> None:
        for name, key in (
            ("noise_prob", "training.prefix_noise.prob"),
            ("dropout", "training.prefix_dropout"),
            ("generated_prob", "training.generated_prefix.prob"),
            ("generated_level", "training.generated_prefix.level"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{key} is {getattr(self, name)}; it must lie between 0 and 1")
        one_of("training.prefix_noise.kind", self.noise_kind, NOISE_KINDS)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "PrefixSettings":
        """The settings in a checkpoint's `config.json`; an unknown key is a ConfigError."""
        unknown = settings.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(
                f"the prefix settings of the checkpoint have the unknown keys {sorted(unknown)}; it was written by a "
                "later version of this package: use that one"
            )
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`."""
        return asdict(self)

    def require_mask(self, process: str) -> None:
        """Checks that the forward process has a MASK, if the settings need one.

        Raises:
            ConfigError: they need one, and it is the uniform process, which has none.
        """
        if process == "absorbing":
            return
        if self.noise_prob > 0 and self.noise_kind == "mask":
            raise ConfigError(
                f"training.prefix_noise.kind is mask and graph.type {process}, which has no MASK; set "
                "training.prefix_noise.kind=random or graph.type=absorbing"
            )
        if self.dropout > 0:
            raise ConfigError(
                f"training.prefix_dropout is {self.dropout} and graph.type {process}, which has no MASK to put in "
                "place of a prefix; set training.prefix_dropout=0 or graph.type=absorbing"
            )


TRUE_PREFIXES = PrefixSettings()
"""The settings of a stage that was trained on true prefixes only, or that has no prefix."""
