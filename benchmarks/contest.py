"""A plain and a fast training of the same network with the same texts and noise, and a check that they agree."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from measure import Work
from networks import DTYPES, Attention, Size, random_network, random_windows
from plain import PlainTraining, plain_loss
from torch import Tensor

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.execution import prepare_execution
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer

CPU = torch.device("cpu")
SEED = 0
DRAWS = Draws(SEED, "train-noise")
OPTIM = OptimConfig(lr=1e-4, warmup=0)
EMA_DECAY = 0.9999
STEPS_ON_GPU = 10
"""Steps timed together: the fast step does not wait for the device, and reads its numbers once in so many."""


class Contest:
    """The plain and the fast training of one network on one device, or one of them alone."""

    def __init__(
        self,
        size: Size,
        attention: Attention,
        contestants: tuple[str, ...] = ("plain", "fast"),
        device: torch.device = CPU,
        *,
        dropout: float = 0.0,
    ) -> None:
        self.batch_size, self.device, self.dropout = size.train_batch, device, dropout
        self.objective = Objective(AbsorbingProcess(size.vocab_size), LogLinearSchedule())
        self.dataset = StageDataset(random_windows(size, 16 * size.train_batch), len(size.stage_lengths))
        self.step, self.steps_at_once = 0, STEPS_ON_GPU if device.type == "cuda" else 1
        if "plain" in contestants:
            network = random_network(size, attention).to(device)
            self.plain = PlainTraining(network, OPTIM.lr, EMA_DECAY, OPTIM.grad_clip)
        self.trainers = {
            which: self._trainer(random_network(size, attention).to(device))
            for which in ("fast", "compiled")
            if which in contestants
        }
        self.steps = {which: trainer.steps() for which, trainer in self.trainers.items()}

    def _trainer(self, network: ScoreModel) -> Trainer:
        loop = LoopConfig(
            batch_size=self.batch_size, accum=1, num_steps=1_000_000, ema_decay=EMA_DECAY, seed=SEED
        )  # fmt: skip
        return Trainer(network, self.objective, self.dataset, optim=OPTIM, loop=loop, course={})

    def prepare(self, variant: str) -> Work:
        """One step, or several on a GPU, of `plain`, `plain whole`, `fast` or `compiled` in a dtype."""
        which, dtype = variant.rsplit(" ", 1)
        if which in self.trainers:
            trainer = self.trainers[which]
            trainer.model.compute_dtype = DTYPES[dtype]
            # Dropout comes after the check that plain and fast agree, since the plain network has none.
            trainer.model.config = replace(trainer.model.config, dropout=self.dropout)
            trainer.execution = prepare_execution(
                trainer.model,
                self.device,
                compiles=which == "compiled" and not trainer.execution.is_compiled,
                deterministic=False,
                log_every=self.steps_at_once,
            )
            trainer.execution = replace(trainer.execution, is_compiled=which == "compiled")
            return lambda: self._several(lambda: next(self.steps[which]))
        self.plain.model.compute_dtype = DTYPES[dtype]
        return lambda: self._several(self._plain_step if which == "plain" else self._whole_step)

    def _several(self, step: Callable[[], object]) -> float:
        for _ in range(self.steps_at_once):
            step()
        return float(self.steps_at_once)

    def disagreement(self) -> tuple[float, float]:
        """Relative difference of the losses, and the largest relative norm of a gradient's difference, in float32."""
        batch, model = self._batch(0), self.trainers["fast"].model
        fast = self.objective.loss(model.train(), batch, draws=DRAWS, step=0, global_batch_size=self.batch_size)
        plain = plain_loss(self.plain.model, *self._noised(batch, 0))
        fast.backward()
        plain.backward()
        worst = 0.0
        for ours, reference in zip(model.parameters(), self.plain.model.parameters(), strict=True):
            assert ours.grad is not None
            assert reference.grad is not None
            worst = max(worst, float((ours.grad - reference.grad).norm() / reference.grad.norm()))
            ours.grad = reference.grad = None
        return abs(float(fast.detach() / plain.detach()) - 1), worst

    def _plain_step(self) -> None:
        self.plain.step(*self._noised(self._batch(self.step), self.step))
        self.step += 1

    def _whole_step(self) -> None:
        target, prefix, xt, sigma, dsigma = self._noised(self._batch(self.step), self.step)
        assert prefix is not None
        # No token of the prefix is MASK, so none of them adds to the loss.
        clean, noised = (torch.cat([prefix, ids], dim=1) for ids in (target, xt))
        self.plain.step(clean, None, noised, sigma, dsigma)
        self.step += 1

    def _batch(self, step: int) -> Batch:
        indices = global_batch_indices(len(self.dataset), self.batch_size, step, seed=SEED)
        return make_batch(self.dataset, indices, np.arange(self.batch_size))

    def _noised(self, batch: Batch, step: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        """Target, prefix, xt, sigma and dsigma as `Objective.loss` draws them."""
        length = batch.target.shape[1]
        first = batch.index[:1]
        shift = DRAWS.uniform_pair(torch.zeros_like(first), step, torch.full_like(first, length))[0]
        sigma, dsigma = self.objective.schedule(
            low_discrepancy_times(shift, batch.index, self.batch_size, self.objective.t_min)
        )
        u = DRAWS.uniform_pair(batch.index[:, None], step, torch.arange(length)[None])
        xt, there = self.objective.process.sample_xt(batch.target, sigma, u), batch.to(self.device)
        return there.target, there.prefix, *(tensor.to(self.device) for tensor in (xt, sigma, dsigma))

    def require_agreement(self) -> tuple[float, float]:
        """The disagreement, if it is small enough to be rounding.

        Raises:
            SystemExit: it is larger.
        """
        loss_gap, gradient_gap = self.disagreement()
        if loss_gap > 1e-5 or gradient_gap > 1e-4:
            raise SystemExit(
                f"plain and fast differ: loss by {loss_gap:.1e}, gradients by {gradient_gap:.1e}; nothing was timed"
            )
        return loss_gap, gradient_gap
