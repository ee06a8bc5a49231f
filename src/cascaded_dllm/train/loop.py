"""Settings of the training loop."""

from dataclasses import dataclass

from cascaded_dllm.checks import require_at_least, require_share
from cascaded_dllm.errors import ConfigError

MOST_WINDOWS = 1_000_000
"""Windows of a batch: thousands of times a usual batch, and no more than can be listed for every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Batch size, number of steps and other settings of the training loop.

    Attributes:
        batch_size: sequences in a global batch, whatever the accumulation and the number of processes.
        accum: number of parts in which a process computes its share of a batch; must divide `batch_size`.
        num_steps: optimizer steps of the whole run.
        ema_decay: final decay of the moving average.
        seed: decides the order of windows, times, noise and dropout.
    """

    batch_size: int
    accum: int
    num_steps: int
    ema_decay: float
    seed: int

    def __post_init__(self) -> None:
        require_at_least("training.batch_size", self.batch_size, 1, most=MOST_WINDOWS)
        for name in ("accum", "num_steps"):
            require_at_least(f"training.{name}", getattr(self, name), 1)
        if self.batch_size % self.accum:
            raise ConfigError(f"training.accum is {self.accum}; it must divide training.batch_size, {self.batch_size}")
        require_share("training.ema (ema_decay)", self.ema_decay)


def require_divisible(loop: LoopConfig, num_processes: int, num_kinds: int = 1) -> None:
    """Checks that every part of a batch has the same number of sequences of every kind, in every process.

    Args:
        loop: sizes of the batches.
        num_processes: processes that share them.
        num_kinds: kinds of sequences, see `StageMixture`.

    Raises:
        ConfigError: the batch does not divide.
    """
    if loop.batch_size % (loop.accum * num_processes):
        raise ConfigError(
            f"training.batch_size is {loop.batch_size}, which does not divide among {num_processes} processes in "
            f"{loop.accum} parts (training.accum); choose a multiple of {loop.accum * num_processes}"
        )
    if loop.batch_size % (loop.accum * num_processes * num_kinds):
        processes = "process" if num_processes == 1 else "processes"
        raise ConfigError(
            f"training.batch_size is {loop.batch_size}, which does not divide among the texts of {num_kinds} kinds "
            f"that training.fills asks for, {num_processes} {processes} and training.accum={loop.accum}; choose a "
            f"multiple of {loop.accum * num_processes * num_kinds}"
        )
