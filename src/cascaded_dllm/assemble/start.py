"""The start of a run: weights of another model, viewers of its metrics, and the record of what it was made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.model.integrity import numbered
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.warm_start import start_from
from cascaded_dllm.train.provenance import device_facts
from cascaded_dllm.train.run_folder import CHECKPOINTS_FOLDER
from cascaded_dllm.train.run_log import LogChoice


def starts_from_another(config: TrainConfig, folder: Path) -> bool:
    """Whether a run starts with the weights of another model.

    A run that has checkpoints continues from its own weights and no longer needs those that it started from.
    """
    return config.pretrained.use_pretrained and not numbered(folder / CHECKPOINTS_FOLDER)


def start_of_run(config: TrainConfig, model: ScoreModel, arrays: StageArrays, folder: Path) -> dict[str, Any] | None:
    """Loads the weights of another model into the network, if the run starts from them, and returns which they are."""
    choice = config.pretrained
    if not starts_from_another(config, folder):
        return None
    stage = start_from(choice.model_path, model, weights=choice.weights, tokenizer=arrays.tokenizer)  # type: ignore[arg-type]
    return {
        "folder": str(stage.folder),
        "weights": choice.weights,
        "stage": stage.settings.stage,
        "step": stage.settings.step,
        "passed_over": list(stage.passed_over),
    }


def log_choice(config: TrainConfig) -> LogChoice:
    """The viewers of the metrics; the name of the run is empty unless it is configured."""
    settings = config.logging
    return LogChoice(
        wandb=settings.wandb,
        project=settings.project,
        name=settings.name or "",
        tensorboard=settings.tensorboard,
    )


def provenance(
    config: TrainConfig,
    arrays: StageArrays,
    valid: StageArrays | None,
    device: torch.device,
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a run is made from, for its record.

    Args:
        config: of the run.
        arrays: the windows to train on.
        valid: the windows to measure on, or None.
        device: on which it trains.
        start: the weights that it started from; None for random ones or its own.
    """
    return {
        "start": start,
        "device": device_facts(device),
        "data": {
            "path": config.data.path,
            "fingerprint": arrays.fingerprint,
            "method": arrays.method,
            "scorer": arrays.scorer,
            **_counts(arrays),
            "valid": config.data.valid,
            "valid_windows": None if valid is None else _counts(valid),
        },
        "tokenizer": {"fingerprint": arrays.tokenizer, "vocab_size": arrays.vocab_size},
        "config": plain(config.to_dict()),
    }


def _counts(arrays: StageArrays) -> dict[str, Any]:
    """The number of windows, and how much of the text is in none of them, by reason."""
    return {"num_windows": arrays.num_windows, "dropped": arrays.dropped}


def stored_config(config: TrainConfig) -> dict[str, Any]:
    """The content of config.yaml, with absolute folders, so that the run can be resumed from any working directory.

    Ids of the hub are kept, and so is `pretrained.model_path`: it decides the course of the run, and is not read again
    once there is a checkpoint.
    """
    settings: dict[str, Any] = plain(config.to_dict())
    data, generated = settings["data"], settings["training"]["generated_prefix"]
    for key in ("path", "valid", "stages_dir"):
        data[key] = None if data[key] is None else str(Path(data[key]).absolute())
    for group, key in ((settings, "stage1_root_dir"), (settings, "stage2_root_dir"), (settings["evaluation"], "judge")):
        group[key] = None if group[key] is None else _where_it_is(group[key])
    for group, key in ((settings, "earlier_stages"), (generated, "stage_paths")):
        group[key] = [_where_it_is(name) for name in group[key]]
    return settings


def _where_it_is(name: str) -> str:
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def plain(settings: dict[str, object]) -> dict[str, object]:
    """`settings` with lists instead of tuples, as in YAML and JSON."""
    return dict(json.loads(json.dumps(settings)))
