"""Tiny networks whose weights are all random, also those that training starts at zero, which would hide faults."""

import itertools
from typing import Any, TypeVar

import torch
from torch import nn

from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel

Model = TypeVar("Model", bound=nn.Module)

VOCAB = 13
SIZES = {"vocab_size": VOCAB, "hidden_size": 16, "num_heads": 2, "num_blocks": 2, "cond_dim": 8}

COMBINATIONS: list[dict[str, Any]] = [
    *(
        {"parameterization": p, "time_conditioning": t, "prefix_attention": a}
        for p, t, a in itertools.product(("score", "normalized"), (True, False), ("joint", "one_way"))
    ),
    {"scale_by_sigma": False},
    {"prefix_attention": "joint", "absolute_positions": True},
    {"prefix_attention": "one_way", "absolute_positions": True},
    {"parameterization": "normalized", "copy_head": True},
    {"parameterization": "normalized", "copy_head": True, "prefix_attention": "one_way", "absolute_positions": True},
    {"process": "uniform", "scale_by_sigma": False},
    {"process": "uniform", "prefix_attention": "one_way", "time_conditioning": False},
]


def tiny_model(*, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> ScoreModel:
    """A network in evaluation mode; `settings` override the sizes and the defaults of `ScoreModelConfig`."""
    return randomised(ScoreModel(ScoreModelConfig(**(SIZES | settings))), seed).to(dtype).eval()


def tiny_placed(
    num_tokens: int, num_new: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any
) -> PlacedModel:
    """The network of a placed stage in evaluation mode, as wide in both halves."""
    config = ScoreModelConfig(**(SIZES | settings))
    sizes = {name: getattr(config, name) for name in SIZES}
    layout = LayoutConfig(num_tokens=num_tokens, num_new=num_new, **sizes)
    return randomised(PlacedModel(config, layout), seed).to(dtype).eval()


def randomised(model: Model, seed: int) -> Model:
    """The network with other weights than those that training starts from."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.2
            noise = spread * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + noise if "norm" in name else noise)
    return model


def tiny_batch(*, seed: int = 0, batch: int = 3, length: int = 5, prefix_length: int = 4) -> tuple[torch.Tensor, ...]:
    """(xt, sigma, prefix) with masks and tokens in every text; MASK is the id VOCAB."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCAB, (batch, length), generator=generator)
    is_masked = torch.rand(batch, length, generator=generator) < 0.5
    is_masked[:, 0], is_masked[:, 1] = True, False
    sigma = torch.rand(batch, generator=generator) * 3 + 0.05
    return (
        torch.where(is_masked, VOCAB, tokens),
        sigma,
        torch.randint(VOCAB, (batch, prefix_length), generator=generator),
    )
