"""The training loop as a generator of steps: logs, evaluations and snapshots are the caller's business."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import ConfigError, NonFiniteError
from cascaded_dllm.model.pretrained import load_weights
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.train.checkpoint import TrainerState
from cascaded_dllm.train.course import require_same_course
from cascaded_dllm.train.ema import Ema
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig, make_optimizer


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        step: optimizer steps done, this one included.
        loss_nats_per_token: loss of the global batch, nats per target token.
        grad_norm: norm of the gradient before clipping.
        lr: learning rate of this step.
        tokens: target tokens seen in this step.
        seconds: wall-clock duration of the step.
    """

    step: int
    loss_nats_per_token: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Batches and length of a run.

    Attributes:
        batch_size: sequences in a global batch, whatever the accumulation.
        accum: parts a global batch is computed in; must divide `batch_size`.
        num_steps: optimizer steps of the whole run.
        ema_decay: final decay of the moving average.
        seed: decides order, times, noise and dropout.
    """

    batch_size: int
    accum: int
    num_steps: int
    ema_decay: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "accum", "num_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_size % self.accum:
            raise ConfigError(f"training.accum is {self.accum}; it must divide training.batch_size, {self.batch_size}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"training.ema is {self.ema_decay}; it must be at least 0 and less than 1")


class Trainer:
    """One stage in training.

    Args:
        model: the network; its device is the device of training.
        objective: the loss.
        dataset: windows of the stage.
        optim: optimizer settings.
        loop: batches and length.
        course: all other settings that decide the course of training, by key; a run resumed must have the same.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        dataset: StageDataset,
        *,
        optim: OptimConfig,
        loop: LoopConfig,
        course: Mapping[str, Any],
    ) -> None:
        self.model, self.objective, self.dataset = model, objective, dataset
        self.optim, self.loop, self.course = optim, loop, course
        self.optimizer = make_optimizer(model, optim)
        self.ema = Ema(model, loop.ema_decay)
        self.step = 0

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.model.vocab_embed.embedding.device

    def steps(self) -> Iterator[StepResult]:
        """Train up to the last step of the run, yielding after every optimizer step.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; weights and optimizer are those before the step.
        """
        while self.step < self.loop.num_steps:
            yield self._advance()

    def _advance(self) -> StepResult:
        started = time.perf_counter()
        self.model.train()
        lr = self.optim.learning_rate(self.step, self.loop.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for batch in self._parts():
            part = self._part_loss(batch)
            part.backward()
            loss += float(part.detach())
        grad_norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.grad_clip))
        per_token = loss / self.dataset.target_length
        self._require_finite(per_token, grad_norm, lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        return StepResult(
            step=self.step,
            loss_nats_per_token=per_token,
            grad_norm=grad_norm,
            lr=lr,
            tokens=self.loop.batch_size * self.dataset.target_length,
            seconds=time.perf_counter() - started,
        )

    def state(self) -> TrainerState:
        """What a checkpoint keeps besides the weights."""
        return TrainerState(
            step=self.step,
            num_steps=self.loop.num_steps,
            ema_updates=self.ema.num_updates,
            optimizer=self.optimizer.state_dict(),
            course=dict(self.course),
        )

    def restore(
        self, state: TrainerState, *, weights: dict[str, torch.Tensor], ema: dict[str, torch.Tensor], source: str
    ) -> None:
        """Continue from a checkpoint.

        Args:
            state: of the checkpoint.
            weights: its raw weights.
            ema: its averaged weights.
            source: where it lies, for messages.

        Raises:
            CheckpointError: it was trained with other settings, or its weights do not fit.
        """
        # The settings first: another size of the network is easier to read there than in a list of shapes.
        require_same_course(state, course=self.course, optim=self.optim, num_steps=self.loop.num_steps)
        load_weights(self.model, weights, source=source)
        self.optimizer.load_state_dict(state.optimizer)
        self.ema.load_state_dict(ema, num_updates=state.ema_updates)
        self.step = state.step

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The network has the averaged weights and is in evaluation mode inside the block, its own again after it."""
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.ema.copy_to(self.model)
        self.model.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.model.parameters(), own, strict=True):
                    parameter.copy_(value)

    def rehearse(self) -> None:
        """Forward and backward of the part of a batch that takes most memory, beside the memory of the optimizer.

        That part has the largest times, at which most is masked. No weight and no moment changes; gradients are left.
        """
        self.model.train()
        is_new = not self.optimizer.state
        moments = [torch.empty_like(p) for p in self.model.parameters() for _ in range(2)] if is_new else []
        part = next(self._parts())
        everyone = torch.arange(self.loop.batch_size, device=self.device)
        t = self.objective.times(
            everyone,
            self.dataset.target_length,
            draws=Draws(self.loop.seed, "train-noise"),
            step=self.step,
            global_batch_size=self.loop.batch_size,
        )
        latest = everyone[t.argsort(descending=True)[: len(part.index)]]
        self._part_loss(replace(part, index=latest)).backward()
        del moments

    def _part_loss(self, batch: Batch) -> torch.Tensor:
        """The share of a part of the current global batch in its loss, with its graph."""
        return self.objective.loss(
            self.model,
            batch,
            draws=Draws(self.loop.seed, "train-noise"),
            step=self.step,
            global_batch_size=self.loop.batch_size,
            generators=self._dropout_generators(batch),
        )

    def _parts(self) -> Iterator[Batch]:
        """The global batch of the current step, in `accum` parts."""
        batch_size = self.loop.batch_size
        indices = global_batch_indices(len(self.dataset), batch_size, self.step, seed=self.loop.seed)
        size = batch_size // self.loop.accum
        for start in range(0, batch_size, size):
            yield make_batch(self.dataset, indices[start : start + size], start, self.device)

    def _dropout_generators(self, batch: Batch) -> list[torch.Generator] | None:
        if self.model.config.dropout == 0:
            return None
        return [
            torch.Generator(self.device).manual_seed(derive_seed(self.loop.seed, "dropout", self.step, index))
            for index in batch.index.tolist()
        ]

    def _require_finite(self, loss: float, grad_norm: float, lr: float) -> None:
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not abs(value) < float("inf"):
                raise NonFiniteError(
                    f"the {name} is {value} at step {self.step + 1} with learning rate {lr:g}, it must be finite; the "
                    "weights were not touched: start a new run with a lower optim.lr or optim.grad_clip from the "
                    "weights of a checkpoint before it broke down (pretrained.use_pretrained=true "
                    "pretrained.model_path=...)"
                )


def make_batch(dataset: StageDataset, indices: npt.NDArray[np.int64], first: int, device: torch.device) -> Batch:
    """Windows `indices` as tensors; the first of them is sequence `first` of its global batch."""
    prefix, target = dataset.batch(indices)
    index = torch.arange(first, first + len(target))
    prefix_ids = None if prefix is None else torch.from_numpy(prefix)
    return Batch(torch.from_numpy(target), prefix_ids, index, torch.from_numpy(indices)).to(device)
