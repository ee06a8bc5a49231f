"""Time a training step of the last stage (64 prefix and 128 target tokens) against the plain reference.

Both are given the same weights, texts and noise; before anything is timed their losses must agree to 1e-5 and their
gradients to 1e-4. Then plain and fast steps take turns, in float32 and with a trunk in bfloat16. `plain whole` takes
prefix and target for one sequence, all of which goes through the output layer and the loss.

    OMP_NUM_THREADS=1 python benchmarks/bench_train_step.py --save
"""

import json
import os
import subprocess
import sys
from functools import partial
from typing import Literal

import numpy as np
import torch
from measure import Report, Seconds, Spread, Work, arguments, peak_bytes, ratios, spread, table, take_turns
from networks import DTYPES, SIZES, Attention, Size, random_network, random_windows
from plain import PlainTraining, plain_loss
from torch import Tensor

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer, make_batch

SEED = 0
DRAWS = Draws(SEED, "train-noise")
OPTIM = OptimConfig(lr=1e-4, warmup=0)
EMA_DECAY = 0.9999
REFERENCE, WHOLE = "plain float32", "plain whole float32"
VARIANTS = tuple(f"{which} {dtype}" for which in ("plain", "fast") for dtype in DTYPES)
STATE_COPIES = 5
"""Weights, gradients, two moments and the moving average."""


