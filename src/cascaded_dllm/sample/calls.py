"""Which positions are written at which network call, where that can be drawn before the network is asked.

With first hitting and with exact rates the times at which positions leave MASK do not depend on the tokens. So they are
drawn first, and a text takes part in as many calls as it has events, side by side with texts that are at another time:
batches stay full, and nothing has to be read back from the device in between.
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
        texts: the texts that it is made for.
        rows: positions to be written, texts numbered within `texts`.
        step: of each text, under which its random numbers are drawn.
        t: of each text, the time that the network is asked at.
        u: two uniform numbers of each row.
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
        call: number of the call that writes a position, from 0 for every text; -1 for what is not written.
        step: number that the random numbers of a position belong to.
        t: time of the call that writes a position.
        u: two uniform numbers of every position, drawn in one go: in every call anew, they would cost a GPU as many
            kernels as a network of ten blocks.
    """

    call: Int[Tensor, "B L"]
    step: Int[Tensor, "B L"]
    t: Float[Tensor, "B L"]
    u: tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]

    def calls(self) -> list[Call]:
        """The calls; what their sizes are is read from the device once for all of them."""
        batch, position = torch.nonzero(self.call >= 0, as_tuple=True)
        call = self.call[batch, position]
        call, order = torch.sort(call, stable=True)
        batch, position = batch[order], position[order]
        # Within a call rows are sorted by text: each text begins where it differs from the row before.
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
    first: Float[Tensor, " B"],
    *,
    mask_id: int,
    tokens_per_call: int,
    schedule: Schedule,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
) -> CallOrder:
    """Masked positions in a uniformly random order, at exact times (Zheng et al. 2024, arXiv:2409.02908, Alg. 1).

        move_prob(t_next) = move_prob(t) u^(1/n)   with n positions still masked

    Several tokens of one call are written at the time at which the first of them leaves.

    Args:
        xt: where each text begins.
        first: the time that it is noised to.
        mask_id: of MASK.
        tokens_per_call: positions a call.
        schedule: of the noise.
        draws: the stream of random numbers.
        sample_index: number of each text.
    """
    length = xt.shape[1]
    position = torch.arange(length, device=xt.device)
    is_masked = xt == mask_id
    num_masked = is_masked.sum(-1)
    # What is not masked comes last in the order, and its turn never comes.
    place = draws.uniform_pair(sample_index[:, None], 0, position)[0] + ~is_masked
    rank = place.argsort(dim=-1).argsort(dim=-1)
    # Counters beyond the positions of the text belong to the times.
    wait, _ = draws.uniform_pair(sample_index[:, None], position + 1, torch.full_like(position, length))
    left = (num_masked[:, None] - position).clamp_min(1)
    log_move_prob = torch.log(-torch.expm1(-schedule(first).sigma))[:, None]
    log_move_prob = log_move_prob + running_sums(torch.log(wait) / left).to(log_move_prob)
    # Where noise all but saturates, rounding may put the first time beyond the end.
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
    """Positions that leave MASK in a step are written together; steps in which none does make no call.

    Args:
        xt: where each text begins.
        times: of the steps, the time of the final denoising last; n = m + 1.
        leave_probs: of a masked position in each step but the last, in which all leave.
        mask_id: of MASK.
        draws: the stream of random numbers.
        sample_index: number of each text.
    """
    is_masked = xt == mask_id
    position = torch.arange(xt.shape[1], device=xt.device)
    lasting, _ = draws.uniform_pair(sample_index[:, None], 0, position)
    # The step at which a position leaves: the number of steps that one uniform number survives.
    survival = torch.cumprod(1 - leave_probs.clamp(0, 1).to(lasting), dim=0).T.flip(-1).contiguous()
    step = len(leave_probs) - torch.searchsorted(survival, lasting, right=True)
    # The call that a step becomes: the number of earlier steps of the text in which something leaves.
    # What is written already goes to a step beyond the last.
    happens = torch.zeros(len(xt), len(times) + 1, dtype=torch.long, device=xt.device)
    happens.scatter_(1, torch.where(is_masked, step, len(times)), 1)
    call = (happens.cumsum(-1) - 1).gather(1, step)
    u = draws.uniform_pair(sample_index[:, None], step + 1, position)
    return CallOrder(torch.where(is_masked, call, -1), step + 1, times.T.gather(1, step), u)
