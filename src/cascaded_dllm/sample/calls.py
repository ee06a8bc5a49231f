"""Which positions are written in which network call, for predictors that can draw this before the first call.

With first hitting and with exact rates, the times at which positions leave MASK do not depend on the tokens, so they
are drawn first. A text takes part only in the calls in which one of its tokens is written, side by side with texts that
are at another time. So batches stay full, and nothing is read back from the device between calls.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import running_sums
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.model.rows import Rows


@dataclass(frozen=True, slots=True)
class Call:
    """One network call.

    Attributes:
        texts: numbers of the texts that take part, within the batch.
        rows: positions to be written, texts numbered within `texts`.
        step: for each text, the step of its random numbers.
        t: for each text, the time that the network gets.
        u: two uniform numbers for each row.
    """

    texts: Int[Tensor, " b"]
    rows: Rows
    step: Int[Tensor, " b"]
    t: Float[Tensor, " b"]
    u: tuple[Float[Tensor, " M"], Float[Tensor, " M"]]


@dataclass(frozen=True, slots=True)
class CallOrder:
    """The calls of a batch, in order.

    Attributes:
        call: number of the call that writes a position, counted from 0 in every text; -1 where nothing is written.
        step: step that the random numbers of a position belong to.
        t: time of the call that writes a position.
        u: two uniform numbers for every position, drawn at once: drawing them in every call would cost a GPU as many
            kernels as a network of ten blocks.
    """

    call: Int[Tensor, "B L"]
    step: Int[Tensor, "B L"]
    t: Float[Tensor, "B L"]
    u: tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]

    def calls(self) -> list[Call]:
        """The calls; their sizes are read from the device once for all of them."""
        batch, position = torch.nonzero(self.call >= 0, as_tuple=True)
        call = self.call[batch, position]
        call, order = torch.sort(call, stable=True)
        batch, position = batch[order], position[order]
        # Within a call, rows are sorted by text, so a text begins at each row whose text differs from the row before.
        begins = torch.ones_like(call, dtype=torch.bool)
        begins[1:] = (call[1:] != call[:-1]) | (batch[1:] != batch[:-1])
        num_rows, num_texts = torch.bincount(call), torch.bincount(call[begins])
        local = begins.cumsum(0) - 1 - (num_texts.cumsum(0) - num_texts)[call]
        texts = (batch[begins], self.step[batch, position][begins], self.t[batch, position][begins])
        u = (values[batch, position] for values in self.u)
        by_row = zip(*(values.split(num_rows.tolist()) for values in (local, position, *u)), strict=True)
        by_text = zip(*(values.split(num_texts.tolist()) for values in texts), strict=True)
        return [
            Call(of_call, Rows(number, place), step, t, (coarse, fine))
            for (number, place, coarse, fine), (of_call, step, t) in zip(by_row, by_text, strict=True)
        ]


def first_hitting_calls(
    xt: Int[Tensor, "B L"],
    start_time: Float[Tensor, " B"],
    *,
    mask_id: int,
    tokens_per_call: int,
    schedule: Schedule,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
) -> CallOrder:
    """Masked positions in a uniformly random order, at exact times (Zheng et al. 2024, arXiv:2409.02908, Alg. 1).

        move_prob(t_next) = move_prob(t) u^(1/n)   with n positions still masked

    Tokens that share a call are written at the time at which the first of them leaves MASK.

    Args:
        xt: the texts to begin with.
        start_time: the time that each text is noised to.
        mask_id: id of MASK.
        tokens_per_call: positions a call.
        schedule: the noise schedule.
        draws: the stream of random numbers.
        sample_index: number of each text.
    """
    length = xt.shape[1]
    position = torch.arange(length, device=xt.device)
    is_masked = xt == mask_id
    num_masked = is_masked.sum(-1)
    # Positions that are not masked come last in the order, and are never written.
    place = draws.uniform_pair(sample_index[:, None], 0, position)[0] + ~is_masked
    rank = place.argsort(dim=-1).argsort(dim=-1)
    # The times take their numbers from a position beyond the text, which no token uses.
    wait, _ = draws.uniform_pair(sample_index[:, None], position + 1, torch.full_like(position, length))
    left = (num_masked[:, None] - position).clamp_min(1)
    log_move_prob = torch.log(-torch.expm1(-schedule(start_time).sigma))[:, None]
    log_move_prob = log_move_prob + running_sums(torch.log(wait) / left).to(log_move_prob)
    # Where noise nearly saturates, rounding may put the first time beyond 1.
    time = schedule.time_at(-torch.log1p(-log_move_prob.exp())).clamp_max(1)
    call = rank // tokens_per_call
    u = draws.uniform_pair(sample_index[:, None], call + 1, position)
    return CallOrder(torch.where(is_masked, call, -1), call + 1, time.gather(1, call * tokens_per_call), u)


def grid_calls(
    xt: Int[Tensor, "B L"],
    times: Float[Tensor, "n B"],
    leave_probs: Float[Tensor, "m B"],
    *,
    mask_id: int,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
) -> CallOrder:
    """One call for all positions that leave MASK in the same step; steps in which none does make no call.

    Args:
        xt: the texts to begin with.
        times: time of each step, that of the final denoising last; n = m + 1.
        leave_probs: probability that a masked position leaves MASK, for each step but the last, in which all leave.
        mask_id: id of MASK.
        draws: the stream of random numbers.
        sample_index: number of each text.
    """
    is_masked = xt == mask_id
    position = torch.arange(xt.shape[1], device=xt.device)
    lasting, _ = draws.uniform_pair(sample_index[:, None], 0, position)
    # The step in which a position leaves MASK: the number of steps that one uniform number survives.
    survival = torch.cumprod(1 - leave_probs.clamp(0, 1).to(lasting), dim=0).T.flip(-1).contiguous()
    step = len(leave_probs) - torch.searchsorted(survival, lasting, right=True)
    # The call that a step becomes: the number of earlier steps of the text in which a position leaves MASK.
    # Positions that are written already count for a step beyond the last.
    happens = torch.zeros(len(xt), len(times) + 1, dtype=torch.long, device=xt.device)
    happens.scatter_(1, torch.where(is_masked, step, len(times)), 1)
    call = (happens.cumsum(-1) - 1).gather(1, step)
    u = draws.uniform_pair(sample_index[:, None], step + 1, position)
    return CallOrder(torch.where(is_masked, call, -1), step + 1, times.T.gather(1, step), u)
