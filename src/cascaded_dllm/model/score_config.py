"""The configuration of a score network: its sizes, its process and how its output is read."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cascaded_dllm.checks import one_of, require_at_least, require_share
from cascaded_dllm.errors import ConfigError

_NAMES = {"vocab_size": "vocab_size", "process": "process (graph.type)"}
"""What messages call the fields that are not keys of the group `model`."""

_CHOICES = {
    "process": ("absorbing", "uniform"),
    "parameterization": ("score", "normalized"),
    "prefix_attention": ("joint", "one_way"),
}


def _key(name: str) -> str:
    """The configuration key that sets a field."""
    return _NAMES.get(name, f"model.{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreModelConfig:
    """Everything that determines the shape and the reading of a score network.

    Attributes:
        vocab_size: number of real tokens V.
        process: absorbing (one more state, MASK) or uniform.
        hidden_size: width D of the residual stream.
        num_heads: attention heads; must divide `hidden_size` into even parts.
        num_blocks: transformer blocks.
        cond_dim: width C of the noise embedding.
        dropout: probability of zeroing an element of a branch in training.
        scale_by_sigma: with `parameterization: score`, subtract log(expm1(sigma)) + log(N - 1) from the logits.
        parameterization: `score` reads logits as unnormalised log scores, as SEDD does; `normalized` reads their
            log softmax as log p(x0 | unmasked) (RADD).
        time_conditioning: whether the network sees sigma; False makes it time-agnostic.
        prefix_attention: with `joint`, prefix and target attend to each other; with `one_way`, the target attends to
            the prefix, and the prefix only to itself.
        absolute_positions: add sinusoids of the position to the embeddings. Rotary positions are relative, so without
            this a network cannot tell one position from another while every token is MASK, and it draws the first token
            from the average over positions. That is right for windows cut from running text, but where every window
            begins with a text, it costs nats and writes wrong beginnings. SEDD's weights need False.
        copy_head: a gated mixture of the softmax over the vocabulary and a pointer over the prefix, see `CopyHead`;
            only with `parameterization: normalized`.
    """

    vocab_size: int
    process: Literal["absorbing", "uniform"] = "absorbing"
    hidden_size: int = 768
    num_heads: int = 12
    num_blocks: int = 12
    cond_dim: int = 128
    dropout: float = 0.0
    scale_by_sigma: bool = True
    parameterization: Literal["score", "normalized"] = "score"
    time_conditioning: bool = True
    prefix_attention: Literal["joint", "one_way"] = "joint"
    absolute_positions: bool = False
    copy_head: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_heads", "num_blocks", "cond_dim"):
            require_at_least(_key(name), getattr(self, name), 1)
        for name, allowed in _CHOICES.items():
            one_of(_key(name), getattr(self, name), allowed)
        if self.hidden_size % (2 * self.num_heads):
            raise ConfigError(
                f"model.hidden_size is {self.hidden_size} and model.num_heads {self.num_heads}; "
                f"the width must be a multiple of twice the heads, {2 * self.num_heads}"
            )
        require_share("model.dropout", self.dropout)
        if self.parameterization == "normalized" and self.process != "absorbing":
            raise ConfigError(
                f"model.parameterization is normalized and {_key('process')} {self.process}; log p(x0 | unmasked) "
                "exists only for the absorbing process: set model.parameterization=score"
            )
        if self.copy_head and self.parameterization != "normalized":
            raise ConfigError(
                f"model.copy_head is true and model.parameterization {self.parameterization}; the copy head mixes "
                "probabilities, and unnormalised scores are not probabilities: set model.parameterization=normalized, "
                "or model.copy_head=false"
            )

    @property
    def num_states(self) -> int:
        """Number of states N."""
        return self.vocab_size + (self.process == "absorbing")

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "ScoreModelConfig":
        """The configuration in a checkpoint's `config.json`; an unknown or a missing key is a ConfigError.

        A checkpoint written before copy heads existed lacks the key `copy_head`, and has none. This default cannot
        hide a lost key: weights are matched by name, so those of a head would be refused.
        """
        settings = {"copy_head": False, **settings}
        names = {field.name for field in fields(cls)}
        if settings.keys() != names:
            raise ConfigError(
                f"the model settings have unknown keys {sorted(settings.keys() - names)} and lack "
                f"{sorted(names - settings.keys())}; the keys are {sorted(names)}"
            )
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`."""
        return asdict(self)
