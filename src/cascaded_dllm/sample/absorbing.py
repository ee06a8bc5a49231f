"""Reverse steps of the absorbing process, as generators of states: masked positions turn into tokens.

A step splits exactly into two draws: whether a position leaves MASK, and for which token. So no tensor has the size of
the vocabulary except the logits of the rows that need them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.numerics import log_expm1
from cascaded_dllm.sample.calls import CallOrder, first_hitting_calls, grid_calls
from cascaded_dllm.sample.predictors import (
    AncestralPredictor,
    FirstHittingPredictor,
    Predictor,
    RemaskPredictor,
    ScorePredictor,
    SurestPredictor,
)
from cascaded_dllm.sample.recording import Recorder, can_be_recorded
from cascaded_dllm.sample.state import SamplerState, Start
from cascaded_dllm.sample.writing import Pair, TokenWriter, Writing, masked_rows, sigma_of_masks

_EQUALLY_SURE = 1e-4
"""Nats by which log probabilities may differ through rounding."""


@dataclass(frozen=True, slots=True)
class AbsorbingSampling:
    """A batch of texts to be written.

    Attributes:
        process: forward process of the stage.
        schedule: its noise schedule.
        writer: asks the network and writes tokens.
        draws: the stream of random numbers.
        sample_index: number of each text.
        start: the texts to begin with, and their times.
        t_end: time at which a time grid ends.
        num_noised: positions that training noises, all of them masked at time 1. In a placed stage, the tokens of the
            stage before do not count.
    """

    process: AbsorbingProcess
    schedule: Schedule
    writer: TokenWriter
    draws: Draws
    sample_index: Int[Tensor, " B"]
    start: Start
    t_end: float
    num_noised: int

    def states(self, predictor: Predictor, num_steps: int) -> Iterator[SamplerState]:
        """The states that a predictor goes through."""
        match predictor:
            case FirstHittingPredictor():
                return self._in_order(self._first_hitting(predictor))
            case SurestPredictor():
                return self._surest(predictor)
            case RemaskPredictor():
                return self._remask(predictor, time_grid(self.start, num_steps, self.t_end))
        times = time_grid(self.start, num_steps, self.t_end)
        is_normalized = self.writer.model.config.parameterization == "normalized"
        if isinstance(predictor, AncestralPredictor) or is_normalized:
            return self._in_order(self._on_grid(predictor, times))
        return self._scored(predictor, times)

    def _first_hitting(self, predictor: FirstHittingPredictor) -> CallOrder:
        return first_hitting_calls(
            self.start.xt,
            self.start.t,
            mask_id=self.process.mask_id,
            tokens_per_call=self._tokens_per_call(predictor),
            schedule=self.schedule,
            draws=self.draws,
            sample_index=self.sample_index,
        )

    def _tokens_per_call(self, predictor: FirstHittingPredictor | SurestPredictor) -> int:
        """Tokens of a call: no more than a text has, since any larger number would have to fit into int64."""
        return min(predictor.tokens_per_call, self.start.xt.shape[1])

    def _on_grid(self, predictor: AncestralPredictor | ScorePredictor, times: Float[Tensor, "n B"]) -> CallOrder:
        """Steps whose rates are known without the network: normalised scores sum to 1 / expm1(sigma)."""
        t, s = times[:-1], times[1:]
        return grid_calls(
            self.start.xt,
            times,
            leave_probs(predictor, self.schedule, t, s),
            mask_id=self.process.mask_id,
            draws=self.draws,
            sample_index=self.sample_index,
        )

    def _in_order(self, order: CallOrder) -> Iterator[SamplerState]:
        """The states of calls whose order is known before the first one."""
        xt, nfe, calls = self.start.xt.clone(), 0.0, order.calls()
        write = Recorder(self.writer, xt).write if can_be_recorded(self.writer, xt) else partial(self.writer.write, xt)
        yield SamplerState(xt.clone(), 0, len(calls), nfe)
        for number, call in enumerate(calls, start=1):
            write(Writing(call.texts, call.rows, self.schedule(call.t).sigma, call.step, call.u))
            nfe += self.writer.nfe(call.texts)
            yield SamplerState(xt.clone(), number, len(calls), nfe)

    def _scored(self, predictor: ScorePredictor, times: Float[Tensor, "n B"]) -> Iterator[SamplerState]:
        """Steps with learned rates: P(leave MASK) = factor * sum of scores, then the token from softmax(logits)."""
        xt, nfe, last = self.start.xt.clone(), 0.0, len(times) - 1
        yield SamplerState(xt.clone(), 0, last + 1, nfe)
        for step, t in enumerate(times):
            rows = masked_rows(xt, self.process.mask_id)
            texts, local = _active(rows)
            u = self.draws.uniform_pair(self.sample_index[rows.batch], step, rows.position)
            if len(texts):
                nfe += self.writer.nfe(texts)
                sigma, numbers = self.schedule(t).sigma, torch.full_like(texts, step)
                answer = self.writer.ask(xt, texts, local, sigma[texts])
                if step == last:
                    self.writer.fill(xt, answer, slice(None), u, numbers)
                else:
                    log_factor = predictor.log_unmask_factor(self.schedule, t, times[step + 1])
                    log_factor = (log_factor - self.writer.model.log_scale(sigma))[rows.batch]
                    leaves, fresh = _split(u, torch.exp(log_factor + self.writer.log_total(answer)))
                    self.writer.fill(xt, answer, leaves, fresh, numbers)
            yield SamplerState(xt.clone(), step + 1, last + 1, nfe)

    def _surest(self, predictor: SurestPredictor) -> Iterator[SamplerState]:
        """A fixed number of tokens a call, where the network is surest.

        The network gets the noise at which the process is expected to have as many masked positions.
        """
        xt, nfe = self.start.xt.clone(), 0.0
        most = int((xt == self.process.mask_id).sum(-1).max())
        tokens_per_call = self._tokens_per_call(predictor)
        num_steps = -(-most // tokens_per_call)
        position = torch.arange(xt.shape[1], device=xt.device)
        yield SamplerState(xt.clone(), 0, num_steps, nfe)
        for step in range(num_steps):
            rows = masked_rows(xt, self.process.mask_id)
            texts, local = _active(rows)
            sigma = sigma_of_masks(xt[texts], self.process.mask_id, self.schedule, num_noised=self.num_noised)
            answer = self.writer.ask(xt, texts, local, sigma)
            u = self.draws.uniform_pair(self.sample_index[rows.batch], step + 1, rows.position)
            sureness = torch.full(xt.shape, -torch.inf, device=xt.device)
            sureness[rows.batch, rows.position] = self.writer.sureness(answer, predictor).to(sureness)
            chance, _ = self.draws.uniform_pair(self.sample_index[:, None], 0, position)
            is_masked = xt == self.process.mask_id
            kept = _chosen(sureness, is_masked, chance, tokens_per_call)[rows.batch, rows.position]
            self.writer.fill(xt, answer, kept, (u[0][kept], u[1][kept]), torch.full_like(texts, step + 1))
            nfe += self.writer.nfe(texts)
            yield SamplerState(xt.clone(), step + 1, num_steps, nfe)

    def _remask(self, predictor: RemaskPredictor, times: Float[Tensor, "n B"]) -> Iterator[SamplerState]:
        """Ancestral steps that also mask tokens again that were written since the start; the last step masks none."""
        xt, nfe, last = self.start.xt.clone(), 0.0, len(times) - 1
        position = torch.arange(xt.shape[1], device=xt.device)
        is_free = xt == self.process.mask_id
        yield SamplerState(xt.clone(), 0, last + 1, nfe)
        for step, t in enumerate(times):
            is_masked = xt == self.process.mask_id
            leaves, is_lost = is_masked, torch.zeros_like(is_masked)
            if step < last:
                leave, again = (prob[:, None] for prob in predictor.probs(self.schedule, t, times[step + 1]))
                u, _ = self.draws.uniform_pair(self.sample_index[:, None], step, position)
                leaves, is_lost = is_masked & (u < leave), is_free & ~is_masked & (u < again)
            rows = Rows(*torch.nonzero(leaves, as_tuple=True))
            texts, local = _active(rows)
            if len(texts):
                fresh = self.draws.uniform_pair(self.sample_index[rows.batch], step + len(times), rows.position)
                sigma, numbers = self.schedule(t[texts]).sigma, torch.full_like(texts, step)
                self.writer.write(xt, Writing(texts, local, sigma, numbers, fresh))
                nfe += self.writer.nfe(texts)
            # Only now: tokens are drawn given the text before this step, which still has the tokens that are lost.
            xt[is_lost] = self.process.mask_id
            yield SamplerState(xt.clone(), step + 1, last + 1, nfe)


def leave_probs(
    predictor: AncestralPredictor | ScorePredictor, schedule: Schedule, t: Float[Tensor, "n B"], s: Float[Tensor, "n B"]
) -> Float[Tensor, "n B"]:
    """Probability that a masked position leaves MASK between t and s, where scores sum to 1 / expm1(sigma)."""
    if isinstance(predictor, AncestralPredictor):
        return predictor.leave_prob(schedule, t, s)
    return torch.exp(predictor.log_unmask_factor(schedule, t, s) - log_expm1(schedule(t).sigma))


def time_grid(start: Start, num_steps: int, t_end: float) -> Float[Tensor, "n B"]:
    """Times of `num_steps` equal steps from the start time of every text to `t_end`, both ends included."""
    times = torch.linspace(1, t_end, num_steps + 1, device=start.t.device)[:, None]
    # The grid from 1 to t_end, shrunk to the time that each text has left.
    return t_end + (times - t_end) * (start.t.clamp_min(t_end) - t_end) / (1 - t_end)


def _split(u: Pair, prob: Float[Tensor, " M"]) -> tuple[Bool[Tensor, " M"], Pair]:
    """Which rows have an event of probability `prob`, and for those two numbers that are uniform given the event.

    The first number of `u` decides. Below the threshold it is uniform up to the threshold, so it is divided by it.
    """
    prob = prob.to(u[0].dtype).clamp_max(1)
    happens = u[0] < prob
    return happens, (u[0][happens] / prob[happens], u[1][happens])


def _active(rows: Rows) -> tuple[Int[Tensor, " b"], Rows]:
    """The sequences that `rows` touch, and the rows numbered within them."""
    texts, local = torch.unique(rows.batch, return_inverse=True)
    return texts, Rows(local, rows.position)


def _chosen(
    sureness: Float[Tensor, "B L"], is_masked: Bool[Tensor, "B L"], chance: Float[Tensor, "B L"], count: int
) -> Bool[Tensor, "B L"]:
    """The `count` masked positions of every text with the largest sureness, which is -inf where nothing is masked.

    While nothing is written, a network that only sees relative positions is equally sure of all of them. They then
    differ by rounding, which depends on the batch, so `chance` decides.
    """
    smallest = sureness.masked_fill(~is_masked, torch.inf).amin(-1, keepdim=True)
    is_flat = sureness.amax(-1, keepdim=True) - smallest < _EQUALLY_SURE
    decisive = torch.where(is_flat & is_masked, chance.to(sureness), sureness)
    rank = decisive.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return is_masked & (rank < count)
