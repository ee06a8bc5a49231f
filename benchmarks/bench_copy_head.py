"""Time a training step of the last stage (64 prefix and 128 target tokens) with the copy head against one without.

Both networks are normalized and have the same sizes, texts and noise; their steps take turns, in float32.

    OMP_NUM_THREADS=1 python benchmarks/bench_copy_head.py --save
"""

from collections.abc import Callable

from measure import Report, Work, arguments, peak_bytes, ratios, spread, table, take_turns
from networks import SIZES, Attention, Size, random_network, random_windows

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.train.flops import mean_masked_share, training_flops
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer

PLAIN, COPY = "plain head", "copy head"
STEPS_AT_ONCE = 4


def trainer(size: Size, attention: Attention, *, copy_head: bool) -> Trainer:
    """The training of the last stage of random texts."""
    return Trainer(
        random_network(size, attention, "normalized", copy_head=copy_head),
        Objective(AbsorbingProcess(size.vocab_size), LogLinearSchedule()),
        StageDataset(random_windows(size, 16 * size.train_batch), len(size.stage_lengths)),
        optim=OptimConfig(lr=1e-4, warmup=0),
        loop=LoopConfig(batch_size=size.train_batch, accum=1, num_steps=1_000_000, ema_decay=0.9999, seed=0),
        course={},
    )


def preparation(training: Trainer) -> Callable[[], Work]:
    """Prepares a few steps in a row."""
    steps = training.steps()

    def work() -> float:
        for _ in range(STEPS_AT_ONCE):
            next(steps)
        return float(STEPS_AT_ONCE)

    return lambda: work


def flops(training: Trainer) -> float:
    """The FLOPs of a step by the formula."""
    dataset, objective = training.dataset, training.objective
    return training_flops(
        training.model.config,
        batch_size=training.loop.batch_size,
        prefix_length=dataset.prefix_length,
        target_length=dataset.target_length,
        masked_share=mean_masked_share(objective.schedule, objective.t_min),
    )


def compare(report: Report, name: str, attention: Attention, *, rounds: int) -> None:
    """Time both heads of one network and report the ratio."""
    trainers = {head: trainer(SIZES[name], attention, copy_head=head == COPY) for head in (PLAIN, COPY)}
    seconds = take_turns({head: preparation(training) for head, training in trainers.items()}, rounds=rounds)
    rows = []
    for head, training in trainers.items():
        # The time of a step as a multiple of that with the plain head.
        cpu, wall = (
            ratios(*([getattr(taken, clock) for taken in seconds[which]] for which in (head, PLAIN)))
            for clock in ("cpu", "wall")
        )
        own = spread([taken.cpu for taken in seconds[head]]).median
        needed = flops(training) / flops(trainers[PLAIN])
        rows.append((head, f"{own:.3f}", cpu, wall, f"{needed:.3f}"))
        report.record(
            size=name, attention=attention, head=head, cpu_seconds=own, time_cpu=cpu, time_wall=wall, flops=needed
        )
    report.text(f"### {name}, {attention}, batch {SIZES[name].train_batch}\n")
    report.text(table(["step", "CPU s", "time (CPU)", "time (wall)", "arithmetic"], rows) + "\n")


def main() -> None:
    """Compare all sizes and both kinds of attention."""
    parser = arguments(__doc__, repeats=7)
    options = parser.parse_args()
    report = Report("Copy head, training step", save=options.save)
    report.text(
        "Times are multiples of those of the plain head, the median over rounds with the smallest and largest.\n"
    )
    for name in ["toy"] if options.quick else ["tiny", "reduced"]:
        for attention in ("joint", "one_way"):
            compare(report, name, attention, rounds=options.repeats)
    report.text(f"Largest memory of the process: {peak_bytes() / 1e9:.2f} GB.\n")
    report.close()


if __name__ == "__main__":
    main()
