"""Prints what wikitext2.sh has measured, one table a seed: the bound of every arm by terms, and what a text costs.

python scripts/reproduce/wikitext2_table.py OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

ARMS = ("flat", "prefix", "copy", "placed")


def bound_row(name: str, bound: dict[str, Any], sampling: dict[str, Any]) -> str:
    """One arm: nats a window of every stage, all, nats a token, and the cost of a text."""
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


def main(out: Path) -> None:
    """One table for every folder seed<n>; arms that are not measured yet are left out."""
    columns = ["arm", "stage 1", "stage 2", "stage 3", "of it layout", "all", "nats a token", "calls", "token-forwards"]
    for run in sorted(out.glob("seed*")):
        sys.stdout.write(f"\n{run.name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
        for name in ARMS:
            if (run / f"{name}.json").exists():
                summary = sorted(run.glob(f"samples_{name}/*/summary.json"))[-1]
                row = bound_row(name, json.loads((run / f"{name}.json").read_text()), json.loads(summary.read_text()))
                sys.stdout.write(f"{row}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
