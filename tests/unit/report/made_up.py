"""Results of a study that never ran: every number is made up, in the form that a study leaves behind."""

import json
import math
import random
from pathlib import Path
from typing import Any

from cascaded_dllm.report.reading import read_results
from cascaded_dllm.report.results import Results

LENGTHS = [8, 16, 40]
STORY = (
    "Mia was a brave little fox . One day she found a shiny key near the old mill . "
    "She showed the key to Tom , and they opened a small blue door together ."
)


def study(seeds: int = 3) -> dict[str, Any]:
    """A flat arm, two cascades of which one is placed, and an arm one seed of which diverged."""
    arms = []
    for seed in range(seeds):
        arms.append(arm("flat", seed, [31.9], description="flat model of 40 tokens"))
        arms.append(arm("cascade", seed, [9.1, 8.7, 13.6], description="cascade 8,16,40, prefixes as given"))
        arms.append(arm("placed", seed, [9.2, 8.9, 12.1], layout=2.1, description="placed cascade 8,16,40"))
    arms.append(arm("placed, learning rate 3e-3", 0, [9.9, 9.4, 12.9], layout=2.3, description="placed, fast"))
    arms.append(diverged("placed, learning rate 3e-3", 1, "the loss was not finite at step 120 of stage 2"))
    return results(arms, [paired(seed) for seed in range(seeds)])


