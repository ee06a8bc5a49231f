"""Prints what wikitext2.sh or prose_small.sh has measured, two tables a seed: the bound of every arm by terms and the
cost of a text, and the bounds of all models in the course of training, with the positions that they have seen.

python scripts/reproduce/arms_table.py OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

ARMS = ("flat", "prefix", "copy", "placed")
MODELS = ("flat", "stage1", "prefix2", "copy2", "placed2", "prefix3", "copy3", "placed3")


def bound_row(name: str, bound: dict[str, Any], sampling: dict[str, Any]) -> str:
    """The row of an arm: nats a window of every stage and of all, nats a token, and the cost of a text."""
    stages = [f"{stage['bound_nats_per_window']:.1f}" for stage in bound["stages"]]
    layout = sum(stage.get("layout_nats_per_window", 0.0) for stage in bound["stages"])
    cells = [
        name,
        *([""] * 3 if name == "flat" else stages),
        f"{layout:.1f}" if layout else "",
        f"{bound['bound_nats_per_window']:.1f} +- {bound['standard_error_nats']:.1f}",
        f"{bound['bound_nats_per_token']:.3f}",
        f"{sum(sampling['nfe_per_stage']):.0f}",
        f"{sampling['token_forwards'] / sampling['num_finished']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def curve_row(run: Path) -> str | None:
    """The row of a model: positions seen, and nats a token of validation windows after every eighth of its steps.

    None before its first eighth.
    """
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bounds = {line["step"]: line for line in lines if "bound_nats_per_token" in line and line["step"] > 0}
    seen = max((line["token_forwards"] for line in lines if "token_forwards" in line), default=0)
    if not bounds or not seen:
        return None
    cells = [f"{bounds[step]['bound_nats_per_token']:.2f}" for step in sorted(bounds)]
    error = bounds[max(bounds)]["standard_error"]
    return f"| {' | '.join([run.name, f'{seen / 1e6:.2f}', *cells, f'{error:.2f}'])} |"


def main(out: Path) -> None:
    """Prints the tables of every folder seed<n>, without what is not there yet."""
    columns = ["arm", "stage 1", "stage 2", "stage 3", "of it layout", "all", "nats a token", "calls", "token-forwards"]
    for run in sorted(out.glob("seed*")):
        sys.stdout.write(f"\n{run.name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
        for name in ARMS:
            if (run / f"{name}.json").exists():
                summary = sorted(run.glob(f"samples_{name}/*/summary.json"))[-1]
                row = bound_row(name, json.loads((run / f"{name}.json").read_text()), json.loads(summary.read_text()))
                sys.stdout.write(f"{row}\n")
        curve = ["model", "million positions", *(f"{part}/8" for part in range(1, 9)), "error"]
        sys.stdout.write(f"\n| {' | '.join(curve)} |\n|{'---|' * len(curve)}\n")
        for name in MODELS:
            if (run / name / "metrics.jsonl").exists() and (row := curve_row(run / name)) is not None:
                sys.stdout.write(f"{row}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
