"""Checkpoint folders of three formats: the settings are read first, the weights only when they are needed.

Reading weights never runs code from the file.
"""

import functools
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.file_names import BUNDLE_FILE
from cascaded_dllm.model.integrity import CHECKSUMS, checkpoint_fault
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.stage_settings import FORMAT, WEIGHTS_FILES, StageSettings, Weights

_ORIGINAL_SETTINGS = Path(".hydra", "config.yaml")


@dataclass(frozen=True, slots=True)
class StoredStage:
    """A checkpoint whose weights have not been read.

    Attributes:
        folder: the checkpoint's folder.
        settings: the settings that it stores.
        read_weights: reads the averaged or the raw weights; raises CheckpointError if they are damaged or missing.
    """

    folder: Path
    settings: StageSettings
    read_weights: Callable[[Weights], Mapping[str, Tensor]]


def open_stage(folder: Path) -> StoredStage:
    """The checkpoint in a folder: of this package, of SEDD, or a run folder of the original code.

    Raises:
        CheckpointError: it is none of them, or its settings are damaged.
    """
    if (folder / _ORIGINAL_SETTINGS).is_file():
        path = folder / "checkpoints-meta" / "checkpoint.pth"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; an original run folder keeps its weights there")
        settings = _settings_of_original_run(folder / _ORIGINAL_SETTINGS)
        return StoredStage(folder, settings, functools.partial(_weights_of_original_run, path))
    if (folder / "config.json").is_file():
        config = _read_json(folder / "config.json")
        if config.get("format") == FORMAT:
            return StoredStage(folder, _own_settings(folder, config), functools.partial(_own_weights, folder))
        if "tokens" in config and "graph" in config:
            settings = _settings_of_sedd(config, folder / "config.json")
            return StoredStage(folder, settings, lambda _: _read_safetensors(folder / "model.safetensors"))
        raise CheckpointError(
            f"{folder / 'config.json'} describes neither a checkpoint of this package nor a SEDD model (its keys "
            f"are {sorted(config)[:8]}); give a folder that `cdllm train` wrote or a SEDD folder or hub id"
        )
    if (folder / BUNDLE_FILE).is_file():
        raise CheckpointError(
            f"{folder} is a bundle of all stages, and one stage is asked for; give the bundle alone (--cascade), or "
            "its folder stage_<k>"
        )
    raise CheckpointError(
        f"{folder} is not a checkpoint: it has neither config.json nor checkpoints/latest nor .hydra/config.yaml; "
        "give a run folder, one of its checkpoints/step_<n>, or a hub id"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); the checkpoint is damaged, use another") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of settings; use another checkpoint")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise _missing(path)
    try:
        return load_file(path)
    except RuntimeError as error:
        # A run that is going on may have deleted it since; the library has no type of its own for that.
        if path.is_file():
            raise
        raise _missing(path) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}); use another checkpoint"
        ) from error


def _missing(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is missing; the checkpoint is incomplete, use another")


def _own_settings(folder: Path, config: Mapping[str, Any]) -> StageSettings:
    try:
        settings = StageSettings.from_dict(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} lacks or misstates {error}; the checkpoint is damaged, use another"
        ) from error
    _require_fitting_layout(settings, folder)
    return settings


def _own_weights(folder: Path, weights: Weights) -> dict[str, Tensor]:
    """Weights of a checkpoint of this package; if it stores checksums, they must match."""
    if (folder / CHECKSUMS).is_file() and (found := checkpoint_fault(folder)) is not None:
        raise CheckpointError(f"{folder} is damaged: {found}; use another checkpoint of the run")
    path = folder / WEIGHTS_FILES[weights]
    if not path.is_file() and (folder.parent / BUNDLE_FILE).is_file():
        other = "raw" if weights == "ema" else "ema"
        raise CheckpointError(
            f"{folder} belongs to a bundle, which holds one set of weights, and has no {path.name}; load it with "
            f"weights={other!r}"
        )
    return _read_safetensors(path)


def _require_fitting_layout(settings: StageSettings, folder: Path) -> None:
    """Checks that a layout network is for the lengths of its stage, which its weights do not show.

    Raises:
        CheckpointError: it is for other lengths.
    """
    layout, number = settings.layout, settings.stage
    if layout is None:
        return
    known = settings.stage_lengths[number - 2 : number] if number > 1 else ()
    if len(known) != 2 or (layout.num_tokens, layout.num_tokens + layout.num_new) != tuple(known):
        raise CheckpointError(
            f"{folder / 'config.json'} has a layout of {layout.num_tokens} tokens in "
            f"{layout.num_tokens + layout.num_new}, and is stage {number} of lengths {list(settings.stage_lengths)}; "
            "the checkpoint is damaged, use another"
        )


def _settings_of_sedd(config: Mapping[str, Any], path: Path) -> StageSettings:
    """The settings in a configuration of SEDD or of the original cascade code, which share their keys."""
    processes = {"absorb": "absorbing", "uniform": "uniform"}
    try:
        model, noise, process = config["model"], {**config["noise"]}, processes[config["graph"]["type"]]
        if noise["type"] == "loglinear":
            noise = {"type": "loglinear"}
        lengths = config.get("target_lens", {})
        return StageSettings(
            model=ScoreModelConfig(
                vocab_size=config["tokens"],
                process=process,  # type: ignore[arg-type]
                hidden_size=model["hidden_size"],
                num_heads=model["n_heads"],
                num_blocks=model["n_blocks"],
                cond_dim=model["cond_dim"],
                dropout=model["dropout"],
                scale_by_sigma=model["scale_by_sigma"],
            ),
            noise=noise,
            stage=0 if config.get("baseline") else config.get("stage", 0),
            stage_lengths=tuple(lengths[f"stage{k}"] for k in range(1, len(lengths) + 1)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the SEDD configuration {path} lacks or misstates {error}; it needs tokens, graph.type (absorb or "
            "uniform), noise.type and the model's sizes"
        ) from error


def _settings_of_original_run(path: Path) -> StageSettings:
    """The settings in the Hydra configuration of a run folder of the original code."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not valid YAML ({reason}); use another run folder") from error
    return _settings_of_sedd(config, path)


def _weights_of_original_run(path: Path, weights: Weights) -> dict[str, Tensor]:
    """The pickled checkpoint of a run folder of the original code, read as data only."""
    # torch.load raises errors of many types for other files, so they are recognised first.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or not a file of torch.save; use another run folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state, shadow = checkpoint["model"], checkpoint["ema"]["shadow_params"]
        # The average is stored as a bare list in the order of the parameters; buffers have no entry.
        names = [name for name in state if not name.endswith("rotary_emb.inv_freq")]
    except pickle.UnpicklingError as error:
        # The text of torch's error is left out: it recommends loading the file all the same.
        raise CheckpointError(
            f"{path} is damaged, or holds objects whose loading would run code from the file; nothing was run, "
            "use another run folder"
        ) from error
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint of the original code ({type(error).__name__}); use another run "
            "folder"
        ) from error
    if weights == "ema":
        if len(names) != len(shadow):
            raise CheckpointError(
                f"{path} averages {len(shadow)} tensors of a network that has {len(names)}; load it with weights='raw'"
            )
        state = {**state, **dict(zip(names, shadow, strict=True))}
    return dict(state)
