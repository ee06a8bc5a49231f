"""The networks and the texts that are timed: random weights, random tokens, the default stage lengths."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel

Attention = Literal["joint", "one_way"]
Reading = Literal["score", "normalized"]


@dataclass(frozen=True, slots=True)
class Size:
    """A network, the texts it is for, and the batch size of its training."""

    hidden_size: int
    num_heads: int
    num_blocks: int
    vocab_size: int
    stage_lengths: tuple[int, ...]
    train_batch: int


SIZES = {
    "toy": Size(32, 2, 2, 97, (4, 8, 16), 4),
    "tiny": Size(128, 4, 3, 4_096, (32, 64, 128), 32),
    "reduced": Size(256, 4, 4, 50_257, (32, 64, 128), 16),
    "small": Size(768, 12, 12, 50_257, (32, 64, 128), 4),
}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def chosen(dtypes: Sequence[str]) -> dict[str, torch.dtype | None]:
    """float32, with which others are compared, and the named ones of DTYPES; all if none is named."""
    return {name: dtype for name, dtype in DTYPES.items() if name in ("float32", *(dtypes or DTYPES))}


def random_network(
    size: Size, attention: Attention, reading: Reading = "score", *, copy_head: bool = False
) -> ScoreModel:
    """A network with random weights, also where training starts from zero, so that no gradient is zero."""
    torch.manual_seed(0)
    model = ScoreModel(
        ScoreModelConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.hidden_size,
            num_heads=size.num_heads,
            num_blocks=size.num_blocks,
            parameterization=reading,
            prefix_attention=attention,
            copy_head=copy_head,
        )
    )
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01)
    return model


def same_weights(model: ScoreModel, attention: Attention, reading: Reading) -> ScoreModel:
    """A network of other attention and reading that shares the memory of the weights of `model`."""
    with torch.device("meta"):
        other = ScoreModel(replace(model.config, prefix_attention=attention, parameterization=reading))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()


def placed_networks(model: ScoreModel, lengths: tuple[int, ...]) -> tuple[PlacedModel, ...]:
    """Networks of the placed stages, from the second on; to fill, they share the weights of `model` in memory."""
    config, found = model.config, []
    for before, length in itertools.pairwise(lengths):
        layout = LayoutConfig(
            vocab_size=config.vocab_size,
            num_tokens=before,
            num_new=length - before,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_blocks=3,
            cond_dim=config.cond_dim,
        )
        placed = PlacedModel(config, layout)
        placed.load_state_dict(model.state_dict(), strict=False, assign=True)
        placed.layout.to(model.device)
        found.append(placed.eval())
    return tuple(found)


def random_windows(size: Size, num_windows: int) -> StageArrays:
    """Random windows, each stage the beginning of the window, in memory."""
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (num_windows, size.stage_lengths[-1]), dtype=np.int32)
    return StageArrays(
        spec=CascadeSpec(size.stage_lengths),
        packing="stream",
        method="random",
        eos_id=size.vocab_size - 1,
        vocab_size=size.vocab_size,
        tokenizer="none",
        fingerprint="random",
        dropped={},
        stages=tuple(ids[:, :length] for length in size.stage_lengths),
        positions=tuple(
            np.tile(np.arange(length, dtype=np.int32), (num_windows, 1)) for length in size.stage_lengths[:-1]
        ),
    )
