"""Runs of the smallest useful size: one block of width 16, three stages of 4, 8 and 40 tokens."""

from pathlib import Path

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.config import TrainConfig

LENGTHS = (4, 8, 40)
OVERRIDES = (
    "device=cpu",
    "stage_lengths=[4,8,40]",
    "data.packing=document",
    "model=tiny",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.num_blocks=1",
    "model.cond_dim=8",
    "training.batch_size=4",
    "training.num_steps=2",
    "training.log_every=1",
    "training.eval_every=2",
    "training.eval_windows=4",
    "training.eval_times=2",
    "training.snapshot_every=2",
    "optim.lr=1e-2",
    "optim.warmup=0",
    "sampling.num_steps=2",
    "sampling.num_samples=1",
)


def config(data: Path, run_dir: Path, *overrides: str) -> TrainConfig:
    """The configuration of a tiny run; later overrides win."""
    return compose_config([f"data.path='{data}'", f"run_dir='{run_dir}'", *OVERRIDES, *overrides])