def results(arms: list[dict[str, Any]], pairs: list[dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    """A whole file of these arms."""
    return {
        "format": "cascaded-dllm-study/1",
        "name": "tiny-stories (made up)",
        "study": {"name": "tiny-stories", "budget": {"token_forwards": 5_000_000}, "arms": {"flat": {"model": "tiny"}}},
        "command": "cdllm study run tiny-stories --out runs/tiny-stories",
        "versions": {"cascaded_dllm": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "device": "cpu, 2 threads",
        "data": {
            "path": "data/preprocessed/pos/stories_train",
            "fingerprint": "sha256:6a1f0c3be2",
            "num_windows": 20_000,
            "valid": "data/preprocessed/pos/stories_valid",
            "tokenizer": "stories",
            "vocab_size": 240,
        },
        "budget": {"token_forwards": 5_000_000, "split": "equal"},
        "lengths": LENGTHS,
        "truth_nats_per_window": 28.6,
        "reference": {
            "figures": {"generative_ppl_corpus": 6.2, "token_entropy_nats_mean": 3.02, "mauve": None},
            "errors": {"generative_ppl_corpus": 0.1},
        },
        "definitions": {
            "generative_ppl_corpus": "exp(nats of all texts / tokens of all texts) under a judge",
            "token_entropy_nats_mean": "entropy of the tokens of a text under their own frequencies, in nats",
            "mauve": "area under the divergence frontier of texts and reference",
            "accepted_share": "share of the texts that belong to the grammar",
        },
        "arms": arms,
        "paired": pairs or [],
        **changed,
    }


def arm(
    name: str, seed: int, parts: list[float], *, layout: float | None = None, description: str = ""
) -> dict[str, Any]:
    """One arm with one seed, whose stages pay about `parts`."""
    draws = random.Random(f"{name} {seed}")
    parts = [part + draws.gauss(0, 0.05) for part in parts]
    return {
        "arm": name,
        "seed": seed,
        "status": "done",
        "reason": None,
        "description": description,
        "settings": {"model": "tiny", "optim": {"lr": 3e-4}, "stages": len(parts), "seed": seed},
        "runs": [run(name, seed, stage, part, len(parts), draws) for stage, part in enumerate(parts, 1)],
        "bound": bound(parts, layout),
        "sampling": samplings(sum(parts), draws),
        "texts": [text(len(parts), first) for first in range(3)],
    }


def bound(parts: list[float], layout: float | None = None, error: float | None = 0.31) -> dict[str, Any]:
    total = sum(parts)
    stages = [
        {
            "stage": stage,
            "bound_nats_per_window": part,
            "standard_error_nats": error and error / 2,
            "omitted_nats_per_window_at_most": 0.001,
            "unigram_nats_per_window": 3.1 * part,
            **({} if layout is None or stage == 1 else {"layout_nats_per_window": layout}),
        }
        for stage, part in enumerate(parts, 1)
    ]
    return {
        "bound_nats_per_window": total,
        "standard_error_nats": error,
        "bound_nats_per_token": total / LENGTHS[-1],
        "bound_ppl": math.exp(total / LENGTHS[-1]),
        "omitted_nats_per_window_at_most": 0.003,
        "num_windows": 512,
        "length": LENGTHS[-1],
        "num_stages": len(parts),
        "stages": stages,
    }


def run(name: str, seed: int, stage: int, part: float, num_stages: int, draws: random.Random) -> dict[str, Any]:
    """A stage whose loss falls as it is trained, and whose bound falls to `part`."""
    last = 5_000_000 // num_stages
    marks = [round(last * mark / 40) for mark in range(1, 41)]
    return {
        "stage": stage,
        "folder": f"runs/tiny-stories/{name}/{seed}/stage{stage}",
        "num_steps": 400,
        "token_forwards": last,
        "flops": 1.2e12 / num_stages,
        "seconds": 118.0 / num_stages,
        "parameters": 132_000,
        "curve": [[mark, part / 12 + 3 * math.exp(-6 * mark / last) + abs(draws.gauss(0, 0.05))] for mark in marks],
        "bound_curve": [[mark, part * (1 + 1.6 * math.exp(-5 * mark / last))] for mark in marks[3::4]],
    }


def samplings(total: float, draws: random.Random) -> list[dict[str, Any]]:
    """Two ways of drawing with few and with many calls; fewer calls write worse texts."""
    found = []
    for name, nfe in (("first_hitting", 128), ("analytic, 16 steps", 16), ("analytic, 64 steps", 64)):
        loss = 8 / nfe
        figures = {
            "num_texts": 256.0,
            "generative_ppl_corpus": 6.2 + (total - 28.6) * 1.3 + 10 * loss + draws.gauss(0, 0.2),
            "token_entropy_nats_mean": 3.02 - 0.2 * loss + draws.gauss(0, 0.01),
            "accepted_share": max(0.0, 0.9 - (total - 28.6) / 8 - loss + draws.gauss(0, 0.02)),
            "mauve": None,
            "distinct_bigram_share": 0.41 + draws.gauss(0, 0.01),
        }
        found.append(
            {
                "name": name,
                "options": {"predictor": name.split(",")[0]},
                "num_samples": 256,
                "nfe": float(nfe),
                "token_forwards_per_text": 11.7 * nfe,
                "seconds_per_text": nfe * 8e-5 * (1 + draws.random() / 20),
                "figures": figures,
                "errors": {"generative_ppl_corpus": 0.15, "token_entropy_nats_mean": 0.01, "accepted_share": 0.02},
                "folder": f"samples/{name}",
            }
        )
    return found


def text(num_stages: int, first: int) -> list[dict[str, Any]]:
    """A sample whose earlier stages hold every fourth and every second of its words."""
    words = STORY.split()[first : first + 24]
    every = {1: 4, 2: 2, 3: 1} if num_stages == 3 else {1: 1}
    wrote = [min(stage for stage, step in every.items() if place % step == 0) for place in range(len(words))]
    stages = []
    for stage in every:
        pieces = [
            [word if place == 0 else f" {word}", by]
            for place, (word, by) in enumerate(zip(words, wrote, strict=True))
            if by <= stage
        ]
        stages.append({"stage": stage, "text": "".join(piece for piece, _ in pieces), "pieces": pieces})
    return stages


def diverged(name: str, seed: int, reason: str, status: str = "diverged") -> dict[str, Any]:
    """An arm that came to nothing but the beginning of a curve."""
    started = arm(name, seed, [9.9])
    points = [[1000, 4.1], [2000, 3.9], [3000, None]]
    started["runs"][0] |= {"curve": points, "bound_curve": [], "parameters": None}
    return started | {"status": status, "reason": reason, "bound": None, "sampling": [], "texts": []}


def paired(seed: int, one: str = "placed", other: str = "cascade", nats: float = -1.2) -> dict[str, Any]:
    nats += seed * 0.05
    return {"arm": one, "other": other, "seed": seed, "mean_nats_per_window": nats, "standard_error_nats": 0.12}


def write(folder: Path, values: dict[str, Any]) -> Path:
    """`results.json` in `folder`."""
    path = folder / "results.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def read(folder: Path, values: dict[str, Any]) -> Results:
    """The same, read back."""
    return read_results(write(folder, values))
