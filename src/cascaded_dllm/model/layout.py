"""The layout network: from the tokens of a text and its known gaps to the law of its hidden gaps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.ddit import DDiTBlock, EmbeddingLayer, FinalLayer, sinusoids
from cascaded_dllm.model.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """Everything that determines the shape of a layout network.

    Attributes:
        vocab_size: number of real tokens.
        num_tokens: tokens n of the text that is laid out.
        num_new: new tokens m - n of the longer text.
        hidden_size: width of the residual stream.
        num_heads: attention heads.
        num_blocks: transformer blocks.
        cond_dim: width of the vector that encodes how many new tokens are left.
    """

    vocab_size: int
    num_tokens: int
    num_new: int
    hidden_size: int
    num_heads: int
    num_blocks: int
    cond_dim: int

    def __post_init__(self) -> None:
        require_at_least("layout.num_blocks", self.num_blocks, 1)

    @property
    def num_gaps(self) -> int:
        """Number of gaps G: one before every token, and one after the last."""
        return self.num_tokens + 1

    @property
    def num_labels(self) -> int:
        """Number of sizes S that a gap can have, 0 ... m - n."""
        return self.num_new + 1

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LayoutConfig":
        """The configuration in a checkpoint's `config.json`.

        Raises:
            ConfigError: a key is unknown or missing, or a value is not a whole number of at least 1.
        """
        names = {field.name for field in fields(cls)}
        if settings.keys() != names:
            raise ConfigError(
                f"the layout settings have unknown keys {sorted(settings.keys() - names)} and lack "
                f"{sorted(names - settings.keys())}; the keys are {sorted(names)}"
            )
        for name, value in settings.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"the layout setting {name} is {value!r}; it must be a whole number of at least 1")
        return cls(**settings)

    def to_dict(self) -> dict[str, int]:
        """The inverse of `from_dict`."""
        return asdict(self)


class LayoutModel(nn.Module):
    """A diffusion transformer over gap labels that share positions with the tokens, so nothing has to be aligned.

    Gap i shares the position of token i, which follows it, and the last gap that of an end mark. In place of the noise
    level, the blocks get the number of new tokens that the known gaps leave.
    """

    def __init__(self, config: LayoutConfig) -> None:
        super().__init__()
        self.config = config
        width, cond_dim = config.hidden_size, config.cond_dim
        self.token_embed = EmbeddingLayer(config.vocab_size + 1, width)
        self.gap_embed = EmbeddingLayer(config.num_labels + 1, width)
        self.left_map = EmbeddingLayer(config.num_labels, cond_dim)
        self.rotary_emb = Rotary(width // config.num_heads)
        self.blocks = nn.ModuleList(DDiTBlock(width, config.num_heads, cond_dim) for _ in range(config.num_blocks))
        self.output_layer = FinalLayer(width, config.num_labels, cond_dim)

    @property
    def hidden_label(self) -> int:
        """The label of a hidden gap."""
        return self.config.num_labels

    def forward(self, z: Int[Tensor, "B n"], gaps: Int[Tensor, "B G"]) -> Float[Tensor, "B G S"]:
        """Logits of every gap over the labels 0 ... S - 1.

        Args:
            z: ids of the text that is laid out.
            gaps: the known gaps; `hidden_label` where one is hidden.
        """
        known = torch.where(gaps == self.hidden_label, 0, gaps).sum(-1)
        c_BC = F.silu(self.left_map((self.config.num_new - known)[:, None])[:, 0])
        position = torch.arange(gaps.shape[1], device=z.device)
        x = self.token_embed(F.pad(z, (0, 1), value=self.config.vocab_size)) + self.gap_embed(gaps)
        x = x + sinusoids(position.to(x), self.config.hidden_size)
        cos_sin = self.rotary_emb(position)
        for block in self.blocks:
            x, _ = block(x, c_BC, cos_sin)
        return self.output_layer.linear(self.output_layer.hidden(x, c_BC, None))
