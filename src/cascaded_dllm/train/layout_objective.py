"""The loss of the layout network of a placed stage, and the bound of a layout."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.diffusion.layout import gaps_of, hidden_gaps, layout_nats
from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.model.layout import LayoutModel


def layout_loss(
    model: LayoutModel,
    prefix: Int[Tensor, "B P"],
    places: Int[Tensor, "B P"],
    *,
    index: Int[Tensor, " B"],
    draws: Draws,
    step: int,
    global_batch_size: int,
) -> Float[Tensor, ""]:
    """This part's share of the mean over the global batch of `layout_nats`, nats per sequence.

    The shares of hidden gaps are spread evenly over the global batch.

    Args:
        model: the layout network.
        prefix: ids of the text that is laid out.
        places: where its tokens stand in the target.
        index: place of each sequence in the global batch, on the device of `prefix`.
        draws: the stream of random numbers of the fill.
        step: training step.
        global_batch_size: sequences of all parts.
    """
    draws = Draws(draws.seed, f"{draws.purpose}-layout")
    last = torch.full_like(index[:1], model.config.num_gaps)
    shift = draws.uniform_pair(torch.zeros_like(index[:1]), step, last)[0]
    share = low_discrepancy_times(shift, index, global_batch_size, 0.0)
    return _nats(model, prefix, places, share, index, draws, step).sum() / global_batch_size


def layout_bound(
    model: LayoutModel,
    prefix: Int[Tensor, "B P"],
    places: Int[Tensor, "B P"],
    *,
    index: Int[Tensor, " B"],
    draws: Draws,
    num_times: int,
) -> BoundEstimate:
    """Upper bound on -log p(layout | prefix) of every sequence, nats; nothing is omitted.

    Args:
        model: the layout network.
        prefix: ids of the text that is laid out.
        places: where its tokens stand in the target.
        index: number of each sequence, which with `draws` decides what is hidden.
        draws: the stream of random numbers of the fill.
        num_times: sets of hidden gaps for each sequence; their sizes are spread evenly.
    """
    draws = Draws(draws.seed, f"{draws.purpose}-layout")
    shift = draws.uniform_pair(index, 0, torch.full_like(index, model.config.num_gaps))[0]
    values = [
        _nats(
            model,
            prefix,
            places,
            low_discrepancy_times(shift, torch.full_like(index, k), num_times, 0.0),
            index,
            draws,
            k + 1,
        ).cpu()
        for k in range(num_times)
    ]
    stacked = torch.stack(values, -1).double()
    spread = stacked.std(-1) if num_times > 1 else torch.full((len(index),), math.nan, dtype=torch.float64)
    return BoundEstimate(stacked.mean(-1), spread / math.sqrt(num_times))


def _nats(
    model: LayoutModel, prefix: Tensor, places: Tensor, share: Tensor, index: Tensor, draws: Draws, step: int
) -> Float[Tensor, " B"]:
    """`layout_nats` of every sequence for one set of hidden gaps."""
    gaps = gaps_of(places, model.config.num_tokens + model.config.num_new)
    order, _ = draws.uniform_pair(index[:, None], step, torch.arange(gaps.shape[1], device=index.device))
    is_hidden = hidden_gaps(order, share)
    return layout_nats(model(prefix, torch.where(is_hidden, model.hidden_label, gaps)), gaps, is_hidden)
