"""A sampling run on disk: texts of every stage, ids, settings and a summary; complete or absent."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import complete_folder
from cascaded_dllm.errors import OutputExistsError
from cascaded_dllm.sample.cascade import CascadeSamples

SEPARATOR = "=" * 80
"""The line after every sample in the text files."""


def run_folder(output_dir: Path, *, steps: int, length: int) -> Path:
    """Where a run that starts now goes: <output_dir>/sample_cascade_steps_<n>_len_<L>_<time>.

    Raises:
        OutputExistsError: `output_dir` is a file, or the folder is taken.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputExistsError(f"{output_dir} is a file; name a folder for the samples with --output-dir")
    folder = output_dir / f"sample_cascade_steps_{steps}_len_{length}_{time.strftime('%Y%m%d_%H%M%S')}"
    if folder.exists():
        raise OutputExistsError(f"{folder} exists already; wait a second or name another --output-dir")
    return folder


def write_samples(folder: Path, samples: CascadeSamples, summary: Mapping[str, Any]) -> None:
    """Write sample_stage<k>.txt, samples.jsonl and summary.json into a new folder.

    Raises:
        OutputExistsError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise OutputExistsError(f"{folder} exists already and is not overwritten; name another folder")
    with complete_folder(folder, exclusive=True) as temporary:
        for stage, texts in enumerate(samples.texts, start=1):
            content = "".join(f"{text}\n{SEPARATOR}\n" for text in texts)
            (temporary / f"sample_stage{stage}.txt").write_text(content, encoding="utf-8")
        with (temporary / "samples.jsonl").open("w", encoding="utf-8") as file:
            for i in range(len(samples.texts[0])):
                stages = [
                    {"stage": k, "ids": ids[i].tolist(), "text": texts[i]}
                    for k, (ids, texts) in enumerate(zip(samples.ids, samples.texts, strict=True), start=1)
                ]
                file.write(json.dumps({"sample": i, "stages": stages}, ensure_ascii=False) + "\n")
        summary = {**summary, "nfe_per_stage": list(samples.nfe), "token_forwards": samples.token_forwards}
        (temporary / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
