"""Time a training step of the last stage (64 prefix and 128 target tokens) against the plain reference.

Both get the same weights, texts and noise; before anything is timed, their losses must agree to 1e-5 and their
gradients to 1e-4. Then plain and fast steps take turns, in float32 and with a trunk in bfloat16. `plain whole` treats
prefix and target as one sequence, all of which goes through the output layer and the loss.

    OMP_NUM_THREADS=1 python benchmarks/bench_train_step.py --save
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Literal

from contest import Contest
from measure import Report, Seconds, Spread, arguments, peak_bytes, ratios, spread, table, take_turns
from networks import DTYPES, SIZES, Attention, chosen

REFERENCE, WHOLE = "plain float32", "plain whole float32"
STATE_COPIES = 5
"""Weights, gradients, two moments and the moving average."""


def memory_in_child(size: str, attention: Attention, variant: str, dropout: float) -> dict[str, float]:
    """Peak memory of two steps in a process of their own, see `report_memory`."""
    # Freed memory goes back to the system at once, so that the peak is that of what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--memory-of", size, attention, variant, "--dropout", str(dropout)]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout))


def report_memory(size: str, attention: Attention, variant: str, *, dropout: float) -> None:
    """Print the peak memory of two steps in GB, and how much of it lies beyond the libraries and the state."""
    _two_steps("toy", attention, variant, dropout)
    libraries = peak_bytes()
    contest = _two_steps(size, attention, variant, dropout)
    model = contest.trainers["fast"].model if variant.startswith("fast") else contest.plain.model
    state = STATE_COPIES * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(json.dumps({"peak_gb": peak_bytes() / 1e9, "transient_gb": (peak_bytes() - libraries - state) / 1e9}))


def _two_steps(size: str, attention: Attention, variant: str, dropout: float) -> Contest:
    """Two steps, after which torch has loaded its libraries and oneDNN has compiled its kernels."""
    contest = Contest(SIZES[size], attention, (variant.split()[0],), dropout=dropout)
    for _ in range(2):
        contest.prepare(variant)()
    return contest


def compare(
    report: Report, name: str, attention: Attention, dtypes: Sequence[str], *, dropout: float, rounds: int
) -> None:
    """Time all variants of one network and report them; for a toy network, memory is measured for the last one only."""
    variants = [f"{which} {dtype}" for which in ("plain", "fast") for dtype in chosen(dtypes)]
    variants[:0] = [WHOLE] if attention == "joint" else []
    measured = variants[-1:] if name == "toy" else variants
    memory = {variant: memory_in_child(name, attention, variant, dropout) for variant in measured}
    contest = Contest(SIZES[name], attention, dropout=dropout)
    loss_gap, gradient_gap = contest.require_agreement()
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
            gradient_gap=gradient_gap, dropout=dropout, **memory.get(variant, {}),
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
    parser.add_argument(
        "--dtype", choices=DTYPES, action="append", help="beside float32; may be repeated (default all)"
    )
    parser.add_argument("--attention", choices=["joint", "one_way"], action="append", help="only this; may be repeated")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the fast steps; the plain ones have none")
    parser.add_argument("--memory-of", nargs=3, metavar=("SIZE", "ATTENTION", "VARIANT"), help="for the script itself")
    options = parser.parse_args()
    if options.memory_of:
        report_memory(*options.memory_of, dropout=options.dropout)
        return
    sizes = ["toy"] if options.quick else options.size or ["reduced", "small"]
    attentions: list[Attention] = ["joint"] if options.quick else options.attention or ["joint", "one_way"]
    report = Report("Training step", save=options.save)
    report.text(
        "Speed-ups are against plain float32, the median over rounds with the smallest and the largest. Peak memory is "
        "that of a process of its own, the transient part what is neither library, weights, gradients, moments nor "
        "average.\n"
    )
    for name in sizes:
        for attention in attentions:
            compare(report, name, attention, options.dtype or [], dropout=options.dropout, rounds=options.repeats)
    report.close()


if __name__ == "__main__":
    main()
