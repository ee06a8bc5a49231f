"""Checkpoints on disk: whole or absent, checksummed, the newest ones kept.

A run folder holds `checkpoints/step_<n>/` with model.safetensors, ema.safetensors, config.json, trainer.pt and, written
last, checksums.json; `checkpoints/latest` is a link to the newest one.
"""

import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cascaded_dllm.data.atomic import complete_folder, file_sha256
from cascaded_dllm.errors import CheckpointError

_CHECKSUMS = "checksums.json"
_PREFIX = "step_"


@dataclass(frozen=True, slots=True)
class TrainerState:
    """Everything besides the weights that a run needs to go on as if it had not stopped.

    Attributes:
        step: optimizer steps done.
        ema_updates: updates of the moving average done.
        optimizer: the optimizer's `state_dict`.
        fingerprint: of the settings that decide the course of training; a resumed run must have the same.
    """

    step: int
    ema_updates: int
    optimizer: dict[str, Any]
    fingerprint: str


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
    """Write `checkpoints/step_<n>`, point `latest` at it and delete all but the newest `keep`.

    A checkpoint of the same step is left as it is: it was made by the same run.

    Raises:
        OutputExistsError: the folder cannot be written.
    """
    final = checkpoints / f"{_PREFIX}{state.step}"
    if not final.exists():
        with complete_folder(final) as folder:
            save_file({name: tensor.contiguous() for name, tensor in model.items()}, folder / "model.safetensors")
            save_file({name: tensor.contiguous() for name, tensor in ema.items()}, folder / "ema.safetensors")
            (folder / "config.json").write_text(config_json, encoding="utf-8")
            if tokenizer_file is not None:
                shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
            torch.save(asdict(state), folder / "trainer.pt")
            sums = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
            (folder / _CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    _point_latest(checkpoints, final.name)
    for _, old in _numbered(checkpoints)[:-keep]:
        shutil.rmtree(old)
    return final


def newest_complete(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files have the recorded checksums, and what was wrong with each newer one."""
    faults: list[str] = []
    for _, folder in reversed(_numbered(checkpoints)):
        fault = _fault(folder)
        if fault is None:
            return folder, faults
        faults.append(f"{folder}: {fault}")
    return None, faults


def load_trainer_state(checkpoint: Path) -> TrainerState:
    """The trainer state of a checkpoint folder.

    Raises:
        CheckpointError: the file is missing, truncated or foreign.
    """
    path = checkpoint / "trainer.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return TrainerState(content["step"], content["ema_updates"], content["optimizer"], content["fingerprint"])
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds no trainer state ({type(error).__name__}: {error}); resume from another checkpoint"
        ) from error


def _numbered(checkpoints: Path) -> list[tuple[int, Path]]:
    """Checkpoint folders by rising step; temporary ones have another name and are never listed."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if path.name.startswith(_PREFIX) and path.is_dir()]
    return sorted((int(path.name.removeprefix(_PREFIX)), path) for path in found)


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{_CHECKSUMS} cannot be read ({type(error).__name__})"
    for name, expected in sums.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_sha256(folder / name) != expected:
            return f"{name} does not have its recorded checksum"
    return None


def _point_latest(checkpoints: Path, name: str) -> None:
    link = checkpoints / f".latest.tmp-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, checkpoints / "latest")
