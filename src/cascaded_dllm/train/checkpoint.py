"""Checkpoints on disk: complete or absent, with checksums; old ones are deleted.

A run folder holds `checkpoints/step_<n>/` with model.safetensors, ema.safetensors, config.json, trainer.pt and, written
last, checksums.json; `checkpoints/latest` is a link to the newest one. If the optimizer is split over processes, its
moments are in the subfolder optimizer/, in the format of torch.distributed.checkpoint.
"""

import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cascaded_dllm.atomic import INCOMPLETE, complete_folder, write_link
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.model.disk_errors import disk_errors
from cascaded_dllm.model.integrity import STEP_PREFIX, checkpoint_fault, numbered, write_checksums
from cascaded_dllm.model.stage_settings import WEIGHTS_FILES
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.train.deletion import Deletion

PARTS = "optimizer"
"""Subfolder for moments that are split over processes; any number of processes can read it."""

_PARTS_BESIDE = f"{INCOMPLETE}{PARTS}-"


@dataclass(frozen=True, slots=True)
class TrainerState:
    """Everything besides the weights that a run needs to go on as if it had not stopped.

    Attributes:
        step: optimizer steps done.
        num_steps: optimizer steps of the whole run, as planned when the checkpoint was made.
        ema_updates: updates of the moving average done.
        optimizer: the optimizer's `state_dict`, without its moments if these are split over processes.
        course: the other settings that decide the course of training; a resumed run must have the same.
        losses: losses of the steps since the last line of metrics; empty for a checkpoint that was written before this
            field existed.
    """

    step: int
    num_steps: int
    ema_updates: int
    optimizer: dict[str, Any]
    course: dict[str, Any]
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCopy:
    """The content of a checkpoint, copied into the memory of the host so that training can go on while it is written.

    Attributes:
        model: the weights; empty in processes that do not write them.
        ema: the averaged weights; empty in processes that do not write them.
        state: the rest, without the moments of the optimizer if these are in `parts`.
        parts: this process's parts of the moments if these are split over processes; otherwise empty.
    """

    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    state: TrainerState
    parts: dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Which checkpoints of a run are kept.

    Attributes:
        newest: how many of the newest ones.
        every: checkpoints whose step is a multiple of this are kept for good; None for no such rule.
    """

    newest: int
    every: int | None = None


def save_checkpoint(
    checkpoints: Path,
    *,
    config_json: str,
    content: HostCopy,
    tokenizer_file: Path | None,
    keeping: Keeping,
    deletion: Deletion,
    parts_folder: Path | None = None,
    parts_sums: Mapping[str, str] | None = None,
) -> Path:
    """Write `checkpoints/step_<n>`, point `latest` at it and delete older ones that are not to be kept.

    A complete checkpoint of the same step is left as it is, since the same run made it. A damaged one is written again.
    Damaged ones of later steps, which a resumed run has passed over, are left until the run reaches these steps.

    Args:
        checkpoints: folder of all checkpoints of the run.
        config_json: text of `config.json`.
        content: what the checkpoint holds.
        tokenizer_file: copied into the checkpoint.
        keeping: which checkpoints are kept.
        deletion: deletes the others. A failure to delete is recorded there and is not an error.
        parts_folder: where all processes have put the split moments; it is moved into the checkpoint.
        parts_sums: known checksums of its files, by file name.

    Raises:
        OutputError: the folder cannot be written.
    """
    step = content.state.step
    final = checkpoints / f"{STEP_PREFIX}{step}"
    if final.exists() and checkpoint_fault(final) is not None:
        _make_way(final, deletion)
    if not final.exists():
        with complete_folder(final) as folder, disk_errors():
            save_file(_contiguous(content.model), folder / WEIGHTS_FILES["raw"])
            save_file(_contiguous(content.ema), folder / WEIGHTS_FILES["ema"])
            (folder / "config.json").write_text(config_json, encoding="utf-8")
            if tokenizer_file is not None:
                shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
            # Not asdict(), which would copy the whole optimizer state.
            fields_by_name = {field.name: getattr(content.state, field.name) for field in fields(content.state)}
            with (folder / "trainer.pt").open("wb") as file:
                torch.save(fields_by_name, file)
            if parts_folder is not None:
                parts_folder.rename(folder / PARTS)
            known = {f"{PARTS}/{name}": value for name, value in (parts_sums or {}).items()}
            write_checksums(folder, known)
    write_link(checkpoints / "latest", final.name)
    _delete_older(checkpoints, step, keeping, deletion)
    return final


def parts_beside(checkpoints: Path, step: int) -> Path:
    """The folder into which processes write their parts of a checkpoint before it is complete."""
    return checkpoints / f"{_PARTS_BESIDE}{step}"


def load_trainer_state(checkpoint: Path) -> TrainerState:
    """The trainer state of a checkpoint folder.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    path = checkpoint / "trainer.pt"
    try:
        content = {"losses": []} | torch.load(path, map_location="cpu", weights_only=True)
        return TrainerState(*(content[field.name] for field in fields(TrainerState)))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        # The text of torch's error is left out: it recommends loading the file all the same, whatever it runs.
        raise CheckpointError(
            f"{path} holds no trainer state ({type(error).__name__}); resume from another checkpoint, or train anew "
            "with another --out"
        ) from error


def _make_way(damaged: Path, deletion: Deletion) -> None:
    with write_errors(
        f"{damaged} is damaged and cannot be written again",
        "make sure that you may write to its folder, and give the same command again",
    ):
        deletion.mark_deleted(damaged)


def _delete_older(checkpoints: Path, step: int, keeping: Keeping, deletion: Deletion) -> None:
    older = [(number, folder) for number, folder in numbered(checkpoints) if number <= step][: -keeping.newest]
    for number, folder in older:
        if keeping.every is None or number % keeping.every:
            deletion.delete(folder)
    # This process is not writing now, but others of the run may have begun to write parts of the next checkpoint.
    deletion.delete_incomplete(lambda path: _step_of_parts(path) > step)


def _step_of_parts(path: Path) -> int:
    """The step of a folder that `parts_beside` names; -1 for any other path."""
    number = path.name.removeprefix(_PARTS_BESIDE)
    return int(number) if path.name.startswith(_PARTS_BESIDE) and number.isdecimal() else -1


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
