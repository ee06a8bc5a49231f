"""The training loop as a generator of steps: logs, evaluations and snapshots are the caller's business."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import CheckpointError, ConfigError, NonFiniteError
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.train.checkpoint import TrainerState
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


class Trainer:
    """One stage in training.

    Args:
        model: the network; its device is the device of training.
        objective: the loss.
        dataset: windows of the stage.
        optim: optimizer settings.
        batch_size: sequences in a global batch, whatever the accumulation.
        accum: parts a global batch is computed in; must divide `batch_size`.
        num_steps: optimizer steps of the whole run.
        ema_decay: final decay of the moving average.
        seed: decides order, times, noise and dropout.
        fingerprint: of the settings that decide the course of training.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        dataset: StageDataset,
        *,
        optim: OptimConfig,
        batch_size: int,
        accum: int,
        num_steps: int,
        ema_decay: float,
        seed: int,
        fingerprint: str,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("accum", accum), ("num_steps", num_steps)):
            if value < 1:
                raise ConfigError(f"training.{name} is {value}; it must be at least 1")
        if batch_size % accum:
            raise ConfigError(f"training.accum is {accum}; it must divide training.batch_size, {batch_size}")
        if not 0 <= ema_decay < 1:
            raise ConfigError(f"training.ema is {ema_decay}; it must be at least 0 and less than 1")
        self.model, self.objective, self.dataset = model, objective, dataset
        self.optim, self.batch_size, self.accum, self.num_steps = optim, batch_size, accum, num_steps
        self.seed, self.fingerprint = seed, fingerprint
        self.optimizer = make_optimizer(model, optim)
        self.ema = Ema(model, ema_decay)
        self.step = 0

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.model.vocab_embed.embedding.device

    def steps(self) -> Iterator[StepResult]:
        """Train up to `num_steps`, yielding after every optimizer step.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; weights and optimizer are those before the step.
        """
        while self.step < self.num_steps:
            yield self._advance()

    def _advance(self) -> StepResult:
        started = time.perf_counter()
        self.model.train()
        lr = self.optim.learning_rate(self.step, self.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for batch in self._parts():
            part = self.objective.loss(
                self.model,
                batch,
                draws=Draws(self.seed, "train-noise"),
                step=self.step,
                global_batch_size=self.batch_size,
                generators=self._dropout_generators(batch),
            )
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
            tokens=self.batch_size * self.dataset.target_length,
            seconds=time.perf_counter() - started,
        )

    def state(self) -> TrainerState:
        """What a checkpoint keeps besides the weights."""
        return TrainerState(self.step, self.ema.num_updates, self.optimizer.state_dict(), self.fingerprint)

    def restore(self, state: TrainerState, ema: dict[str, torch.Tensor]) -> None:
        """Continue from a checkpoint whose raw weights the model already has.

        Raises:
            CheckpointError: the checkpoint was trained with other settings.
        """
        if state.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"the checkpoint at step {state.step} was trained with other settings (fingerprint "
                f"{state.fingerprint}, now {self.fingerprint}); resume with the settings in the run's config.yaml, or "
                "name a new run_dir"
            )
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

    def _parts(self) -> Iterator[Batch]:
        """The global batch of the current step, in `accum` parts."""
        indices = global_batch_indices(len(self.dataset), self.batch_size, self.step, seed=self.seed)
        size = self.batch_size // self.accum
        for start in range(0, self.batch_size, size):
            yield make_batch(self.dataset, indices[start : start + size], start, self.device)

    def _dropout_generators(self, batch: Batch) -> list[torch.Generator] | None:
        if self.model.config.dropout == 0:
            return None
        return [
            torch.Generator(self.device).manual_seed(derive_seed(self.seed, "dropout", self.step, index))
            for index in batch.index.tolist()
        ]

    def _require_finite(self, loss: float, grad_norm: float, lr: float) -> None:
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not abs(value) < float("inf"):
                raise NonFiniteError(
                    f"the {name} is {value} at step {self.step + 1} with learning rate {lr:g}, it must be finite; the "
                    "weights were not touched: resume from the last checkpoint with a lower optim.lr or optim.grad_clip"
                )


def make_batch(dataset: StageDataset, indices: npt.NDArray[np.int64], first: int, device: torch.device) -> Batch:
    """Windows `indices` as tensors; the first of them is sequence `first` of its global batch."""
    prefix, target = dataset.batch(indices)
    index = torch.arange(first, first + len(target))
    return Batch(torch.from_numpy(target), None if prefix is None else torch.from_numpy(prefix), index).to(device)


def dataset_bound(
    model: ScoreModel,
    objective: Objective,
    dataset: StageDataset,
    *,
    num_windows: int,
    num_times: int,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> BoundEstimate:
    """The bound of the first `num_windows` windows, at times and with noise that depend on `seed` alone.

    Args:
        model: the network; it is in its former mode again afterwards.
        objective: process, schedule and smallest time.
        dataset: windows of the stage.
        num_windows: how many of them, or fewer if there are fewer.
        num_times: times a window.
        batch_size: windows computed together; the result does not depend on it.
        seed: decides times and noise.
        on_progress: told the windows done, and all of them.

    Returns:
        One estimate a window, on the CPU.
    """
    was_training = model.training
    model.eval()
    device = model.vocab_embed.embedding.device
    draws = Draws(seed, "bound-noise")
    parts = []
    total = min(num_windows, len(dataset))
    for start in range(0, total, batch_size):
        indices = np.arange(start, min(start + batch_size, total))
        batch = make_batch(dataset, indices, start, device)
        parts.append(objective.bound(model, batch, draws=draws, num_times=num_times))
        if on_progress is not None:
            on_progress(start + len(indices), total)
    model.train(was_training)
    return BoundEstimate(torch.cat([p.nll_nats for p in parts]), torch.cat([p.standard_error for p in parts]))
