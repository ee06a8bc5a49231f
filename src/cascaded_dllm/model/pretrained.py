"""Loading checkpoints: of this package, of SEDD (on the hub or in a folder), and run folders of the original code.

Weights must match the network by name and shape; an error lists every mismatch.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import CheckpointError, DamagedCheckpointWarning
from cascaded_dllm.file_names import RUN_CONFIG_FILE, TOKENIZER_FILE
from cascaded_dllm.model.hub_folder import hub_folder
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.model.placed import new_model
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import WEIGHTS_FILES, StageSettings, Weights
from cascaded_dllm.model.stored_stage import open_stage

T = TypeVar("T")

_DEAD_PREFIX = "prediction_head."
"""What the names of unused weights of the original code begin with."""


@dataclass(frozen=True, slots=True)
class PretrainedStage:
    """A network with its weights and the settings in its checkpoint.

    Attributes:
        model: the network, in evaluation mode.
        settings: the settings in the checkpoint.
        folder: the checkpoint's folder.
        tokenizer_path: the tokenizer file beside the weights; None if there is none.
        passed_over: for every newer, damaged checkpoint of the same run, what is wrong with it.
    """

    model: ScoreModel
    settings: StageSettings
    folder: Path
    tokenizer_path: Path | None
    passed_over: tuple[str, ...]


def load_stage(source: str | Path, *, weights: Weights = "ema") -> PretrainedStage:
    """One stage from a checkpoint folder, a run folder, a SEDD folder, an original run folder or a hub id.

    Raises:
        CheckpointError: nothing is there, a file is truncated or of another kind, or weights do not match.
        ConfigError: `weights` is neither ema nor raw.
    """
    one_of("weights", weights, WEIGHTS_FILES)
    return _read(source, functools.partial(_loaded, weights))


def _loaded(weights: Weights, folder: Path, passed_over: Sequence[str]) -> PretrainedStage:
    stored = open_stage(folder)
    state = stored.read_weights(weights)
    model = new_model(stored.settings.model, stored.settings.layout)
    load_weights(model, state, source=str(folder))
    tokenizer = folder / TOKENIZER_FILE
    found = tokenizer if tokenizer.is_file() else None
    if found is None and not folder.is_dir():
        raise CheckpointError(
            f"{folder} was deleted while it was read; give another checkpoint, or the folder of its run"
        )
    return PretrainedStage(model.eval(), stored.settings, folder, found, tuple(passed_over))


def read_settings(source: str | Path) -> StageSettings:
    """The settings in the checkpoint that `load_stage` would load, without reading the weights.

    Raises:
        CheckpointError: nothing is there, or its settings are damaged or of another kind.
    """
    return _read(source, lambda folder, _: open_stage(folder).settings)


def warn_of_damaged(faults: Iterable[str]) -> None:
    """Warns of damaged checkpoints that were passed over; the warning points at the caller's caller."""
    for damage in faults:
        warnings.warn(f"passed over a damaged checkpoint: {damage}", DamagedCheckpointWarning, stacklevel=3)


def load_weights(model: ScoreModel, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `state` into `model`; every name and every shape must match.

    Raises:
        CheckpointError: names are missing, unexpected or have another shape, or numbers are not finite; all are listed.
    """
    model.load_state_dict(matching_weights(model, state, source=source))


def matching_weights(model: ScoreModel, state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """`state` under the names of `model`; every name and every shape must match.

    Raises:
        CheckpointError: names are missing, unexpected or have another shape, or numbers are not finite; all are listed.
    """
    wanted = model.state_dict()
    found = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(_DEAD_PREFIX)}
    faults = [f"missing {name}" for name in wanted if name not in found]
    faults += [f"unexpected {name}" for name in found if name not in wanted]
    faults += [
        f"{name} has shape {tuple(found[name].shape)} and should have {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if faults:
        raise CheckpointError(
            f"the weights in {source} do not fit the network: {'; '.join(faults)}; "
            "give the checkpoint that belongs to this configuration"
        )
    require_finite_weights(found, source=source)
    return found


def require_finite_weights(weights: Mapping[str, Tensor], *, source: str) -> None:
    """Checks that weights are finite, since training and sampling would go on with any numbers.

    Raises:
        CheckpointError: some are NaN or infinite; every tensor that holds such a number is listed.
    """
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"weights in {source} are NaN or infinite: {', '.join(broken)}; give an earlier checkpoint, or one of "
            "another run"
        )


def _read(source: str | Path, read: Callable[[Path, Sequence[str]], T]) -> T:
    """What `read` makes of `_local_folder(source)`; it reads the next one if a run deletes the checkpoint meanwhile.

    A run that is going on deletes an old checkpoint when a newer one is complete.
    """
    while True:
        folder, passed_over = _local_folder(source)
        try:
            return read(folder, passed_over)
        except (CheckpointError, OSError):
            if folder.is_dir() or folder == Path(source):
                raise


def _local_folder(source: str | Path) -> tuple[Path, list[str]]:
    """The folder that holds the checkpoint, and what is wrong with newer, damaged checkpoints of the same run.

    For a run folder it is the newest complete checkpoint. A hub id is looked up in the local cache first.
    """
    folder = Path(source)
    if folder.is_dir():
        is_new_run = (folder / RUN_CONFIG_FILE).is_file() and not (folder / "config.json").exists()
        if not (folder / "checkpoints").is_dir() and not is_new_run:
            return folder, []
        newest, faults = newest_complete(folder / "checkpoints")
        if newest is None and not faults:
            raise CheckpointError(
                f"{folder} is a run that has no checkpoint yet: the first one is written after training.snapshot_every "
                "steps, or when the run is stopped with Ctrl-C; give the command that started it again, or wait"
            )
        if newest is None:
            raise CheckpointError(
                f"{folder} has no complete checkpoint ({'; '.join(faults)}); give another run, or train this one anew"
            )
        return newest, faults
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; give the folder that holds config.json and model.safetensors")
    return hub_folder(str(source)), []
