"""What the copy head is worth: a stage with its true prefixes, trained with and without it for equal time.

    OMP_NUM_THREADS=1 python benchmarks/copy_head_quality.py DATA/wikitext2_train DATA/wikitext2_valid --seconds 180

The folders are those of `cdllm preprocess`, made with one tokenizer. All arms have the same windows, sizes, order and
noise, and take turns step by step until each has used --seconds of processor time, so that a shared machine favours
none. Reported is the bound of the averaged weights on validation windows.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from measure import Report, arguments, table
from networks import SIZES, Attention, Size

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.bound import MEASURED_FROM
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.evaluate.likelihood import dataset_bound, mean_and_error
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer

SPEC = CascadeSpec((32, 64, 128))
BATCH, NUM_TIMES = 32, 8


@dataclass
class Arm:
    """One of the networks in training.

    Attributes:
        attention: of the prefix.
        copy_head: whether it has one.
        training: its trainer.
        seconds: processor time used so far.
    """

    attention: Attention
    copy_head: bool
    training: Trainer
    seconds: float = 0.0


def stage_dataset(folder: Path, stage: int) -> StageDataset:
    """The windows of a preprocessed folder."""
    return StageDataset(StageArrays.build(folder, SPEC, packing="stream"), stage)


def new_arm(
    dataset: StageDataset, size: Size, vocab_size: int, attention: Attention, *, copy_head: bool, seed: int
) -> Arm:
    """A network that does not see the time."""
    torch.manual_seed(seed)
    model = ScoreModel(
        ScoreModelConfig(
            vocab_size=vocab_size,
            hidden_size=size.hidden_size,
            num_heads=size.num_heads,
            num_blocks=size.num_blocks,
            cond_dim=64,
            parameterization="normalized",
            time_conditioning=False,
            prefix_attention=attention,
            copy_head=copy_head,
        )
    )
    training = Trainer(
        model,
        Objective(AbsorbingProcess(vocab_size), LogLinearSchedule(), t_min=0.01),
        dataset,
        optim=OptimConfig(lr=2e-3, beta2=0.98, warmup=100),
        loop=LoopConfig(batch_size=BATCH, accum=1, num_steps=1_000_000, ema_decay=0.995, seed=seed),
        course={},
    )
    return Arm(attention, copy_head, training)


def train(arms: list[Arm], seconds: float) -> None:
    """Steps in turn until every arm has used `seconds` of processor time."""
    steps = [arm.training.steps() for arm in arms]
    while any(arm.seconds < seconds for arm in arms):
        for arm, own in zip(arms, steps, strict=True):
            if arm.seconds < seconds:
                started = time.process_time()
                next(own)
                arm.seconds += time.process_time() - started


def report_arms(report: Report, arms: list[Arm], valid: StageDataset, *, num_windows: int) -> None:
    """Measure all arms and report them."""
    rows = []
    for arm in arms:
        with arm.training.averaged_weights():
            bound = dataset_bound(
                arm.training.model, replace(arm.training.objective, t_min=MEASURED_FROM), valid,
                num_windows=num_windows, num_times=NUM_TIMES, batch_size=BATCH, seed=0,
            )  # fmt: skip
        nats, error = mean_and_error(bound.nll_nats)
        rows.append((arm.attention, "yes" if arm.copy_head else "no", arm.training.step, f"{nats:.1f} +- {error:.1f}"))
        report.record(
            attention=arm.attention, copy_head=arm.copy_head, steps=arm.training.step, seconds=arm.seconds,
            bound_nats=nats, error_nats=error,
        )  # fmt: skip
    report.text(table(["attention", "copy head", "steps", "bound, nats a window"], rows) + "\n")


def main() -> None:
    """Train and measure four arms: both kinds of attention, with the copy head and without."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("train", type=Path, help="preprocessed folder to train on")
    parser.add_argument("valid", type=Path, help="preprocessed folder to measure on")
    parser.add_argument("--stage", type=int, default=3, help="2 or 3 (default 3)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of processor time an arm (default 180)")
    parser.add_argument("--num-windows", type=int, default=256, help="measured (default 256)")
    options = parser.parse_args()
    seconds, num_windows = (1.0, 4) if options.quick else (options.seconds, options.num_windows)
    size = SIZES["toy" if options.quick else "tiny"]
    dataset, valid = stage_dataset(options.train, options.stage), stage_dataset(options.valid, options.stage)
    vocab_size = StageArrays.build(options.train, SPEC, packing="stream").vocab_size
    report = Report(f"Copy head, stage {options.stage} after {seconds:.0f} CPU seconds", save=options.save)
    for seed in range(options.repeats):
        arms = [
            new_arm(dataset, size, vocab_size, attention, copy_head=copy_head, seed=seed)
            for attention in ("joint", "one_way")
            for copy_head in (False, True)
        ]
        train(arms, seconds)
        report_arms(report, arms, valid, num_windows=num_windows)
    report.close()


if __name__ == "__main__":
    main()
