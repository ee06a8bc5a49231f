"""The lines of metrics about steps: loss, speed, cost and memory."""

import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, final

import torch

from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import Halves, layout_of
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.train.flops import layout_flops, mean_masked_share, training_flops
from cascaded_dllm.train.prefixes import NO_COST, WritingCost
from cascaded_dllm.train.trainer import StepResult, Trainer


@dataclass(frozen=True, slots=True)
class StepCost:
    """The cost of one optimizer step.

    Attributes:
        token_forwards: positions that go through the networks, prefixes and gaps included, plus the mean number for
            rewriting prefixes.
        flops: FLOPs of the needed matrix products, forward and backward; forward only for rewriting prefixes.
    """

    token_forwards: int
    flops: float


class Shape(NamedTuple):
    """The lengths of a sequence in training.

    Attributes:
        in_front: tokens of the prefix before the target; 0 if there is none, or if they stand in the target (placed).
        target_length: tokens of the target.
        num_free: tokens of the target that are noised.
    """

    in_front: int
    target_length: int
    num_free: int


def step_cost(
    model: ScoreModelConfig,
    layout: LayoutConfig | None,
    *,
    batch_size: int,
    shapes: Sequence[Shape],
    masked_share: float,
    halves: Halves,
    rewriting: WritingCost = NO_COST,
) -> StepCost:
    """The cost of an optimizer step of a stage.

    Args:
        model: the network.
        layout: the layout network of a placed stage, or None.
        batch_size: sequences of a global batch.
        shapes: the shape of every kind of sequence; a batch has equally many of each.
        masked_share: mean share of masked positions among those that can be masked, see `mean_masked_share`.
        halves: which networks of a placed stage are trained.
        rewriting: mean cost of rewriting the prefix of a sequence, see `PrefixTraining.cost_of_sequence`.
    """
    token_forwards, flops, num_each = 0, 0.0, batch_size // len(shapes)
    if layout is None or halves != "layout":
        for shape in shapes:
            token_forwards += num_each * (shape.in_front + shape.target_length)
            flops += training_flops(
                model,
                batch_size=num_each,
                prefix_length=shape.in_front,
                target_length=shape.target_length,
                masked_share=masked_share * shape.num_free / shape.target_length,
            )
    # The layout network of a placed stage computes its gaps, one more than the prefix has tokens.
    if layout is not None and halves != "fill":
        token_forwards += batch_size * layout.num_gaps
        flops += 3 * layout_flops(layout, batch_size=batch_size)
    written = round(batch_size * rewriting.token_forwards)
    return StepCost(token_forwards + written, flops + batch_size * rewriting.flops)


@final
class StepMeter:
    """Speed and loss over the steps since the last line of metrics, and totals since the first step.

    Args:
        trainer: the trainer that does the steps; every line empties its list of losses.
        peak_flops: peak of all devices together, FLOP/s; None if unknown.
    """

    def __init__(self, trainer: Trainer, peak_flops: float | None) -> None:
        dataset, layout, prefixes = trainer.dataset, layout_of(trainer.model), trainer.objective.prefixes
        self._trainer, self._peak_flops = trainer, peak_flops
        self._cost = step_cost(
            trainer.model.config,
            None if layout is None else layout.config,
            batch_size=trainer.loop.batch_size,
            shapes=[
                Shape(0 if part.is_placed else part.prefix_length, part.target_length, part.num_free)
                for part in dataset.parts
            ],
            masked_share=mean_masked_share(trainer.objective.schedule, trainer.objective.t_min),
            halves=trainer.objective.halves,
            rewriting=NO_COST if prefixes is None else prefixes.cost_of_sequence,
        )
        self._steps, self._tokens, self._seconds = 0, 0, 0.0

    def add(self, result: StepResult) -> None:
        """Count a step."""
        self._steps += 1
        self._tokens += result.tokens
        self._seconds += result.seconds

    def line(self, result: StepResult) -> dict[str, Any]:
        """The line of metrics of the newest step that was added; the counts of the next line begin after it.

        Returns:
            The fields of `result`, except that the loss is the mean over the steps since the last line (those before a
            resumption included), and that seconds are the mean of these steps: on a CUDA device, the step of a line has
            waited for all of them. Also `tokens_per_second`, of target tokens; `token_forwards`, positions that went
            through the networks since the first step, prefixes included; `peak_memory_bytes` of the process on its
            device, None if unknown; `mfu`, the share of the peak that the needed FLOPs take, None if the peak is
            unknown.
        """
        seconds, steps = self._seconds, self._steps
        losses = self._trainer.losses
        line = asdict(result) | {
            "loss_nats_per_token": math.fsum(losses) / len(losses),
            "seconds": seconds / steps,
            "tokens_per_second": self._tokens / seconds,
            "token_forwards": result.step * self._cost.token_forwards,
            "peak_memory_bytes": peak_memory_bytes(self._trainer.device),
            "mfu": None if self._peak_flops is None else steps * self._cost.flops / seconds / self._peak_flops,
        }
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        losses.clear()
        return line


def forget_peak_memory(device: torch.device) -> None:
    """Begins a new peak of the tensors on a CUDA device: the one before may be of another run in this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak memory: of tensors on a CUDA device since `forget_peak_memory`, of the process on a CPU; None on others."""
    match device.type:
        case "cuda":
            return torch.cuda.max_memory_allocated(device)
        case "cpu":
            # The system counts in KiB, macOS in bytes.
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        case _:
            return None
