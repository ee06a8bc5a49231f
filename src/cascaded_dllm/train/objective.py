"""The loss of a stage: noise the target, run the network on prefix and target, take the score entropy."""

from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.bound import BoundEstimate, nll_bound
from cascaded_dllm.diffusion.fused_loss import PLAIN_EXECUTION, LossExecution, Mixture, fused_absorbing_score_entropy
from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.diffusion.score_entropy import uniform_score_entropy
from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.model.placed import Halves, layout_of
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.layout_objective import layout_bound, layout_loss
from cascaded_dllm.train.prefixes import PrefixTraining


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a global batch.

    Attributes:
        target: clean ids of this stage, (B, L).
        prefix: clean ids of the stage before, (B, P); None for stage 1 and flat models.
        index: place of each sequence in the global batch, (B,); its noise is derived from it.
        window: number of each window in the dataset, (B,), always on the CPU, since it is used to read from the disk;
            None if it is not needed.
        places: where the tokens of the prefix stand in the target, (B, P), for a placed stage; None for any other.
    """

    target: Int[Tensor, "B L"]
    prefix: Int[Tensor, "B P"] | None
    index: Int[Tensor, " B"]
    window: Int[Tensor, " B"] | None = None
    places: Int[Tensor, "B P"] | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(
            on_device(self.target, device),
            None if self.prefix is None else on_device(self.prefix, device),
            on_device(self.index, device),
            self.window,
            None if self.places is None else on_device(self.places, device),
        )

    def part(self, start: int, end: int) -> "Batch":
        """The sequences from `start` up to `end`."""
        rows = slice(start, end)
        prefix, window, places = (None if ids is None else ids[rows] for ids in (self.prefix, self.window, self.places))
        return Batch(self.target[rows], prefix, self.index[rows], window, places)

    def kept(self, xt: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """`xt` with the clean tokens of a placed prefix in their places; `xt` itself for any other stage."""
        if self.places is None:
            return xt
        return xt.scatter(1, self.places, self.target.gather(1, self.places))


class _Place(TypedDict):
    """Arguments that every loss of a step needs: the random numbers, the step, and the sequences of all parts."""

    draws: Draws
    step: int
    global_batch_size: int


@dataclass(frozen=True, slots=True)
class Objective:
    """Score entropy of a stage under one process and one schedule.

    Attributes:
        process: forward process.
        schedule: noise schedule.
        t_min: smallest training time; times are uniform on (t_min, 1].
        prefixes: what is done to prefixes in training; None for nothing. Bounds always use true prefixes.
        halves: which networks of a placed stage the loss trains; bounds are always of both.
    """

    process: Process
    schedule: Schedule
    t_min: float = 1e-3
    prefixes: PrefixTraining | None = None
    halves: Halves = "both"

    def loss(
        self,
        model: ScoreModel,
        batch: Batch,
        *,
        draws: Draws,
        step: int,
        global_batch_size: int,
        execution: LossExecution = PLAIN_EXECUTION,
    ) -> Float[Tensor, ""]:
        """This part's share of the mean over the global batch of dsigma * score entropy, nats per sequence.

        The shares of all parts add up to the loss, so accumulation and data parallelism change nothing. Times are
        spread evenly over the global batch. Leave `batch` in the memory of the host: it is noised where it is, and the
        host must know how many positions are masked, for which it would otherwise wait for the device.

        The loss of a placed stage is the sum of the losses of the networks in `halves`.
        """
        place: _Place = {"draws": draws, "step": step, "global_batch_size": global_batch_size}
        if batch.places is None:
            changed = self._with_changed_prefix(batch, step, draws.seed)
            return self._text_loss(model, changed, execution=execution, **place)
        halves = []
        if self.halves != "layout":
            alone = replace(batch, prefix=None)
            halves.append(self._text_loss(model, alone, execution=execution, **place))
        if self.halves != "fill":
            there = batch.to(model.device)
            assert there.prefix is not None
            assert there.places is not None
            halves.append(layout_loss(_layout(model), there.prefix, there.places, index=there.index, **place))
        return torch.stack(halves).sum()

    def _text_loss(
        self,
        model: ScoreModel,
        batch: Batch,
        *,
        draws: Draws,
        step: int,
        global_batch_size: int,
        execution: LossExecution,
    ) -> Float[Tensor, ""]:
        """This part's share of the loss of the target tokens; those at `places` are known and cost nothing."""
        length = batch.target.shape[1]
        t = self.times(batch.index, length, draws=draws, step=step, global_batch_size=global_batch_size)
        sigma, dsigma = self.schedule(t)
        position = torch.arange(length, device=t.device)
        xt = self.process.sample_xt(batch.target, sigma, draws.uniform_pair(batch.index[:, None], step, position[None]))
        weight = dsigma / global_batch_size
        words = None if model.config.dropout == 0 else Draws(draws.seed, "dropout").words(batch.index, step)
        total, _ = self._weighted_sum(
            model, batch, batch.kept(xt), sigma, weight, dropout_words=words, execution=execution
        )
        return total

    def times(
        self, index: Int[Tensor, " B"], length: int, *, draws: Draws, step: int, global_batch_size: int
    ) -> Float[Tensor, " B"]:
        """The times at which `step` trains the sequences `index` of its global batch, which have `length` tokens."""
        shift = draws.uniform_pair(torch.zeros_like(index[:1]), step, torch.full_like(index[:1], length))[0]
        return low_discrepancy_times(shift, index, global_batch_size, self.t_min)

    def _with_changed_prefix(self, batch: Batch, step: int, seed: int) -> Batch:
        """The batch with the prefixes that `step` trains on."""
        if self.prefixes is None or batch.prefix is None:
            return batch
        prefix = self.prefixes.changed(batch.prefix, window=batch.window, index=batch.index, step=step, seed=seed)
        return replace(batch, prefix=prefix)

    def bound(self, model: ScoreModel, batch: Batch, *, draws: Draws, num_times: int) -> BoundEstimate:
        """Upper bound on -log p(target | prefix) of every sequence, in nats; the noise depends on `batch.index`.

        For a placed stage it is the sum of the bounds of layout and fill.
        """
        with torch.inference_mode():
            fill = self._stage_bound(model, batch, draws=draws, num_times=num_times)
            if batch.places is None or batch.prefix is None:
                return fill
            layout = layout_bound(
                _layout(model), batch.prefix, batch.places, index=batch.index, draws=draws, num_times=num_times
            )
            error = torch.hypot(fill.standard_error, layout.standard_error)
            return BoundEstimate(fill.nll_nats + layout.nll_nats, error, layout.nll_nats)

    def _stage_bound(self, model: ScoreModel, batch: Batch, *, draws: Draws, num_times: int) -> BoundEstimate:
        """The bound on -log p of the target given the prefix and, in a placed stage, its places."""
        prefix = None
        if batch.prefix is not None and batch.places is None:
            prefix = model.encode_prefix(batch.prefix, batch.target.shape[1])

        def weighted_entropy(x0: Tensor, xt: Tensor, sigma: Tensor, dsigma: Tensor) -> Tensor:
            alone = Batch(x0, None, batch.index)
            _, rows = self._weighted_sum(model, alone, batch.kept(xt), sigma, dsigma, encoded_prefix=prefix)
            return rows

        return nll_bound(
            weighted_entropy,
            batch.target,
            process=self.process,
            schedule=self.schedule,
            draws=draws,
            sample_index=batch.index,
            num_times=num_times,
            t_min=self.t_min,
        )

    def _weighted_sum(
        self,
        model: ScoreModel,
        batch: Batch,
        xt: Tensor,
        sigma: Tensor,
        weight: Tensor,
        *,
        encoded_prefix: object = None,
        dropout_words: Tensor | None = None,
        execution: LossExecution = PLAIN_EXECUTION,
    ) -> tuple[Tensor, Tensor]:
        """Sum of weight * score entropy over the batch, and the same of every sequence without gradient."""
        device = model.device
        dropout_words = None if dropout_words is None else on_device(dropout_words, device)
        rows = None
        if isinstance(self.process, AbsorbingProcess):
            rows = Rows(*(on_device(i, device) for i in torch.nonzero(xt == self.process.mask_id, as_tuple=True)))
        batch, xt, sigma, weight = batch.to(device), *(on_device(tensor, device) for tensor in (xt, sigma, weight))
        prefix = batch.prefix if encoded_prefix is None else encoded_prefix
        x0 = batch.target
        if rows is None:
            # The uniform process has a loss at every position, so no row can be left out.
            hidden = model.hidden(xt, sigma, prefix, dropout_words=dropout_words)  # type: ignore[arg-type]
            log_score = model.log_score(model.logits(hidden), sigma).scatter(-1, xt[..., None], 0.0)
            by_sequence = weight * uniform_score_entropy(log_score, xt, x0, sigma).sum(-1)
            return by_sequence.sum(), by_sequence.detach()
        states = model.states(xt, sigma, prefix, rows=rows, dropout_words=dropout_words)  # type: ignore[arg-type]
        head, copies, x0 = model.output_layer.linear, states.copies, x0[rows.batch, rows.position]
        total, entropies = fused_absorbing_score_entropy(
            states.hidden,
            head.weight,
            head.bias,
            x0,
            sigma[rows.batch],
            weight[rows.batch],
            parameterization=model.config.parameterization,
            log_scale=model.log_scale(sigma)[rows.batch],
            mixture=None if copies is None else Mixture(copies.log_keep, copies.log_prob_copied(x0)),
            execution=execution,
        )
        by_sequence = torch.zeros_like(weight).index_add(0, rows.batch, entropies * weight[rows.batch])
        return total, by_sequence


def _layout(model: ScoreModel) -> LayoutModel:
    """The layout network of a placed stage."""
    layout = layout_of(model)
    assert layout is not None, "a batch with places belongs to a placed stage"
    return layout


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`, copied without waiting for what the device is still computing."""
    if tensor.is_cpu and device.type == "cuda":
        # A copy from pageable memory would wait.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
