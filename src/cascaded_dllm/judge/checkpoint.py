"""Checkpoints of a judge in training: complete or absent, checksummed, only the newest one kept.

Each is itself a judge and can be loaded as one.
"""

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from cascaded_dllm.atomic import complete_folder
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.judge.network import load_weights, save_network
from cascaded_dllm.judge.trainer import JudgeTrainer
from cascaded_dllm.model.disk_errors import disk_errors
from cascaded_dllm.model.integrity import STEP_PREFIX, checkpoint_fault, newest_complete, numbered, write_checksums

STATE_FILE = "trainer.pt"


def save_judge_checkpoint(checkpoints: Path, trainer: JudgeTrainer, tokenizer_file: Path) -> Path:
    """Writes the folder `checkpoints/step_<n>`, removes older ones, and returns it.

    Raises:
        OutputError: it cannot be written.
    """
    final = checkpoints / f"{STEP_PREFIX}{trainer.step}"
    if final.exists() and checkpoint_fault(final) is not None:
        shutil.rmtree(final, ignore_errors=True)
    if not final.exists():
        with complete_folder(final) as folder, disk_errors():
            save_network(trainer.network, tokenizer_file, folder)
            state = {"optimizer": trainer.optimizer.state_dict(), "losses": trainer.losses}
            with (folder / STATE_FILE).open("wb") as file:
                torch.save(state, file)
            write_checksums(folder)
    for step, folder in numbered(checkpoints):
        if step < trainer.step:
            shutil.rmtree(folder, ignore_errors=True)
    return final


def restore_newest(checkpoints: Path, trainer: JudgeTrainer) -> list[str]:
    """Restores the newest complete checkpoint, if there is one; returns what is wrong with each newer one.

    Raises:
        CheckpointError: there are checkpoints and none of them is complete, or the newest complete one is foreign.
    """
    folder, faults = newest_complete(checkpoints)
    if folder is None:
        if faults:
            raise CheckpointError(
                f"no checkpoint in {checkpoints} is complete ({'; '.join(faults)}); remove {checkpoints.parent} to "
                "start again"
            )
        return []
    state = _state(folder / STATE_FILE)
    load_weights(trainer.network, folder)
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.losses = list(state["losses"])
    return faults


def _state(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: content[name] for name in ("optimizer", "losses")}
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not hold the state of a judge in training ({type(error).__name__}); remove {path.parents[2]} "
            "to start again, or give another --out"
        ) from error
