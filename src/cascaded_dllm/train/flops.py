"""FLOPs that a training step needs, and the peak FLOP/s of devices.

Only the matrix products that the network needs are counted, two FLOPs for a multiplication and its addition. What is
computed twice to save memory is not counted, so the share of the peak is that of useful work (model FLOPs utilisation,
Chowdhery et al. 2022, arXiv:2204.02311, App. B).
"""

import torch

from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.model.ddit import SigmaEmbedder
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.score_config import ScoreModelConfig

_GRID = 4096
"""Times at which the share of masked positions is averaged."""

PEAK_BF16_FLOPS = {
    # NVIDIA H100 datasheet, dense, which is half the figure with sparsity. SXM, PCIe and NVL.
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835.5e12,
    # NVIDIA H200 datasheet, dense. SXM and NVL.
    "NVIDIA H200": 989.4e12,
    "NVIDIA H200 NVL": 835.5e12,
    # NVIDIA A100 datasheet, the same for all form factors and memory sizes.
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    # NVIDIA L40S datasheet, dense.
    "NVIDIA L40S": 362.05e12,
    # NVIDIA Ada GPU architecture whitepaper, App. A, dense, with sums in float32.
    "NVIDIA GeForce RTX 4090": 165.2e12,
}
"""Peak of dense products of bfloat16 with sums in float32, FLOP/s, by CUDA's name of the device.

Only whole names match, because a partition of a device (MIG) has a longer name and a lower peak.
"""


def known_peak_flops(device: torch.device, dtype: torch.dtype | None) -> float | None:
    """Peak of a device in FLOP/s for products of `dtype`; None if it is not known for certain."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    return PEAK_BF16_FLOPS.get(torch.cuda.get_device_name(device))


def training_flops(
    config: ScoreModelConfig,
    *,
    batch_size: int,
    prefix_length: int,
    target_length: int,
    masked_share: float,
) -> int | float:
    """FLOPs of forward and backward of a batch: three times those of forward, since every product has two gradients.

    Args:
        config: the network.
        batch_size: sequences.
        prefix_length: tokens of the stage before; 0 if there is none.
        target_length: tokens of the stage.
        masked_share: mean share of the target's positions that are masked. Only these need the end of the last block
            and the output layer. The uniform process needs all positions and ignores it.
    """
    return 3 * forward_flops(
        config,
        batch_size=batch_size,
        prefix_length=prefix_length,
        target_length=target_length,
        num_rows=masked_share * batch_size * target_length,
    )


def forward_flops(
    config: ScoreModelConfig, *, batch_size: int, prefix_length: int, target_length: int, num_rows: int | float
) -> int | float:
    """FLOPs of the loss of a batch, forward only; `num_rows` of its target positions are masked."""
    width, last = config.hidden_size, config.num_blocks - 1
    is_joint = prefix_length > 0 and config.prefix_attention == "joint"
    has_encoded = prefix_length > 0 and not is_joint
    positions = batch_size * (target_length + (prefix_length if is_joint else 0))
    # Under the uniform process, every target position is read and the last block is computed for all positions.
    rows = num_rows if config.process == "absorbing" else positions
    read = num_rows if config.process == "absorbing" else batch_size * target_length
    total: int | float = _query_key_value(config, positions) * config.num_blocks
    total += _attention(config, positions, prefix_length + target_length) * config.num_blocks
    total += _rest_of_block(config, positions) * last + _rest_of_block(config, rows)
    total += 2 * width * config.vocab_size * read  # the output of MASK is never read
    if config.copy_head and prefix_length > 0:
        total += _copy_head(config, batch_size, prefix_length, target_length, read)
    if has_encoded:
        total += _encoding(config, batch_size, prefix_length)
    return total + _conditioning(config, batch_size if config.time_conditioning else 1, with_output=True)


def writing_flops(
    config: ScoreModelConfig, *, calls: float, rows: float, prefix_length: int, target_length: int
) -> float:
    """FLOPs of the network calls that write one text; a `one_way` prefix is encoded once for all of them.

    Args:
        config: the network.
        calls: mean number of calls.
        rows: positions whose law is computed, in all calls together.
        prefix_length: tokens of the stage before.
        target_length: tokens of the text.
    """
    if calls == 0:
        return 0.0
    has_encoded = prefix_length > 0 and config.prefix_attention != "joint"
    once = _encoding(config, 1, prefix_length) if has_encoded else 0
    sizes = {"prefix_length": prefix_length, "target_length": target_length}
    return once + calls * (forward_flops(config, batch_size=1, num_rows=rows / calls, **sizes) - once)


def layout_flops(config: LayoutConfig, *, batch_size: int) -> int:
    """FLOPs of the layout network for a batch, forward only."""
    width, positions = config.hidden_size, batch_size * config.num_gaps
    block = _query_key_value(config, positions) + _attention(config, positions, config.num_gaps)
    block += 2 * positions * (1 + 2 * 4) * width**2
    modulation = config.cond_dim * (config.num_blocks * 6 + 2) * width
    return block * config.num_blocks + 2 * width * config.num_labels * positions + 2 * batch_size * modulation


def mean_masked_share(schedule: Schedule, t_min: float) -> float:
    """Share of positions that are masked, averaged over times that are uniform on (t_min, 1]."""
    t = t_min + (1 - t_min) * (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    return float(-torch.expm1(-schedule(t).sigma).mean())


def _encoding(config: ScoreModelConfig, batch_size: int, prefix_length: int) -> int | float:
    """FLOPs of encoding prefixes with `one_way` attention; the last block computes their keys and values only."""
    encoded, last = batch_size * prefix_length, config.num_blocks - 1
    total: int | float = _query_key_value(config, encoded) * config.num_blocks
    total += (_attention(config, encoded, prefix_length) + _rest_of_block(config, encoded)) * last
    return total + _conditioning(config, 1, with_output=False)


def _query_key_value(config: ScoreModelConfig | LayoutConfig, positions: int) -> int:
    return 2 * positions * 3 * config.hidden_size**2


def _attention(config: ScoreModelConfig | LayoutConfig, queries: int, keys: int) -> int:
    """Scores of all queries with all keys, and the weighted sums of values."""
    return 2 * 2 * queries * keys * config.hidden_size


def _rest_of_block(config: ScoreModelConfig, rows: int | float) -> int | float:
    """What follows attention: its output layer and the two layers of the perceptron, whose inner width is 4 D."""
    return 2 * rows * (1 + 2 * 4) * config.hidden_size**2


def _copy_head(
    config: ScoreModelConfig, batch_size: int, prefix_length: int, target_length: int, rows: int | float
) -> int | float:
    """Keys of the prefix, queries and gates of the rows, and the scores of every position with every prefix token."""
    width = config.hidden_size
    keys, scores = batch_size * prefix_length * width**2, batch_size * target_length * prefix_length * width
    return 2 * (keys + scores + rows * (width**2 + width))


def _conditioning(config: ScoreModelConfig, vectors: int, *, with_output: bool) -> int:
    """The noise level through its network, and the shifts, scales and gates of every block and of the output layer."""
    cond_dim, width = config.cond_dim, config.hidden_size
    embedder = 2 * SigmaEmbedder.num_frequencies * cond_dim + cond_dim**2
    modulation = config.num_blocks * cond_dim * 6 * width + (cond_dim * 2 * width if with_output else 0)
    return 2 * vectors * (embedder + modulation)
