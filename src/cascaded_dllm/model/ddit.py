"""The blocks of the diffusion transformer of SEDD (Peebles & Xie 2023, arXiv:2212.09748; Lou et al. 2024, App. C.2).

Dimension letters: B batch, S positions, M kept rows, D width, H heads, E width of a head, C conditioning width.
Weights stay in their own precision; matrix products run in the compute dtype, everything between them in float32.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cascaded_dllm.model.dropout import Dropout
from cascaded_dllm.model.rotary import rotate
from cascaded_dllm.model.rows import Rows

# "_" is the number of positions, which differs between the context and the block itself.
KeyValue = tuple[Float[Tensor, "B H _ E"], Float[Tensor, "B H _ E"]]
CosSin = tuple[Tensor, Tensor]


class Linear(nn.Linear):
    """A linear layer whose master weights are cast to the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """The affine map, computed in the dtype of `input`."""
        bias = self.bias.to(input.dtype) if self.bias is not None else None
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.Module):
    """Layer normalisation with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """`x` normalised over its last axis."""
        return F.layer_norm(x, self.weight.shape, self.weight)


class SigmaEmbedder(nn.Module):
    """The total noise as a vector: sinusoids of sigma through a small network."""

    num_frequencies = 128

    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * self.num_frequencies, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim)
        )

    def forward(self, sigma: Float[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """One conditioning vector for each sequence."""
        index = torch.arange(self.num_frequencies, device=sigma.device, dtype=sigma.dtype)
        angle = sigma[:, None] * torch.exp(-math.log(10_000) * index / self.num_frequencies)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))


class EmbeddingLayer(nn.Module):
    """Token embedding, MASK included."""

    def __init__(self, num_states: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_states, width))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The vector of every id."""
        return F.embedding(ids, self.embedding)


def sinusoids(position_S: Float[Tensor, " S"], width: int) -> Float[Tensor, "S D"]:
    """Sinusoids of absolute positions (Vaswani et al. 2017, arXiv:1706.03762, Sec. 3.5), as large as new embeddings."""
    exponent = torch.arange(0, width, 2, device=position_S.device, dtype=position_S.dtype) / width
    angle = position_S[:, None] * 10_000.0**-exponent
    return torch.cat([angle.sin(), angle.cos()], dim=-1) / math.sqrt(width)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype | None) -> Tensor:
    """x (1 + scale) + shift, cast to the compute dtype of the matrix product that follows; None leaves the dtype."""
    modulated = x * (1 + scale) + shift
    return modulated if dtype is None else modulated.to(dtype)


class DDiTBlock(nn.Module):
    """One transformer block whose normalisations are shifted, scaled and gated by the noise level (adaLN-zero)."""

    def __init__(self, width: int, num_heads: int, cond_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = LayerNorm(width)
        self.attn_qkv = Linear(width, 3 * width, bias=False)
        self.attn_out = Linear(width, width, bias=False)
        self.norm2 = LayerNorm(width)
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(approximate="tanh"), Linear(4 * width, width))
        self.adaLN_modulation = nn.Linear(cond_dim, 6 * width)
        nn.init.zeros_(self.adaLN_modulation.weight)
        nn.init.zeros_(self.adaLN_modulation.bias)

    def forward(
        self,
        x_BSD: Float[Tensor, "B S D"],
        c_BC: Float[Tensor, "#B C"],
        cos_sin: CosSin,
        *,
        context: KeyValue | None = None,
        rows: Rows | None = None,
        dropout: Dropout | None = None,
        dtype: torch.dtype | None = None,
        gives_keys: bool = False,
    ) -> tuple[Float[Tensor, "*M D"], KeyValue | None]:
        """The residual stream after the block, and with `gives_keys` the keys and values for other positions.

        Args:
            x_BSD: residual stream.
            c_BC: conditioning vectors, or one for all sequences.
            cos_sin: rotation of the positions of `x_BSD`.
            context: keys and values of a prefix, attended to beside the block's own.
            rows: compute and return these rows only. Attention is still over all positions, so in the last block this
                is exact: a row depends on the others through keys and values alone.
            dropout: of this block, applied to both branches.
            dtype: dtype of the matrix products; the dtype of `x_BSD` if None.
            gives_keys: whether keys and values are returned. A compiled block whose caller drops them would make
                gradients of zeros for them, read them and add them.
        """
        modulation = self.adaLN_modulation(c_BC)
        query, *own = self._query_key_value(x_BSD, modulation, cos_sin, dtype)
        key, value = own if context is None else (torch.cat(pair, dim=2) for pair in zip(context, own, strict=True))
        mixed_BSD = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

        if rows is None:
            modulation = modulation[:, None]
        else:
            x_BSD, mixed_BSD = rows.of(x_BSD), rows.of(mixed_BSD)
            modulation = modulation[rows.batch] if c_BC.shape[0] > 1 else modulation
        _, _, gate_attention, shift, scale, gate_mlp = modulation.chunk(6, dim=-1)
        branch = self.attn_out(mixed_BSD)
        x_BSD = x_BSD + gate_attention * (branch if dropout is None else dropout(branch, 0, rows))
        branch = self.mlp(_modulate(self.norm2(x_BSD), shift, scale, dtype))
        x_BSD = x_BSD + gate_mlp * (branch if dropout is None else dropout(branch, 1, rows))
        return x_BSD, (own[0], own[1]) if gives_keys else None

    def keys_values(
        self, x_BSD: Float[Tensor, "B S D"], c_BC: Float[Tensor, "#B C"], cos_sin: CosSin, dtype: torch.dtype | None
    ) -> KeyValue:
        """Keys and values alone, which are all that a prefix needs from the last block."""
        _, key, value = self._query_key_value(x_BSD, self.adaLN_modulation(c_BC), cos_sin, dtype)
        return key, value

    def keep_products_in(self, dtype: torch.dtype) -> None:
        """Store the weights of the matrix products over positions in `dtype`, instead of casting them in every call."""
        for layer in self.modules():
            if isinstance(layer, Linear):
                layer.to(dtype)

    def _query_key_value(
        self, x_BSD: Tensor, modulation: Tensor, cos_sin: CosSin, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shift, scale = modulation[:, None].chunk(6, dim=-1)[:2]
        qkv = self.attn_qkv(_modulate(self.norm1(x_BSD), shift, scale, dtype))
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        query, key = rotate(query, cos_sin), rotate(key, cos_sin)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class FinalLayer(nn.Module):
    """The last modulated normalisation and the output layer over all states."""

    def __init__(self, width: int, num_states: int, cond_dim: int) -> None:
        super().__init__()
        self.norm_final = LayerNorm(width)
        self.linear = nn.Linear(width, num_states)
        self.adaLN_modulation = nn.Linear(cond_dim, 2 * width)
        for layer in (self.linear, self.adaLN_modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def hidden(self, x: Float[Tensor, "*M D"], c_BC: Float[Tensor, "#B C"], rows: Rows | None) -> Float[Tensor, "*M D"]:
        """Input of the output layer; `rows` says which sequence each row of `x` belongs to."""
        modulation = self.adaLN_modulation(c_BC)
        if rows is None:
            modulation = modulation[:, None]
        elif c_BC.shape[0] > 1:
            modulation = modulation[rows.batch]
        shift, scale = modulation.chunk(2, dim=-1)
        return _modulate(self.norm_final(x), shift, scale, None)
