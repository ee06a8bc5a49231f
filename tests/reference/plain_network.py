"""The network as it would be written on paper: one sequence, one head, one position after the other.

It takes weights by their names in a SEDD checkpoint and imports nothing of the package. Prefix and target always lie in
one sequence; with one-way attention the prefix looks at itself only, is modulated with sigma = 0, and stands at
positions spread evenly over those of the target, which then begin at 0.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def conditioning(weights: Weights, sigma: Tensor) -> Tensor:
    """The vector that a noise level becomes, for one scalar sigma."""
    frequencies = torch.tensor([math.exp(-math.log(10_000) * k / 128) for k in range(128)], dtype=sigma.dtype)
    angles = sigma * frequencies
    x = torch.cat([angles.cos(), angles.sin()])
    x = F.silu(weights["sigma_map.mlp.0.weight"] @ x + weights["sigma_map.mlp.0.bias"])
    return F.silu(weights["sigma_map.mlp.2.weight"] @ x + weights["sigma_map.mlp.2.bias"])


def sinusoids(position: float, width: int) -> Tensor:
    """Sines in the first half, cosines in the second, as long together as an embedding is on average."""
    angles = [position / 10_000 ** (2 * k / width) for k in range(width // 2)]
    values = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(values, dtype=torch.float64) / math.sqrt(width)


def turned(x: Tensor, position: float) -> Tensor:
    """One head of one position, rotated: elements i and i + E/2 are the two coordinates of a plane."""
    half = len(x) // 2
    result = torch.empty_like(x)
    for i in range(half):
        angle = position / 10_000 ** (2 * i / len(x))
        result[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        result[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return result


def normalised(x: Tensor, gain: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt(centred.square().mean() + 1e-5) * gain


def modulated(x: Tensor, gain: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return normalised(x, gain) * (1 + scale) + shift


def attended(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], visible: list[range]) -> list[Tensor]:
    """One head: position i looks at the positions `visible[i]`."""
    mixed = []
    for query, seen in zip(queries, visible, strict=True):
        weight = torch.stack([query @ keys[j] for j in seen]) / math.sqrt(len(query))
        mixed.append(torch.softmax(weight, 0) @ torch.stack([values[j] for j in seen]))
    return mixed


def plain_logits(
    weights: Weights,
    prefix: list[int],
    target: list[int],
    sigma: Tensor,
    *,
    num_heads: int,
    one_way: bool,
    absolute_positions: bool = False,
) -> Tensor:
    """Logits (L, N) of the target of one sequence; `sigma` is a scalar, one for a network that does not see time.

    Of a network with a copy head they are log probabilities, -inf for MASK.
    """
    ids, num_prefix = [*prefix, *target], len(prefix)
    everything, prefix_only = range(len(ids)), range(num_prefix)
    visible = [prefix_only if one_way and i < num_prefix else everything for i in everything]
    at_sigma, at_zero = conditioning(weights, sigma), conditioning(weights, torch.zeros_like(sigma))
    c = [at_zero if one_way and i < num_prefix else at_sigma for i in everything]
    place: list[float] = [*everything]
    if one_way:
        beside = [(j + 0.5) * len(target) / num_prefix - 0.5 for j in range(num_prefix)]
        place = [*beside, *range(len(target))]
    x = [weights["vocab_embed.embedding"][token] for token in ids]
    if absolute_positions:
        x = [row + sinusoids(place[i], len(row)) for i, row in enumerate(x)]
    block, before_last = 0, x
    while f"blocks.{block}.attn_qkv.weight" in weights:
        before_last = [*x]
        w = {name.removeprefix(f"blocks.{block}."): value for name, value in weights.items()}
        ada = [(w["adaLN_modulation.weight"] @ c[i] + w["adaLN_modulation.bias"]).chunk(6) for i in everything]
        qkv = [w["attn_qkv.weight"] @ modulated(x[i], w["norm1.weight"], ada[i][0], ada[i][1]) for i in everything]
        heads = [row.view(3, num_heads, -1) for row in qkv]
        mixed = [
            attended(
                [turned(heads[i][0, h], place[i]) for i in everything],
                [turned(heads[i][1, h], place[i]) for i in everything],
                [heads[i][2, h] for i in everything],
                visible,
            )
            for h in range(num_heads)
        ]
        for i in everything:
            x[i] = x[i] + ada[i][2] * (w["attn_out.weight"] @ torch.cat([mixed[h][i] for h in range(num_heads)]))
            inner = w["mlp.0.weight"] @ modulated(x[i], w["norm2.weight"], ada[i][3], ada[i][4]) + w["mlp.0.bias"]
            inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
            x[i] = x[i] + ada[i][5] * (w["mlp.2.weight"] @ inner + w["mlp.2.bias"])
        block += 1
    rows = []
    for i in list(everything)[num_prefix:]:
        ada_bias = weights["output_layer.adaLN_modulation.bias"]
        shift, scale = (weights["output_layer.adaLN_modulation.weight"] @ c[i] + ada_bias).chunk(2)
        last = modulated(x[i], weights["output_layer.norm_final.weight"], shift, scale)
        logits = weights["output_layer.linear.weight"] @ last + weights["output_layer.linear.bias"]
        if "copy_head.gate.weight" in weights and num_prefix:
            logits = copied(weights, last, logits, prefix, before_last[:num_prefix])
        rows.append(logits)
    return torch.stack(rows)


def copied(weights: Weights, last: Tensor, logits: Tensor, prefix: list[int], states: list[Tensor]) -> Tensor:
    """Log probabilities of one position, given what the prefix tokens are before the last block."""
    query = weights["copy_head.query.weight"] @ last
    keys = [weights["copy_head.key.weight"] @ normalised(x, weights["copy_head.norm_key.weight"]) for x in states]
    scores = [float(query @ key) / math.sqrt(len(last)) for key in keys]
    gate = float(weights["copy_head.gate.weight"][0] @ last + weights["copy_head.gate.bias"][0])
    probs = mixed_probs(logits[:-1].tolist(), gate, scores, prefix)
    return torch.tensor([math.log(p) for p in probs] + [-math.inf], dtype=torch.float64)


def mixed_probs(logits: list[float], gate: float, scores: list[float], prefix: list[int]) -> list[float]:
    """p(token) of all tokens: their softmax, and with the probability of the gate a token of the prefix.

    Ids beyond the tokens are MASK, which is nothing that could be copied.
    """
    weights = [math.exp(value - max(logits)) for value in logits]
    places = [j for j, token in enumerate(prefix) if token < len(logits)]
    share = 1 / (1 + math.exp(-gate)) if places else 0.0
    probs = [(1 - share) * weight / sum(weights) for weight in weights]
    pointer = [math.exp(scores[j]) for j in places]
    for j, value in zip(places, pointer, strict=True):
        probs[prefix[j]] += share * value / sum(pointer)
    return probs
