"""The training loop as a generator of steps; logs, evaluations and snapshots are left to the caller."""

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cascaded_dllm.data.dataset import StageDataset, StageMixture
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.model.pretrained import matching_weights, require_finite_weights
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.batches import parts_of_step, read_ahead, size_of
from cascaded_dllm.train.checkpoint import TrainerState
from cascaded_dllm.train.course import require_same_course
from cascaded_dllm.train.ema import Ema
from cascaded_dllm.train.execution import Execution
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.loop import LoopConfig, require_divisible
from cascaded_dllm.train.moments import placed_moments
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig, make_optimizer
from cascaded_dllm.train.parallel import Parallel, Single
from cascaded_dllm.train.readings import Reading, Readings


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one optimizer step.

    Attributes:
        step: optimizer steps done, this one included.
        loss_nats_per_token: loss of the global batch, nats per target token; None if it was left on the device.
        grad_norm: norm of the gradient before clipping; None if it was left on the device.
        lr: learning rate of this step.
        tokens: target tokens seen in this step, in all processes.
        seconds: wall-clock time that the host spent on the step. If numbers are left on the device, the step that reads
            them includes the wait for the steps before it. A wait between steps, for a bound or a checkpoint, is
            counted in the next step. So sums over steps are right.
    """

    step: int
    loss_nats_per_token: float | None
    grad_norm: float | None
    lr: float
    tokens: int
    seconds: float


class Trainer:
    """One stage in training.

    Args:
        model: the network; its device is the device of training.
        objective: the loss.
        dataset: windows of the stage, or of several stages.
        optim: optimizer settings.
        loop: batch size and number of steps.
        course: all other settings that decide the course of training, by key; a resumed run must have the same.
        parallel: how several processes share the work; None for a single process.
        execution: how a step is computed on the device; None for `Execution()`.

    Attributes:
        step: optimizer steps done.
        losses: losses of the steps that were read since the caller last emptied the list, in order, nats per target
            token. A checkpoint keeps them, so that the next line of metrics is that of an uninterrupted run.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        dataset: StageDataset | StageMixture,
        *,
        optim: OptimConfig,
        loop: LoopConfig,
        course: Mapping[str, Any],
        parallel: Parallel | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.model, self.objective, self.dataset = model, objective, dataset
        self.optim, self.loop, self.course = optim, loop, course
        self.parallel, self.execution = parallel or Single(), execution or Execution()
        require_divisible(loop, self.group.size, len(dataset.parts))
        self.optimizer = make_optimizer(model, optim)
        self.ema = Ema(model, loop.ema_decay, self.parallel.storage)
        self.step = 0
        self.losses: list[float] = []
        self._readings = Readings(self.device)
        self._seconds_between_steps = 0.0

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.model.device

    @property
    def group(self) -> Group:
        """The processes that train."""
        return self.parallel.group

    @property
    def tokens_per_step(self) -> int:
        """Target tokens of a global batch."""
        parts = self.dataset.parts
        return self.loop.batch_size // len(parts) * sum(part.target_length for part in parts)

    def steps(self) -> Iterator[StepResult]:
        """Train up to the last step of the run, yielding after every optimizer step.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; weights, optimizer and average are those before
                the step. It is raised when the numbers are read, at most `read_every` - 1 steps later.
        """
        while self.step < self.loop.num_steps:
            with self.execution.computing():
                result = self._advance()
            yield result

    def _advance(self) -> StepResult:
        started = time.perf_counter()
        waited, self._seconds_between_steps = self._seconds_between_steps, 0.0
        self.model.train()
        lr = self.optim.learning_rate(self.step, self.loop.num_steps)
        self.parallel.begin(self.optimizer)
        loss = torch.zeros((), device=self.device)
        if self.step + 1 < self.loop.num_steps:
            read_ahead(self.dataset, self.loop, self.group, self.step + 1)
        for number, batch in enumerate(self._parts(), start=1):
            share = self._part_loss(batch)
            self.parallel.backward(share, is_last=number == self.loop.accum * len(self.dataset.parts))
            loss += share.detach()
        self.group.sum(loss)
        norm = self.parallel.clip(list(self.model.parameters()), self.optim.grad_clip)
        tokens = self.tokens_per_step
        self._readings.note(self.step + 1, lr, loss / (tokens / self.loop.batch_size), norm)
        is_read = (self.step + 1) % self.execution.read_every == 0 or self.step + 1 == self.loop.num_steps
        read = self._read()[-1] if is_read else None
        self._update(lr, None if is_read else self._readings.is_broken)
        self.step += 1
        return StepResult(
            step=self.step,
            loss_nats_per_token=read and read.loss,
            grad_norm=read and read.grad_norm,
            lr=lr,
            tokens=tokens,
            seconds=time.perf_counter() - started + waited,
        )

    def _update(self, lr: float, is_void: torch.Tensor | None) -> None:
        """Update weights and average; both stay as they are if `is_void`, a tensor on the device, is 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # A gradient scaler sets this attribute to make the fused step change nothing.
        self.optimizer.found_inf = is_void  # type: ignore[attr-defined]
        self.optimizer.step()
        self.ema.update(self.model, is_void=is_void)

    def require_finite(self) -> None:
        """Wait for the steps done and check their numbers.

        Raises:
            NonFiniteError: one of them is not finite.
        """
        started = time.perf_counter()
        self._read()
        self._seconds_between_steps += time.perf_counter() - started

    def _read(self) -> list[Reading]:
        read = self._readings.read()
        self.losses += [reading.loss for reading in read]
        return read

    def state(self) -> TrainerState:
        """What a checkpoint keeps besides the weights.

        Raises:
            NonFiniteError: a step since the last reading was not finite.
        """
        self.require_finite()
        return TrainerState(
            step=self.step,
            num_steps=self.loop.num_steps,
            ema_updates=self.ema.num_updates,
            optimizer=self.optimizer.state_dict(),
            course=dict(self.course),
            losses=list(self.losses),
        )

    def restore(
        self,
        state: TrainerState,
        *,
        weights: Mapping[str, torch.Tensor],
        ema: Mapping[str, torch.Tensor],
        source: str,
        parts: Path | None = None,
    ) -> None:
        """Continue from a checkpoint, which any number of processes may have written.

        Args:
            state: trainer state of the checkpoint.
            weights: its raw weights.
            ema: its averaged weights.
            source: its path, for messages.
            parts: folder of the optimizer's moments if `state` lacks them, see `checkpoint`.

        Raises:
            CheckpointError: it was trained with other settings, or its weights do not fit or are NaN or infinite.
        """
        # Settings are checked first: a difference in size is easier to read there than in a list of shapes.
        require_same_course(state, course=self.course, optim=self.optim, num_steps=self.loop.num_steps, source=source)
        found = matching_weights(self.model, weights, source=source)
        require_finite_weights(ema, source=source)
        for name, tensor in self.model.state_dict().items():
            self.parallel.storage.fill(tensor, found[name])
        self.optimizer.load_state_dict(placed_moments(state.optimizer, parts, self.model, self.parallel.storage))
        self.ema.load_state_dict(ema, num_updates=state.ema_updates)
        self.step, self.losses = state.step, list(state.losses)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights into the network for the block, in evaluation mode; restores its own afterwards.

        The network stays in evaluation mode until the next step.

        Raises:
            NonFiniteError: a step since the last reading was not finite.
        """
        self.require_finite()
        storage, parameters = self.parallel.storage, list(self.model.parameters())
        own = [storage.local(parameter.detach()).clone() for parameter in parameters]
        self.ema.copy_to(self.model)
        self.model.eval()
        try:
            with self.execution.evaluating(), storage.evaluating():
                yield
        finally:
            for parameter, value in zip(parameters, own, strict=True):
                storage.local(parameter.detach()).copy_(value)

    def execution_layout(self) -> dict[str, Any]:
        """What may differ between two runs that train the same: number of processes, strategy, device, execution."""
        return {
            "processes": self.group.size,
            "strategy": self.parallel.name,
            "device": str(self.device),
            "execution": self.execution.description(),
        }

    def rehearse(self) -> None:
        """Forward and backward of the part of a batch that takes most memory, with the optimizer's memory allocated.

        The part has the latest times that a part can have, at which most positions are masked. Weights and moments do
        not change; the gradients are left for the caller to discard.
        """
        self.model.train()
        is_new = not self.optimizer.state
        moments = [torch.empty_like(p) for p in self.model.parameters() for _ in range(2)] if is_new else []
        self.parallel.begin(self.optimizer)
        part = max(itertools.islice(self._parts(), len(self.dataset.parts)), key=size_of)
        everyone = torch.arange(self.loop.batch_size)
        t = self.objective.times(
            everyone,
            part.target.shape[1],
            draws=Draws(self.loop.seed, "train-noise"),
            step=self.step,
            global_batch_size=self.loop.batch_size,
        )
        num_parts = self.loop.batch_size // len(part.index)
        latest = everyone[t.argsort(descending=True)[::num_parts]]
        with self.execution.computing():
            self.parallel.backward(self._part_loss(replace(part, index=latest)), is_last=False)
        del moments

    def _part_loss(self, batch: Batch) -> torch.Tensor:
        """The share of the loss that a part of the current global batch has, with its autograd graph."""
        return self.objective.loss(
            self.model,
            batch,
            draws=Draws(self.loop.seed, "train-noise"),
            step=self.step,
            global_batch_size=self.loop.batch_size,
            execution=self.execution.loss,
        )

    def _parts(self) -> Iterator[Batch]:
        """This process's share of the global batch of the current step, part by part."""
        return parts_of_step(self.dataset, self.loop, self.group, self.step)
