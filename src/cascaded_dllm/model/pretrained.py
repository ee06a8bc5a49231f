"""Checkpoints of every origin: this package's, SEDD's on the hub or in a folder, and run folders of the original code.

Weights are read without executing anything from the file, matched strictly, and every mismatch is listed.
"""

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cascaded_dllm.errors import CheckpointError, ConfigError, DamagedCheckpointWarning
from cascaded_dllm.file_names import BUNDLE_FILE, RUN_CONFIG_FILE, TOKENIZER_FILE
from cascaded_dllm.model.hub_folder import hub_folder
from cascaded_dllm.model.integrity import CHECKSUMS, fault, newest_complete
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import new_model
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel

FORMAT = "cascaded-dllm/1"
"""Written into the `config.json` of every checkpoint of this package."""

Weights = Literal["ema", "raw"]

WEIGHTS_FILES: Mapping[Weights, str] = {"ema": "ema.safetensors", "raw": "model.safetensors"}
"""Where a checkpoint of this package keeps them."""

_DEAD_PREFIX = "prediction_head."
"""Weights of the original code that nothing reads."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What a checkpoint says besides its weights.

    Attributes:
        model: the network.
        noise: settings of the schedule, `type` and its numbers.
        stage: 1..K, or 0 for a flat model.
        stage_lengths: lengths of all stages of the cascade it belongs to; empty if unknown, as for a SEDD model.
        tokenizer: fingerprint of the tokenizer; empty if unknown.
        packing: how documents were cut into the windows it was trained on, see `data.windows`; empty if unknown.
        unique: whether shortened stages kept a token id once.
        method: of importance, by which the stages were chosen; empty if unknown.
        step: optimizer steps done.
        prefix: what was done to its prefixes in training.
        layout: the layout network beside it; None if the stage is not a placed one.
    """

    model: ScoreModelConfig
    noise: Mapping[str, Any]
    stage: int
    stage_lengths: tuple[int, ...] = ()
    tokenizer: str = ""
    packing: str = ""
    unique: bool = True
    method: str = ""
    step: int = 0
    prefix: PrefixSettings = TRUE_PREFIXES
    layout: LayoutConfig | None = None

    def at_step(self, step: int) -> "StageSettings":
        """The same settings after `step` optimizer steps."""
        return replace(self, step=step)

    def to_json(self) -> str:
        """The text of `config.json`."""
        settings = {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "noise": dict(self.noise),
            "stage": self.stage,
            "stage_lengths": list(self.stage_lengths),
            "tokenizer": self.tokenizer,
            "packing": self.packing,
            "unique": self.unique,
            "method": self.method,
            "step": self.step,
            "prefix": self.prefix.to_dict(),
            "layout": None if self.layout is None else self.layout.to_dict(),
        }
        return json.dumps(settings, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class PretrainedStage:
    """A network with its weights and what its checkpoint says of it.

    Attributes:
        model: in evaluation mode.
        settings: of the checkpoint.
        folder: where it came from.
        tokenizer_path: beside the weights, or None.
        passed_over: newer checkpoints of the same run that are damaged, and what is wrong with each.
    """

    model: ScoreModel
    settings: StageSettings
    folder: Path
    tokenizer_path: Path | None
    passed_over: tuple[str, ...]


def load_stage(source: str | Path, *, weights: Weights = "ema") -> PretrainedStage:
    """One stage from a checkpoint folder, a run folder, a SEDD folder, an original run folder or a hub id.

    Raises:
        CheckpointError: nothing is there, a file is truncated or of a foreign kind, or weights do not match.
        ConfigError: `weights` is neither ema nor raw.
    """
    if weights not in ("ema", "raw"):
        raise ConfigError(f"weights is {weights!r}; it must be ema or raw")
    folder, passed_over = _local_folder(source)
    if (folder / ".hydra" / "config.yaml").is_file():
        settings, state = _read_original_run(folder, weights)
    elif (folder / "config.json").is_file():
        config = _read_json(folder / "config.json")
        if config.get("format") == FORMAT:
            settings, state = _read_own(folder, config, weights)
        elif "tokens" in config and "graph" in config:
            settings = _settings_of_original(config, folder / "config.json")
            state = _read_safetensors(folder / "model.safetensors")
        else:
            raise CheckpointError(
                f"{folder / 'config.json'} describes neither a checkpoint of this package nor a SEDD model (its keys "
                f"are {sorted(config)[:8]}); give a folder that `cdllm train` wrote or a SEDD folder or hub id"
            )
    elif (folder / BUNDLE_FILE).is_file():
        raise CheckpointError(
            f"{folder} is a bundle of all stages, and one stage is asked for; give the bundle alone (--cascade), or "
            "its folder stage_<k>"
        )
    else:
        raise CheckpointError(
            f"{folder} is no checkpoint: it has neither config.json nor checkpoints/latest nor .hydra/config.yaml; "
            "give a run folder, one of its checkpoints/step_<n>, or a hub id"
        )
    model = new_model(settings.model, settings.layout)
    load_weights(model, state, source=str(folder))
    tokenizer = folder / TOKENIZER_FILE
    found = tokenizer if tokenizer.is_file() else None
    return PretrainedStage(model.eval(), settings, folder, found, tuple(passed_over))


def warn_of_damaged(faults: Iterable[str]) -> None:
    """Warns the caller of the caller of damaged checkpoints that were passed over."""
    for damage in faults:
        warnings.warn(f"passed over a damaged checkpoint: {damage}", DamagedCheckpointWarning, stacklevel=3)


def load_weights(model: ScoreModel, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `state` into `model`; every name and every shape must match.

    Raises:
        CheckpointError: names are missing, unexpected or have another shape; all of them are listed.
    """
    model.load_state_dict(matching_weights(model, state, source=source))


def matching_weights(model: ScoreModel, state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """`state` under the names of `model`; every name and every shape must match.

    Raises:
        CheckpointError: names are missing, unexpected or have another shape; all of them are listed.
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
    return found


def _local_folder(source: str | Path) -> tuple[Path, list[str]]:
    """The folder that holds the checkpoint, and newer checkpoints of the same run that are damaged.

    Of a run folder it is the newest complete checkpoint; a hub id is looked up in the local cache first.
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
        raise CheckpointError(f"{path} is missing; the checkpoint is incomplete, use another")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); use another checkpoint"
        ) from error


def _read_own(folder: Path, config: dict[str, Any], weights: Weights) -> tuple[StageSettings, dict[str, Tensor]]:
    """A checkpoint of this package; where its checksums are stored, they must hold."""
    if (folder / CHECKSUMS).is_file() and (found := fault(folder)) is not None:
        raise CheckpointError(f"{folder} is damaged: {found}; use another checkpoint of the run")
    try:
        settings = StageSettings(
            model=ScoreModelConfig.from_dict(config["model"]),
            noise=dict(config["noise"]),
            stage=config["stage"],
            stage_lengths=tuple(config["stage_lengths"]),
            tokenizer=config["tokenizer"],
            packing=config.get("packing", ""),  # earlier checkpoints say neither it nor what was done to prefixes
            unique=config.get("unique", True),  # nor had earlier ones the choice
            method=config.get("method", ""),
            step=config["step"],
            prefix=PrefixSettings.from_dict(config.get("prefix", {})),
            # Earlier checkpoints are of stages that are not placed, and say nothing of it.
            layout=None if config.get("layout") is None else LayoutConfig.from_dict(config["layout"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} lacks or misstates {error}; the checkpoint is damaged, use another"
        ) from error
    _require_fitting_layout(settings, folder)
    path = folder / WEIGHTS_FILES[weights]
    if not path.is_file() and (folder.parent / BUNDLE_FILE).is_file():
        other = "raw" if weights == "ema" else "ema"
        raise CheckpointError(
            f"{folder} belongs to a bundle, which holds one set of weights, and has no {path.name}; load it with "
            f"weights={other!r}"
        )
    return settings, _read_safetensors(path)


def _require_fitting_layout(settings: StageSettings, folder: Path) -> None:
    """Checks that a layout network is for the lengths of its stage, which its weights do not show.

    Raises:
        CheckpointError: it is for others.
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


def _settings_of_original(config: Mapping[str, Any], path: Path) -> StageSettings:
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


def _read_original_run(folder: Path, weights: Weights) -> tuple[StageSettings, dict[str, Tensor]]:
    """A run folder of the original code: the Hydra configuration and a pickled checkpoint, read as data only."""
    settings_path, path = folder / ".hydra" / "config.yaml", folder / "checkpoints-meta" / "checkpoint.pth"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; an original run folder keeps its weights there")
    try:
        config = yaml.safe_load(settings_path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{settings_path} is not valid YAML ({reason}); use another run folder") from error
    # Files of other kinds make the library fail in ways of all kinds, so they are told apart first.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or no file of torch.save; use another run folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state, shadow = checkpoint["model"], checkpoint["ema"]["shadow_params"]
        # The average is stored as a bare list in the order of the parameters; buffers have no entry.
        names = [name for name in state if not name.endswith("rotary_emb.inv_freq")]
    except pickle.UnpicklingError as error:
        # The library's own message recommends to open the file in spite of it.
        raise CheckpointError(
            f"{path} is damaged, or holds objects whose loading would run code from the file; nothing was run, "
            "use another run folder"
        ) from error
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of the original code ({type(error).__name__}); use another run folder"
        ) from error
    if weights == "ema":
        if len(names) != len(shadow):
            raise CheckpointError(
                f"{path} averages {len(shadow)} tensors of a network that has {len(names)}; load it with weights='raw'"
            )
        state = {**state, **dict(zip(names, shadow, strict=True))}
    return _settings_of_original(config, settings_path), state
