"""The bound of a stage on texts that are not windows of a corpus, for example those that it has written."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Batch, Objective


def text_bound(
    model: ScoreModel,
    objective: Objective,
    texts: Batch,
    *,
    num_times: int,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, " B"]:
    """Upper bound on -log p(text | prefix) of every text, nats, float64, on the CPU.

    Args:
        model: the network, in evaluation mode.
        objective: process, schedule and smallest time.
        texts: what is measured; with `seed` the `index` of a text decides its times and noise.
        num_times: times a text.
        batch_size: texts computed together; the result does not depend on it.
        seed: decides times and noise.
        on_progress: gets the texts done and their total.
    """
    device = model.device
    draws, total, found = Draws(seed, "text-bound-noise"), len(texts.target), []
    for start in range(0, total, batch_size):
        end = min(start + batch_size, total)
        batch = texts.part(start, end).to(device)
        found.append(objective.bound(model, batch, draws=draws, num_times=num_times).nll_nats)
        if on_progress is not None:
            on_progress(end, total)
    return torch.cat(found)
