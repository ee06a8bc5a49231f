"""A stand-in for a trained network: it reads its conditionals from a table and remembers at what noise it was asked."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascaded_dllm.model.copy_head import States
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import Prefix, ScoreModel
from cascaded_dllm.numerics import log_expm1

Conditionals = Callable[[Tensor], Tensor]
"""xt of shape (B, L) -> p(x0 | unmasked tokens) of shape (B, L, V)."""


def from_table(table: Tensor, *, spread: int = 1) -> Conditionals:
    """Conditionals of a table as in tests/reference/enumerate.py.

    Args:
        table: (states, L, V).
        spread: word v of the table is token v * spread of a vocabulary of V * spread tokens, all others having
            probability zero; so a small law reaches over many blocks of columns.
    """
    _, length, num_words = table.shape
    place = torch.tensor([(num_words + 1) ** (length - 1 - i) for i in range(length)])

    def conditionals(xt: Tensor) -> Tensor:
        rows = table[torch.div(xt, spread, rounding_mode="floor") @ place]
        return F.pad(rows[..., None], (0, spread - 1)).flatten(-2)

    return conditionals


class TableNetwork(ScoreModel):
    """Has what `StageSampler` asks of a network: a hidden state is the row of the table, `logits` reads it back.

    Attributes:
        noise: sigma of every call.
        num_rows: rows computed, over all calls.
    """

    def __init__(
        self, conditionals: Conditionals, vocab_size: int, parameterization: Literal["score", "normalized"]
    ) -> None:
        nn.Module.__init__(self)
        self.config = ScoreModelConfig(vocab_size=vocab_size, parameterization=parameterization)
        self.conditionals = conditionals
        self.noise: list[Tensor] = []
        self.num_rows = 0

    def encode_prefix(self, prefix: Tensor, target_length: int, *, dropout: object = None) -> Prefix:
        return Prefix(prefix, None)

    def states(
        self,
        xt: Tensor,
        sigma: Tensor,
        prefix: Tensor | Prefix | None = None,
        *,
        rows: Rows | None = None,
        dropout_words: Tensor | None = None,
    ) -> States:
        assert rows is not None
        assert len(sigma) == len(xt)
        self.noise.append(sigma.clone())
        self.num_rows += len(rows.batch)
        return States(rows.of(self.conditionals(xt)), None)

    def logits(self, hidden: Tensor) -> Tensor:
        """log p, moved by a constant that the score parameterization must take away and a normalised one ignores."""
        shift = math.log(self.config.vocab_size) if self.config.parameterization == "score" else 5.0
        return F.pad(hidden.log() + shift, (0, 1), value=9.0)

    def log_total(self, hidden: Tensor) -> Tensor:
        return torch.logsumexp(self.logits(hidden)[:, : self.config.vocab_size], -1)

    def log_scale(self, sigma: Tensor) -> Tensor:
        return log_expm1(sigma) + math.log(self.config.vocab_size)


class UniformTableNetwork(ScoreModel):
    """The exact log score of a law under the uniform process, from its table of scores at every noise."""

    def __init__(self, log_score_of: Callable[[float], Tensor], vocab_size: int, length: int) -> None:
        nn.Module.__init__(self)
        self.config = ScoreModelConfig(vocab_size=vocab_size, process="uniform")
        self.log_score_of = log_score_of
        self.place = torch.tensor([vocab_size ** (length - 1 - i) for i in range(length)])

    def encode_prefix(self, prefix: Tensor, target_length: int, *, dropout: object = None) -> Prefix:
        return Prefix(prefix, None)

    def forward(self, xt: Tensor, sigma: Tensor, prefix: Tensor | Prefix | None = None) -> Tensor:
        assert (sigma == sigma[0]).all()
        return self.log_score_of(float(sigma[0]))[xt @ self.place].float()
