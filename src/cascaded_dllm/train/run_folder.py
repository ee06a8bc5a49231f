"""The folder of a run, which a start creates or resumes from its newest complete checkpoint."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from cascaded_dllm.atomic import INCOMPLETE, require_creatable, write_text
from cascaded_dllm.errors import CheckpointError, OutputError
from cascaded_dllm.file_names import RUN_CONFIG_FILE
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.model.stage_settings import WEIGHTS_FILES
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.run_lock import LOCK_FILE
from cascaded_dllm.train.checkpoint import PARTS, load_trainer_state
from cascaded_dllm.train.metrics_file import METRICS_FILE, forget_after
from cascaded_dllm.train.provenance import append_start
from cascaded_dllm.train.trainer import Trainer

CHECKPOINTS_FOLDER = "checkpoints"
_REMEDY = "use --out (run_dir) to name a folder that you may write to"


def make_run_folder(folder: Path) -> None:
    """Makes the folder, or checks that it is empty or a run folder.

    Raises:
        OutputError: it holds something else, or cannot be made or written.
    """
    require_run_folder(folder)
    with write_errors(f"{folder} cannot be written", _REMEDY):
        folder.mkdir(parents=True, exist_ok=True)


def require_run_folder(folder: Path) -> None:
    """Checks that the folder is empty, absent, or a run folder, and can be made or written; changes nothing.

    Raises:
        OutputError: it holds something else, or cannot be written.
    """
    if is_foreign(folder, RUN_CONFIG_FILE):
        raise OutputError(f"{folder} exists and is not a run folder; name an empty or a new one with --out (run_dir)")
    require_creatable(folder, f"{folder} cannot be written", _REMEDY)


def is_foreign(folder: Path, marker: str) -> bool:
    """Whether something is at the path `folder` that is neither an empty folder nor one with the file `marker`."""
    if (folder / marker).exists() or not folder.exists():
        return False
    # A run that was killed while it began leaves its lock and incomplete files, which do not count.
    names = (path.name for path in folder.glob("*"))
    return not folder.is_dir() or any(name != LOCK_FILE and not name.startswith(INCOMPLETE) for name in names)


def newest_start(folder: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from (None for a new run), and what is wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints, and none of them is complete.
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
    """Write the settings, drop the metrics of steps after `step`, and add this start to the record.

    A run that begins again at step 0 puts the metrics of its earlier attempt aside.

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
    """Renames the metrics of a run that ended before its first checkpoint, to keep them beside the new ones."""
    metrics = folder / METRICS_FILE
    if not metrics.is_file() or metrics.stat().st_size == 0:
        return
    number = next(number for number in itertools.count(1) if not _aside(folder, number).exists())
    metrics.rename(_aside(folder, number))


def _aside(folder: Path, number: int) -> Path:
    return folder / f"{Path(METRICS_FILE).stem}_before_{number}{Path(METRICS_FILE).suffix}"


def restore_from(checkpoint: Path, trainer: Trainer) -> None:
    """Restore `trainer` from a checkpoint.

    Raises:
        CheckpointError: the checkpoint has other settings, or does not fit the network.
    """
    weights, ema = (load_file(checkpoint / name) for name in (WEIGHTS_FILES["raw"], WEIGHTS_FILES["ema"]))
    parts = checkpoint / PARTS
    trainer.restore(
        load_trainer_state(checkpoint),
        weights=weights,
        ema=ema,
        source=str(checkpoint),
        parts=parts if parts.is_dir() else None,
    )
