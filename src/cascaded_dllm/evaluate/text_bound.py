"""The bound of a stage on texts that are no windows of a corpus: those that it has written, for example."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Batch, Objective


@dataclass(frozen=True, slots=True)
class StageTexts:
    """Texts of one stage, with what the stage was given for them.

    Attributes:
        target: ids of the texts.
        prefix: ids of the stage before; None for the first stage.
        places: where the tokens of the prefix stand in the texts, for a placed stage; None for any other.
    """

    target: Int[Tensor, "B L"]
    prefix: Int[Tensor, "B P"] | None = None
    places: Int[Tensor, "B P"] | None = None

    def part(self, start: int, end: int) -> "StageTexts":
        """The texts from `start` up to `end`."""
        prefix, places = (None if ids is None else ids[start:end] for ids in (self.prefix, self.places))
        return StageTexts(self.target[start:end], prefix, places)


def text_bound(
    model: ScoreModel,
    objective: Objective,
    texts: StageTexts,
    *,
    first_index: int,
    num_times: int,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, " B"]:
    """Upper bound on -log p(text | prefix) of every text, nats, float64, on the CPU.

    Args:
        model: the network, in evaluation mode.
        objective: process, schedule and smallest time.
        texts: what is measured.
        first_index: number of the first text; with `seed` the number of a text decides its times and noise.
        num_times: times a text.
        batch_size: texts computed together; the result does not depend on it.
        seed: decides times and noise.
        on_progress: told the texts done, and all of them.
    """
    device = model.device
    draws, total, found = Draws(seed, "text-bound-noise"), len(texts.target), []
    for start in range(0, total, batch_size):
        end = min(start + batch_size, total)
        part = texts.part(start, end)
        batch = Batch(part.target, part.prefix, torch.arange(first_index + start, first_index + end), None, part.places)
        found.append(objective.bound(model, batch.to(device), draws=draws, num_times=num_times).nll_nats)
        if on_progress is not None:
            on_progress(end, total)
    return torch.cat(found)
