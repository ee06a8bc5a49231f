"""What a line of metrics says of a step: its result, and how fast and how large the run is."""

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
    """What one optimizer step computes.

    Attributes:
        token_forwards: positions that go through the networks, prefixes and gaps included, and those of the networks
            that rewrite prefixes, on average.
        flops: of the matrix products that are needed, forward and backward; forward alone where prefixes are rewritten.
    """

    token_forwards: int
    flops: float


class Shape(NamedTuple):
    """Of a sequence that is trained on.

    Attributes:
        in_front: tokens of a prefix before the target; 0 where it stands among the others.
        target_length: tokens of the target.
        num_free: those of them that are noised.
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
    """What a step of a stage costs.

    Args:
        model: the network.
        layout: the layout network of a placed stage, or None.
        batch_size: sequences of a global batch.
        shapes: of the sequences, of which there are equally many in a batch.
        masked_share: mean share of masked positions among those that can be, see `mean_masked_share`.
        halves: which networks of a placed stage are trained.
        rewriting: what is spent on the prefix of a sequence, see `PrefixTraining.cost_of_sequence`.
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
    # A placed stage also computes its gaps, of which there is one more than tokens before.
    if layout is not None and halves != "fill":
        token_forwards += batch_size * layout.num_gaps
        flops += 3 * layout_flops(layout, batch_size=batch_size)
    written = round(batch_size * rewriting.token_forwards)
    return StepCost(token_forwards + written, flops + batch_size * rewriting.flops)


@final
class StepMeter:
    """Rates and loss over the steps since the last line, and what was done since the first step.

    Args:
        trainer: what makes the steps; every line empties its list of losses.
        peak_flops: of all devices together, FLOP/s; None if unknown.
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
        """Takes a step into account."""
        self._steps += 1
        self._tokens += result.tokens
        self._seconds += result.seconds

    def line(self, result: StepResult) -> dict[str, Any]:
        """The line of metrics of a step, which has been added; the next one's rates are those of the steps after it.

        Returns:
            The fields of `result`, but for the loss, which is the mean over the steps since the last line, also where
            the run was taken up in between; and: `tokens_per_second`, target tokens; `token_forwards`, positions that
            went through the network since the first step, prefixes included; `peak_memory_bytes` of the process on its
            device, None where it is not known; `mfu`, the share of the peak that the needed arithmetic takes, None
            where the peak is not known.
        """
        seconds, steps = self._seconds, self._steps
        losses = self._trainer.losses
        line = asdict(result) | {
            "loss_nats_per_token": math.fsum(losses) / len(losses),
            "tokens_per_second": self._tokens / seconds,
            "token_forwards": result.step * self._cost.token_forwards,
            "peak_memory_bytes": peak_memory_bytes(self._trainer.device),
            "mfu": None if self._peak_flops is None else steps * self._cost.flops / seconds / self._peak_flops,
        }
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        losses.clear()
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
