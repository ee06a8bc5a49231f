"""Time a training step of the last stage on a GPU against the plain reference, with and without compiled blocks.

Before anything is timed, plain and fast must agree as in bench_train_step.py. Then all variants take turns, some steps
at a time. MFU is the share of the bfloat16 peak that the needed arithmetic takes, without recomputation, and with the
output layer only where a token is masked. Beyond the state: the most memory that a step takes besides weights,
gradients, moments and average.

--device cpu only shows that the script runs: it leaves out that memory, which a CPU does not report, and the compiled
variant, for which the compiler takes a minute.

    python benchmarks/bench_train_step_gpu.py --batch 64 --batch 256 --save
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from contest import Contest
from measure import Report, Work, arguments, ratios, require_device, spread, table, take_turns
from networks import SIZES, Attention, Size

from cascaded_dllm.train.flops import known_peak_flops, mean_masked_share, training_flops

REFERENCE = "plain float32"
VARIANTS = (REFERENCE, "plain bfloat16", "fast float32", "fast bfloat16", "compiled bfloat16")


def compare(
    report: Report, name: str, attention: Attention, device: torch.device, *, batch: int, dropout: float, rounds: int
) -> None:
    """Time all variants of one network on batches of one size and report them."""
    size = replace(SIZES[name], train_batch=batch)
    contest = Contest(size, attention, ("plain", "fast", "compiled"), device, dropout=dropout)
    loss_gap, gradient_gap = contest.require_agreement()
    beyond: dict[str, int] = {}
    is_on_gpu = device.type == "cuda"

    def enter(variant: str) -> Callable[[], Work]:
        if not is_on_gpu:
            return lambda: contest.prepare(variant)

        def prepare() -> Work:
            work, before = contest.prepare(variant), torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)

            def measured() -> float:
                steps = work()
                beyond[variant] = torch.cuda.max_memory_allocated(device) - before
                return steps

            return measured

        return prepare

    variants = VARIANTS if is_on_gpu else VARIANTS[:-1]
    seconds = take_turns({variant: enter(variant) for variant in variants}, rounds=rounds)
    flops, peak = step_flops(contest, size), known_peak_flops(device, torch.bfloat16)
    rows = []
    for variant, taken in seconds.items():
        wall = spread([a_step.wall for a_step in taken])
        faster = ratios(*([a_step.wall for a_step in seconds[which]] for which in (REFERENCE, variant)))
        same = f"plain {variant.split()[-1]}"
        faster_than_same = ratios(*([a_step.wall for a_step in seconds[which]] for which in (same, variant)))
        tokens = batch * size.stage_lengths[-1] / wall.median
        gigabytes = beyond[variant] / 1e9 if variant in beyond else None
        mfu = None if peak is None else flops / wall.median / peak
        shown = (f"{1000 * wall.median:.1f}", f"{tokens:,.0f}", "-" if mfu is None else f"{mfu:.1%}")
        rows.append((variant, *shown, "-" if gigabytes is None else f"{gigabytes:.2f}", faster, faster_than_same))
        report.record(
            size=name, attention=attention, batch=batch, variant=variant, wall_seconds=wall, tokens_per_second=tokens,
            mfu=mfu, gigabytes_beyond_state=gigabytes, speedup_wall=faster, speedup_wall_same_dtype=faster_than_same,
            loss_gap=loss_gap, gradient_gap=gradient_gap, dropout=dropout,
        )  # fmt: skip
    report.text(f"### {name}, {attention}, batch {batch}\n")
    header = ["step", "ms", "target tokens/s", "MFU", "GB beyond the state", "speed-up", "to plain of this dtype"]
    report.text(table(header, rows) + "\n")


def step_flops(contest: Contest, size: Size) -> float:
    """The arithmetic that a step needs."""
    share = mean_masked_share(contest.objective.schedule, contest.objective.t_min)
    return training_flops(
        contest.trainers["fast"].model.config,
        batch_size=contest.batch_size,
        prefix_length=size.stage_lengths[-2],
        target_length=size.stage_lengths[-1],
        masked_share=share,
    )


def main() -> None:
    """Compare all variants with both kinds of attention, for every size of batches."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--size", choices=["reduced", "small"], default="small", help="network (default small)")
    parser.add_argument("--batch", type=int, action="append", help="sequences (default 64); may be repeated")
    parser.add_argument("--attention", choices=["joint", "one_way"], action="append", help="only this; may be repeated")
    parser.add_argument("--dropout", type=float, default=0.0, help="of our steps; the plain ones have none")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default cuda")
    options = parser.parse_args()
    device = require_device(options.device)
    report = Report("Training step on a GPU", save=options.save)
    report.text("Ratios are the median over rounds, of wall-clock time, with the smallest and the largest.\n")
    for attention in options.attention or ["joint", "one_way"]:
        for batch in options.batch or [SIZES["toy"].train_batch if options.quick else 64]:
            name = "toy" if options.quick else options.size
            compare(report, name, attention, device, batch=batch, dropout=options.dropout, rounds=options.repeats)
    report.close()


if __name__ == "__main__":
    main()