class Contest:
    """The plain and the fast training of one network, or one of them alone."""

    def __init__(self, size: Size, attention: Attention, contestants: tuple[str, ...] = ("plain", "fast")) -> None:
        self.batch_size = size.train_batch
        self.objective = Objective(AbsorbingProcess(size.vocab_size), LogLinearSchedule())
        self.dataset = StageDataset(random_windows(size, 16 * size.train_batch), len(size.stage_lengths))
        self.step = 0
        if "plain" in contestants:
            self.plain = PlainTraining(random_network(size, attention), OPTIM.lr, EMA_DECAY, OPTIM.grad_clip)
        if "fast" in contestants:
            self.fast = Trainer(
                random_network(size, attention),
                self.objective,
                self.dataset,
                optim=OPTIM,
                loop=LoopConfig(
                    batch_size=size.train_batch, accum=1, num_steps=1_000_000, ema_decay=EMA_DECAY, seed=SEED
                ),
                course={},
            )
            self.fast_steps = self.fast.steps()

    def prepare(self, variant: str) -> Work:
        """One step of `plain`, `plain whole` or `fast` in a dtype."""
        which, dtype = variant.rsplit(" ", 1)
        if which == "fast":
            self.fast.model.compute_dtype = DTYPES[dtype]
            return self._fast_step
        self.plain.model.compute_dtype = DTYPES[dtype]
        return self._plain_step if which == "plain" else self._whole_step

    def disagreement(self) -> tuple[float, float]:
        """Relative difference of the losses and the largest one of a gradient's norm, in float32."""
        batch = self._batch(0)
        fast = self.objective.loss(
            self.fast.model.train(), batch, draws=DRAWS, step=0, global_batch_size=self.batch_size
        )
        plain = plain_loss(self.plain.model, batch.target, batch.prefix, *self._noised(batch, 0))
        fast.backward()
        plain.backward()
        worst = 0.0
        for ours, reference in zip(self.fast.model.parameters(), self.plain.model.parameters(), strict=True):
            assert ours.grad is not None
            assert reference.grad is not None
            worst = max(worst, float((ours.grad - reference.grad).norm() / reference.grad.norm()))
            ours.grad = reference.grad = None
        return abs(float(fast.detach() / plain.detach()) - 1), worst

    def _fast_step(self) -> float:
        next(self.fast_steps)
        return 1.0

    def _plain_step(self) -> float:
        batch = self._batch(self.step)
        self.plain.step(batch.target, batch.prefix, *self._noised(batch, self.step))
        self.step += 1
        return 1.0

    def _whole_step(self) -> float:
        batch = self._batch(self.step)
        assert batch.prefix is not None
        xt, sigma, dsigma = self._noised(batch, self.step)
        # No token of the prefix is MASK, so that none of them adds to the loss.
        clean, noised = (torch.cat([batch.prefix, target], dim=1) for target in (batch.target, xt))
        self.plain.step(clean, None, noised, sigma, dsigma)
        self.step += 1
        return 1.0

    def _batch(self, step: int) -> Batch:
        indices = global_batch_indices(len(self.dataset), self.batch_size, step, seed=SEED)
        return make_batch(self.dataset, indices, np.arange(self.batch_size), torch.device("cpu"))

    def _noised(self, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """xt, sigma and dsigma as `Objective.loss` draws them."""
        length = batch.target.shape[1]
        first = batch.index[:1]
        shift = DRAWS.uniform_pair(torch.zeros_like(first), step, torch.full_like(first, length))[0]
        sigma, dsigma = self.objective.schedule(
            low_discrepancy_times(shift, batch.index, self.batch_size, self.objective.t_min)
        )
        u = DRAWS.uniform_pair(batch.index[:, None], step, torch.arange(length)[None])
        return self.objective.process.sample_xt(batch.target, sigma, u), sigma, dsigma


def memory_in_child(size: str, attention: Attention, variant: str) -> dict[str, float]:
    """Peak memory of two steps in a process of their own, see `report_memory`."""
    # Freed memory goes back to the system at once, so that the peak is that of what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--memory-of", size, attention, variant]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout))


def report_memory(size: str, attention: Attention, variant: str) -> None:
    """Print the peak memory of two steps in GB, and how much of it lies beyond the libraries and the state."""
    libraries = peak_bytes()
    contest = Contest(SIZES[size], attention, (variant.split()[0],))
    for _ in range(2):
        contest.prepare(variant)()
    model = contest.fast.model if variant.startswith("fast") else contest.plain.model
    state = STATE_COPIES * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(json.dumps({"peak_gb": peak_bytes() / 1e9, "transient_gb": (peak_bytes() - libraries - state) / 1e9}))


def compare(report: Report, name: str, attention: Attention, *, rounds: int) -> None:
    """Time all variants of one network and report them; of a toy network, memory is measured for the last only."""
    variants = (WHOLE, *VARIANTS) if attention == "joint" else VARIANTS
    measured = variants[-1:] if name == "toy" else variants
    memory = {variant: memory_in_child(name, attention, variant) for variant in measured}
    contest = Contest(SIZES[name], attention)
    loss_gap, gradient_gap = contest.disagreement()
    if loss_gap > 1e-5 or gradient_gap > 1e-4:
        sys.exit(f"plain and fast differ: loss by {loss_gap:.1e}, gradients by {gradient_gap:.1e}; nothing was timed")
    seconds = take_turns({variant: partial(contest.prepare, variant) for variant in variants}, rounds=rounds)
    rows = []
    for variant in variants:
        cpu, wall = (_ratios(seconds, REFERENCE, variant, clock) for clock in ("cpu", "wall"))
        same_dtype = _ratios(seconds, f"plain {variant.split()[-1]}", variant, "cpu")
        to_whole = _ratios(seconds, WHOLE, variant, "cpu") if WHOLE in seconds else None
        own = [spread([getattr(taken, clock) for taken in seconds[variant]]).median for clock in ("cpu", "wall")]
        seconds_of_a_step = (f"{value:.3f}" for value in own)
        gigabytes = [f"{value:.2f}" for value in memory[variant].values()] if variant in memory else ["-", "-"]
        rows.append((variant, *seconds_of_a_step, *gigabytes, cpu, wall, same_dtype, to_whole or "-"))
        report.record(
            size=name, attention=attention, variant=variant, cpu_seconds=own[0], wall_seconds=own[1], speedup_cpu=cpu,
            speedup_wall=wall, speedup_cpu_same_dtype=same_dtype, speedup_cpu_to_whole=to_whole, loss_gap=loss_gap,
            gradient_gap=gradient_gap, **memory.get(variant, {}),
        )  # fmt: skip
    report.text(
        f"### {name}, {attention}, batch {contest.batch_size}\n\n"
        f"Losses differ by {loss_gap:.0e}, gradients by at most {gradient_gap:.0e}.\n"
    )
    header = ["step", "CPU s", "wall s", "peak GB", "transient GB", "speed-up (CPU)", "speed-up (wall)"]
    report.text(table([*header, "to plain of this dtype", "to plain whole"], rows) + "\n")


def _ratios(seconds: dict[str, list[Seconds]], slow: str, fast: str, clock: Literal["cpu", "wall"]) -> Spread:
    return ratios(*([getattr(taken, clock) for taken in seconds[name]] for name in (slow, fast)))


def main() -> None:
    """Compare all sizes and both kinds of attention."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--size", choices=["reduced", "small"], action="append", help="only this size; may be repeated")
    parser.add_argument("--memory-of", nargs=3, metavar=("SIZE", "ATTENTION", "VARIANT"), help="for the script itself")
    options = parser.parse_args()
    if options.memory_of:
        report_memory(*options.memory_of)
        return
    sizes = ["toy"] if options.quick else options.size or ["reduced", "small"]
    attentions: tuple[Attention, ...] = ("joint",) if options.quick else ("joint", "one_way")
    report = Report("Training step", save=options.save)
    report.text(
        "Speed-ups are against plain float32, the median over rounds with the smallest and the largest. Peak memory is "
        "that of a process of its own, the transient part what is neither library, weights, gradients, moments nor "
        "average.\n"
    )
    for name in sizes:
        for attention in attentions:
            compare(report, name, attention, rounds=options.repeats)
    report.close()


if __name__ == "__main__":
    main()
