"""Checkpoints on disk: whole or absent, checksummed, the newest ones kept.

A run folder holds `checkpoints/step_<n>/` with model.safetensors, ema.safetensors, config.json, trainer.pt and, written
last, checksums.json; `checkpoints/latest` is a link to the newest one.
"""

import json
import os
import pickle
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cascaded_dllm.atomic import complete_folder, file_sha256
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.model.integrity import CHECKSUMS, PREFIX, fault, numbered


@dataclass(frozen=True, slots=True)
class TrainerState:
    """Everything besides the weights that a run needs to go on as if it had not stopped.

    Attributes:
        step: optimizer steps done.
        num_steps: optimizer steps of the whole run, as it was planned when they were done.
        ema_updates: updates of the moving average done.
        optimizer: the optimizer's `state_dict`.
        course: the other settings that decide the course of training; a resumed run must have the same.
    """

    step: int
    num_steps: int
    ema_updates: int
    optimizer: dict[str, Any]
    course: dict[str, Any]


def save_checkpoint(
    checkpoints: Path,
    *,
    config_json: str,
    model: dict[str, Tensor],
    ema: dict[str, Tensor],
    state: TrainerState,
    tokenizer_file: Path | None,
    keep: int,
) -> Path:
    """Write `checkpoints/step_<n>`, point `latest` at it and delete all older ones but the newest `keep` - 1.

    A complete checkpoint of the same step is left as it is: it was made by the same run. A damaged one is written
    again; damaged ones of later steps, which a resumed run has passed over, are left until it comes to them.

    Raises:
        OutputExistsError: the folder cannot be written.
    """
    final = checkpoints / f"{PREFIX}{state.step}"
    if final.exists() and fault(final) is not None:
        shutil.rmtree(final)
    if not final.exists():
        with complete_folder(final) as folder:
            save_file({name: tensor.contiguous() for name, tensor in model.items()}, folder / "model.safetensors")
            save_file({name: tensor.contiguous() for name, tensor in ema.items()}, folder / "ema.safetensors")
            (folder / "config.json").write_text(config_json, encoding="utf-8")
            if tokenizer_file is not None:
                shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
            # Not asdict(), which would copy the whole optimizer state.
            content = {field.name: getattr(state, field.name) for field in fields(state)}
            torch.save(content, folder / "trainer.pt")
            sums = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
            (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    _point_latest(checkpoints, final.name)
    for old in [folder for step, folder in numbered(checkpoints) if step <= state.step][:-keep]:
        shutil.rmtree(old)
    return final


def load_trainer_state(checkpoint: Path) -> TrainerState:
    """The trainer state of a checkpoint folder.

    Raises:
        CheckpointError: the file is missing, truncated or foreign.
    """
    path = checkpoint / "trainer.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return TrainerState(*(content[field.name] for field in fields(TrainerState)))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        # Not the text of the error: torch's advises to run whatever the file holds.
        raise CheckpointError(
            f"{path} holds no trainer state ({type(error).__name__}); resume from another checkpoint, or train anew "
            "with another --out"
        ) from error


def _point_latest(checkpoints: Path, name: str) -> None:
    link = checkpoints / f".latest.tmp-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, checkpoints / "latest")
