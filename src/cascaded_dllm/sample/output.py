"""A sampling run on disk: texts of every stage, ids, settings and a summary; complete or absent."""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import complete_folder, write_json
from cascaded_dllm.errors import OutputExistsError
from cascaded_dllm.sample.cascade import CascadeSamples
from cascaded_dllm.text.listing import listing


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """Everything that decides the texts of a run, stored with each of them.

    Attributes:
        seed: of all random numbers.
        predictor: how a step is taken.
        num_steps: of the time grid of every stage; None for first hitting, which has none.
        stage_paths: where each stage came from, as it was named.
        stage_lengths: tokens every stage writes.
        weights: ema or raw.
        dtype: of the matrix products of the trunk.
        guidance: weight of classifier-free guidance by the prefixes.
        prefix_noise: probability that a token that a later stage was given was replaced.
    """

    seed: int
    predictor: str
    num_steps: int | None
    stage_paths: tuple[str, ...]
    stage_lengths: tuple[int, ...]
    weights: str = "ema"
    dtype: str = "float32"
    guidance: float = 0.0
    prefix_noise: float = 0.0


def run_folder(output_dir: Path, *, num_steps: int | None, stage_lengths: Sequence[int]) -> Path:
    """Where a run that starts now goes: <output_dir>/sample_cascade_steps_<n>_len_<L>_<time>.

    <n> are the steps of the time grid of every stage or, where there is none, the network calls that a text takes: one
    for every token of every stage.

    Raises:
        OutputExistsError: `output_dir` is a file.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputExistsError(f"{output_dir} is a file; name a folder for the samples with --output-dir")
    steps = sum(stage_lengths) if num_steps is None else num_steps
    name = f"sample_cascade_steps_{steps}_len_{stage_lengths[-1]}_{time.strftime('%Y%m%d_%H%M%S')}"
    # Two runs of one second are told apart by a number.
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(folder for candidate in candidates if not (folder := output_dir / candidate).exists())


def write_samples(folder: Path, samples: CascadeSamples, settings: SampleSettings, summary: Mapping[str, Any]) -> None:
    """Write sample_stage<k>.txt, samples.jsonl and summary.json into a new folder.

    Raises:
        OutputExistsError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise OutputExistsError(f"{folder} exists already and is not overwritten; name another folder")
    with complete_folder(folder, exclusive=True) as temporary:
        for stage, texts in enumerate(samples.texts, start=1):
            (temporary / f"sample_stage{stage}.txt").write_text(listing(texts), encoding="utf-8")
        with (temporary / "samples.jsonl").open("w", encoding="utf-8") as file:
            for i in range(len(samples.texts[0])):
                file.write(json.dumps(_record(i, samples, settings), ensure_ascii=False) + "\n")
        counts = {"nfe_per_stage": list(samples.nfe), "token_forwards": samples.token_forwards}
        content = {**asdict(settings), **summary, **counts}
        (temporary / "summary.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def change_summary(folder: Path, **values: Any) -> None:
    """Put what was found later into the summary of a run, whole or not at all."""
    path = folder / "summary.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


def _record(number: int, samples: CascadeSamples, settings: SampleSettings) -> dict[str, Any]:
    """Everything about one text; with it the text can be drawn again."""
    stages = [
        {"stage": k, "ids": ids[number].tolist(), "text": texts[number]}
        for k, (ids, texts) in enumerate(zip(samples.ids, samples.texts, strict=True), start=1)
    ]
    return {"sample": number, "settings": asdict(settings), "stages": stages}
