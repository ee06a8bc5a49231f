"""The folder of a run: begun, or taken up at its newest complete checkpoint."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from cascaded_dllm.atomic import INCOMPLETE, write_errors, write_text
from cascaded_dllm.errors import CheckpointError, OutputExistsError
from cascaded_dllm.file_names import RUN_CONFIG_FILE
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.run_lock import LOCK_FILE
from cascaded_dllm.train.checkpoint import PARTS, load_trainer_state
from cascaded_dllm.train.provenance import append_start
from cascaded_dllm.train.run_log import METRICS_FILE, forget_after
from cascaded_dllm.train.trainer import Trainer

CHECKPOINTS_FOLDER = "checkpoints"


def require_run_folder(folder: Path) -> None:
    """Makes the folder, or sees that what is there is a run, or nothing.

    Raises:
        OutputExistsError: it holds something else, or cannot be made.
    """
    if is_foreign(folder, RUN_CONFIG_FILE):
        raise OutputExistsError(
            f"{folder} exists and is no run folder; name an empty or a new one with --out (run_dir)"
        )
    with write_errors(f"{folder} cannot be made", "name a folder that is yours to write with --out (run_dir)"):
        folder.mkdir(parents=True, exist_ok=True)


def is_foreign(folder: Path, marker: str) -> bool:
    """Whether a folder is there and holds something, but not the file `marker` that is ours."""
    if (folder / marker).exists() or not folder.exists():
        return False
    # What a run leaves that was killed while it began is nothing.
    names = (path.name for path in folder.glob("*"))
    return not folder.is_dir() or any(name != LOCK_FILE and not name.startswith(INCOMPLETE) for name in names)


def newest_start(folder: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from, None for a run that starts, and what is wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints and none of them is complete.
    """
    if not (folder / RUN_CONFIG_FILE).exists():
        return None, []
    checkpoint, faults = newest_complete(folder / CHECKPOINTS_FOLDER)
    if checkpoint is None and faults:
        raise CheckpointError(
            f"no checkpoint in {folder / CHECKPOINTS_FOLDER} is complete ({'; '.join(faults)}); remove the folder to "
            "start again"
        )
    return checkpoint, faults


def record_start(folder: Path, *, config: Mapping[str, Any], provenance: Mapping[str, Any], step: int) -> None:
    """The folder as it is when a run of these settings has done `step` steps, and one more start in its record.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    is_new = not (folder / RUN_CONFIG_FILE).exists()
    write_text(folder / RUN_CONFIG_FILE, yaml.safe_dump(dict(config), sort_keys=False))
    if step > 0:
        forget_after(folder, step)
    elif not is_new:
        _put_metrics_aside(folder)
    append_start(folder, provenance, step=step)


def _put_metrics_aside(folder: Path) -> None:
    """Keeps the numbers of a run that ended before its first checkpoint, beside those of the one that begins again."""
    metrics = folder / METRICS_FILE
    if not metrics.is_file() or metrics.stat().st_size == 0:
        return
    number = next(number for number in itertools.count(1) if not _aside(folder, number).exists())
    metrics.rename(_aside(folder, number))


def _aside(folder: Path, number: int) -> Path:
    return folder / f"{Path(METRICS_FILE).stem}_before_{number}{Path(METRICS_FILE).suffix}"


def take_up(checkpoint: Path, trainer: Trainer) -> None:
    """The trainer goes on from a checkpoint.

    Raises:
        CheckpointError: the checkpoint has other settings, or does not fit the network.
    """
    weights, ema = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "ema"))
    parts = checkpoint / PARTS
    trainer.restore(
        load_trainer_state(checkpoint),
        weights=weights,
        ema=ema,
        source=str(checkpoint),
        parts=parts if parts.is_dir() else None,
    )
