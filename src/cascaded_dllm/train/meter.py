"""What a line of metrics says of a step: its result, and how fast and how large the run is."""

import resource
import sys
from dataclasses import asdict
from typing import Any, final

import torch

from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.train.flops import layout_flops, mean_masked_share, training_flops
from cascaded_dllm.train.trainer import StepResult, Trainer


@final
class StepMeter:
    """Rates over the steps since the last line, and what was done since the first step.

    Args:
        trainer: what makes the steps.
        peak_flops: of all devices together, FLOP/s; None if unknown.
    """

    def __init__(self, trainer: Trainer, peak_flops: float | None) -> None:
        dataset, batch_size = trainer.dataset, trainer.loop.batch_size
        self._device, self._peak_flops = trainer.device, peak_flops
        masked_share = mean_masked_share(trainer.objective.schedule, trainer.objective.t_min)
        layout = layout_of(trainer.model)
        prefix_length = dataset.prefix_length if layout is None else 0
        positions, self._flops = 0, 0.0
        if layout is None or trainer.objective.halves != "layout":
            positions += prefix_length + dataset.target_length
            self._flops += training_flops(
                trainer.model.config,
                batch_size=batch_size,
                prefix_length=prefix_length,
                target_length=dataset.target_length,
                masked_share=masked_share * dataset.num_free / dataset.target_length,
            )
        # A placed stage also computes its gaps, of which there is one more than tokens before.
        if layout is not None and trainer.objective.halves != "fill":
            positions += layout.config.num_gaps
            self._flops += 3 * layout_flops(layout.config, batch_size=batch_size)
        self._token_forwards = batch_size * positions
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
            "token_forwards": result.step * self._token_forwards,
            "peak_memory_bytes": peak_memory_bytes(self._device),
            "mfu": None if self._peak_flops is None else steps * self._flops / seconds / self._peak_flops,
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
