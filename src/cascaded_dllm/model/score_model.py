"""The score network: noised ids, noise level and prefix in; log score, logits or last hidden states out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32
from torch import Tensor, nn

from cascaded_dllm.blocked_softmax import blocked_logsumexp
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.copy_head import CopyHead, States
from cascaded_dllm.model.ddit import (
    DDiTBlock,
    EmbeddingLayer,
    FinalLayer,
    KeyValue,
    SigmaEmbedder,
    sinusoids,
)
from cascaded_dllm.model.dropout import Dropout
from cascaded_dllm.model.rotary import Rotary
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.numerics import log_expm1


@dataclass(frozen=True, slots=True)
class Prefix:
    """A conditioning prefix, ready for any number of network calls.

    Attributes:
        ids: clean ids of the stage before, (B, P).
        keys_values: keys and values of every block with `one_way` attention, where they depend neither on the target
            nor on time; None with `joint`.
        copy_keys: keys of the copy head with `one_way` attention; None with `joint`, or without a copy head.
    """

    ids: Int[Tensor, "B P"]
    keys_values: tuple[KeyValue, ...] | None
    copy_keys: Float[Tensor, "B P D"] | None = None

    def select(self, index: Int[Tensor, " b"]) -> "Prefix":
        """The prefix of some of the sequences."""
        if self.keys_values is None:
            return Prefix(self.ids[index], None)
        keys_values = tuple((key[index], value[index]) for key, value in self.keys_values)
        return Prefix(self.ids[index], keys_values, None if self.copy_keys is None else self.copy_keys[index])


class ScoreModel(nn.Module):
    """A diffusion transformer that estimates the score of noised text, given the text of the stage before.

    Parameter names are those of SEDD checkpoints. `compute_dtype` is the dtype of the matrix products of the trunk,
    None for that of the weights; the output layer, the score and every loss stay in the dtype of the weights.
    """

    def __init__(self, config: ScoreModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        width, cond_dim = config.hidden_size, config.cond_dim
        self.vocab_embed = EmbeddingLayer(config.num_states, width)
        self.sigma_map = SigmaEmbedder(cond_dim)
        self.rotary_emb = Rotary(width // config.num_heads)
        self.blocks = nn.ModuleList(DDiTBlock(width, config.num_heads, cond_dim) for _ in range(config.num_blocks))
        self.output_layer = FinalLayer(width, config.num_states, cond_dim)
        self.copy_head = CopyHead(width, config.vocab_size) if config.copy_head else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.vocab_embed.embedding.device

    @classmethod
    def from_pretrained(cls, source: str | Path, *, weights: Literal["ema", "raw"] = "ema") -> "ScoreModel":
        """A network with the weights of a checkpoint folder, a run folder, a SEDD folder or a hub id.

        Args:
            source: a checkpoint or run folder of this package, a run folder of the original code, a SEDD folder, or
                the id of such a repository on the hub, for example `louaaron/sedd-small`.
            weights: the exponential moving average, or the raw weights. A SEDD folder has one set and accepts either.

        Raises:
            CheckpointError: nothing is there, or the weights do not match the network; every mismatch is listed.

        Warns:
            DamagedCheckpointWarning: the newest checkpoint of a run is damaged, and an earlier one was loaded.
        """
        from cascaded_dllm.model.pretrained import load_stage, warn_of_damaged

        stage = load_stage(source, weights=weights)
        warn_of_damaged(stage.passed_over)
        return stage.model

    def keep_trunk_in(self, dtype: torch.dtype) -> None:
        """Store the weights of the trunk's matrix products in `dtype` and make it the compute dtype; for sampling only.

        Results are those of setting `compute_dtype` alone, but no call casts weights, which takes a tenth to a third of
        its time in bfloat16. Rounded weights cannot serve as master weights, so all gradients are switched off.
        """
        self.compute_dtype = dtype
        self.requires_grad_(False)
        for block in self.blocks:
            assert isinstance(block, DDiTBlock)
            block.keep_products_in(dtype)

    def forward(
        self,
        xt: Int[Tensor, "B L"],
        sigma: Float[Tensor, " B"],
        prefix: "Int[Tensor, 'B P'] | Prefix | None" = None,
    ) -> Float[Tensor, "B L N"]:
        """Log score of every position of the target and every state; 0 at y = xt.

        Args:
            xt: noised ids of the target.
            sigma: total noise of each sequence, > 0.
            prefix: clean ids of the stage before, or the result of `encode_prefix` for them.
        """
        log_score = self.log_score(self.read(self.states(xt, sigma, prefix)), sigma)
        return log_score.scatter(-1, xt[..., None], 0.0)

    def hidden(
        self,
        xt: Int[Tensor, "B L"],
        sigma: Float[Tensor, " B"],
        prefix: "Int[Tensor, 'B P'] | Prefix | None" = None,
        *,
        rows: Rows | None = None,
        dropout_words: Int32[Tensor, "B 2"] | None = None,
    ) -> Float[Tensor, "*M D"]:
        """Last hidden states of the target, the input of the output layer: (B, L, D), or (M, D) with `rows`.

        This is `states(...).hidden`; a network with a copy head needs the other states too.
        """
        return self.states(xt, sigma, prefix, rows=rows, dropout_words=dropout_words).hidden

    def states(
        self,
        xt: Int[Tensor, "B L"],
        sigma: Float[Tensor, " B"],
        prefix: "Int[Tensor, 'B P'] | Prefix | None" = None,
        *,
        rows: Rows | None = None,
        dropout_words: Int32[Tensor, "B 2"] | None = None,
    ) -> States:
        """Everything that determines the law of the clean tokens of the target, see `read`.

        Args:
            xt: noised ids of the target.
            sigma: total noise of each sequence.
            prefix: as in `forward`.
            rows: return the states of these (sequence, target position) pairs only.
            dropout_words: two random words for each sequence, which decide its masks; needed in training mode if the
                dropout rate is not zero.

        Returns:
            Tensors whose first axes are B, L, or M with `rows`.

        Raises:
            ConfigError: `dropout_words` are needed and not given.
        """
        dropout = self._dropout(dropout_words)
        if isinstance(prefix, Tensor):
            prefix = self.encode_prefix(prefix, xt.shape[1], dropout=dropout)
        if prefix is None:
            ids, context, skip = xt, None, 0
        elif prefix.keys_values is None:
            ids, context, skip = torch.cat([prefix.ids, xt], dim=1), None, prefix.ids.shape[1]
        else:
            ids, context, skip = xt, prefix.keys_values, 0
        c_BC = self._conditioning(sigma)
        position = torch.arange(ids.shape[1], device=ids.device)
        cos_sin = self.rotary_emb(position)
        x = self._embed(ids, position)
        copy_keys, last = None if prefix is None else prefix.copy_keys, len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            if i == last and skip > 0 and self.copy_head is not None:
                copy_keys = self.copy_head.keys(x[:, :skip])
            x, _ = block(
                x,
                c_BC,
                cos_sin,
                context=None if context is None else context[i],
                rows=Rows(rows.batch, rows.position + skip) if rows is not None and i == last else None,
                dropout=None if dropout is None else dropout.of_block(i),
                dtype=self.compute_dtype,
            )
        hidden = self.output_layer.hidden(x if rows is not None else x[:, skip:], c_BC, rows)
        if self.copy_head is None or prefix is None:
            return States(hidden, None)
        assert copy_keys is not None
        return States(hidden, self.copy_head(hidden, copy_keys, prefix.ids, length=xt.shape[1], rows=rows))

    def encode_prefix(
        self, prefix: Int[Tensor, "B P"], target_length: int, *, dropout: Dropout | None = None
    ) -> Prefix:
        """The prefix in a form that every network call of a stage can reuse.

        With `one_way` attention these are its keys and values (Arriola et al. 2025, arXiv:2503.09573): the prefix
        attends to itself only and is modulated with sigma = 0. Its positions are spread evenly over those of the
        target, so that a token is near the place where it will be needed. In measurements, a stage learnt to copy in
        half the steps that it took with the prefix in front. With `joint` attention, as in the original, the prefix
        stands in front of the target, and only its ids can be reused.

        Args:
            prefix: clean ids of the stage before.
            target_length: tokens L that the stage writes.
            dropout: dropout of the forward pass in training; None for none.
        """
        if self.config.prefix_attention == "joint":
            return Prefix(prefix, None)
        c_BC = self._embed_sigma(torch.zeros(1, device=prefix.device))
        spacing = target_length / prefix.shape[1]
        position = (torch.arange(prefix.shape[1], device=prefix.device) + 0.5) * spacing - 0.5
        cos_sin = self.rotary_emb(position)
        x = self._embed(prefix, position)
        keys_values = []
        for i, block in enumerate(self.blocks[:-1]):
            # The target goes through the same blocks, and must have other masks.
            masks = None if dropout is None else dropout.of_block(len(self.blocks) + i)
            x, key_value = block(x, c_BC, cos_sin, dropout=masks, dtype=self.compute_dtype, gives_keys=True)
            keys_values.append(key_value)
        last = self.blocks[-1]
        assert isinstance(last, DDiTBlock)
        keys_values.append(last.keys_values(x, c_BC, cos_sin, self.compute_dtype))
        return Prefix(prefix, tuple(keys_values), None if self.copy_head is None else self.copy_head.keys(x))

    def read(self, states: States) -> Float[Tensor, "*M N"]:
        """Logits of every state; with a copy head they are the log probabilities of the mixture."""
        logits = self.logits(states.hidden)
        return logits if states.copies is None else states.copies.mixed(logits, self.config.vocab_size)

    def logits(self, hidden: Float[Tensor, "*M D"]) -> Float[Tensor, "*M N"]:
        """Output of the last layer for every state, without the copy head."""
        return self.output_layer.linear(hidden)

    def log_total(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, " M"]:
        """Logsumexp over the tokens of `logits(hidden)`, without a tensor of (M, N) and without a gradient."""
        layer, vocab_size = self.output_layer.linear, self.config.vocab_size
        return blocked_logsumexp(hidden, layer.weight[:vocab_size], layer.bias[:vocab_size])

    def log_scale(self, sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """What the `score` parameterization subtracts from every logit: log(expm1(sigma)) + log(N - 1), or zero."""
        if not self.config.scale_by_sigma:
            return torch.zeros_like(sigma)
        return log_expm1(sigma) + math.log(self.config.num_states - 1)

    def log_score(self, logits: Float[Tensor, "B *L N"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *L N"]:
        """Logits read as log scores at noise sigma.

        score:       logits - log_scale(sigma)
        normalized:  log_softmax(logits over V) - log(expm1(sigma)); the column of MASK is zero (Ou et al. 2024, Eq. 5)
        """
        by_sequence = (-1,) + (1,) * (logits.dim() - 1)
        if self.config.parameterization == "score":
            return logits - self.log_scale(sigma).view(by_sequence)
        log_posterior = F.log_softmax(logits[..., : self.config.vocab_size], dim=-1)
        return F.pad(log_posterior - log_expm1(sigma).view(by_sequence), (0, 1))

    def _embed(self, ids: Int[Tensor, "B S"], position: Float[Tensor, " S"] | Int[Tensor, " S"]) -> Tensor:
        """The input of the first block, (B, S, D)."""
        embedded = self.vocab_embed(ids)
        if not self.config.absolute_positions:
            return embedded
        return embedded + sinusoids(position.to(embedded), self.config.hidden_size)

    def _conditioning(self, sigma: Float[Tensor, " B"]) -> Float[Tensor, "#B C"]:
        """Conditioning vectors: one for each sequence, or a single one if the network is time-agnostic.

        A time-agnostic network always gets sigma = 1 for the target, so that it can still tell it from a clean
        `one_way` prefix, which gets 0.
        """
        return self._embed_sigma(sigma if self.config.time_conditioning else torch.ones_like(sigma[:1]))

    def _embed_sigma(self, sigma: Float[Tensor, " B"]) -> Float[Tensor, "B C"]:
        return F.silu(self.sigma_map(sigma.to(self.output_layer.linear.weight.dtype)))

    def _dropout(self, words: Int32[Tensor, "B 2"] | None) -> Dropout | None:
        if not self.training or self.config.dropout == 0:
            return None
        if words is None:
            raise ConfigError(
                f"model.dropout is {self.config.dropout} and the network is in training mode; pass dropout_words, two "
                "random words a sequence, or call .eval()"
            )
        return Dropout(self.config.dropout, words)
