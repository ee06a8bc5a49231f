"""What a line of metrics says of a step: its result, and how fast and how large the run is."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import Halves, layout_of
from cascaded_dllm.model.score_model import ScoreModelConfig
from cascaded_dllm.train.flops import layout_flops, mean_masked_share, training_flops
from cascaded_dllm.train.trainer import StepResult, Trainer


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one optimizer step computes.

    Attributes:
        token_forwards: positions that go through the networks, prefixes and gaps included.
        flops: of the matrix products that are needed, forward and backward.
    """

    token_forwards: int
    flops: float


def step_cost(
    model: ScoreModelConfig,
    layout: LayoutConfig | None,
    *,
    batch_size: int,
    prefix_length: int,
    target_length: int,
    masked_share: float,
    halves: Halves,
) -> StepCost:
    """What a step of a stage costs.

    Args:
        model: the network.
        layout: the layout network of a placed stage, or None.
        batch_size: sequences of a global batch.
        prefix_length: tokens of the stage before, which in a placed stage stand among the others.
        target_length: tokens of the stage.
        masked_share: mean share of masked positions among those that can be, see `mean_masked_share`.
        halves: which networks of a placed stage are trained.
    """
    in_front = prefix_length if layout is None else 0
    num_free = target_length if layout is None else layout.num_new
    positions, flops = 0, 0.0
    if layout is None or halves != "layout":
        positions += in_front + target_length
        flops += training_flops(
            model,
            batch_size=batch_size,
            prefix_length=in_front,
            target_length=target_length,
            masked_share=masked_share * num_free / target_length,
        )
    # A placed stage also computes its gaps, of which there is one more than tokens before.
    if layout is not None and halves != "fill":
        positions += layout.num_gaps
        flops += 3 * layout_flops(layout, batch_size=batch_size)
    return StepCost(batch_size * positions, flops)


@final
class StepMeter:
    """Rates over the steps since the last line, and what was done since the first step.

    Args:
        trainer: what makes the steps.
        peak_flops: of all devices together, FLOP/s; None if unknown.
    """

    def __init__(self, trainer: Trainer, peak_flops: float | None) -> None:
        dataset, layout = trainer.dataset, layout_of(trainer.model)
        self._device, self._peak_flops = trainer.device, peak_flops
        self._cost = step_cost(
            trainer.model.config,
            None if layout is None else layout.config,
            batch_size=trainer.loop.batch_size,
            prefix_length=dataset.prefix_length,
            target_length=dataset.target_length,
            masked_share=mean_masked_share(trainer.objective.schedule, trainer.objective.t_min),
            halves=trainer.objective.halves,
        )
        self._steps, self._tokens, self._seconds = 0, 0, 0.0

    def add(self, result: StepResult) -> None:
        """Takes a step into account."""
        self._steps += 1
        self._tokens += result.tokens
        self._seconds += result.seconds

    def line(self, result: StepResult) -> dict[str, Any]:
        """The line of metrics of a step, which has been added; the next one's rates are those of the steps after it.

        Returns:
            The fields of `result` and: `tokens_per_second`, target tokens; `token_forwards`, positions that went
            through the network since the first step, prefixes included; `peak_memory_bytes` of the process on its
            device, None where it is not known; `mfu`, the share of the peak that the needed arithmetic takes, None
            where the peak is not known.
        """
        seconds, steps = self._seconds, self._steps
        line = asdict(result) | {
            "tokens_per_second": self._tokens / seconds,
            "token_forwards": result.step * self._cost.token_forwards,
            "peak_memory_bytes": peak_memory_bytes(self._device),
            "mfu": None if self._peak_flops is None else steps * self._cost.flops / seconds / self._peak_flops,
        }
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        return line


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that this process has held: tensors on a CUDA device, everything for a CPU, unknown for others."""
    match device.type:
        case "cuda":
            return torch.cuda.max_memory_allocated(device)
        case "cpu":
            # The system counts in KiB, macOS in bytes.
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        case _:
            return None
