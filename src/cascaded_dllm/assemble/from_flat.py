"""A cascade around one flat network, which is the fill of every stage but the first; only the rest is trained.

The fill of a placed stage does the same as a flat model of masked diffusion, so any such model can be used unchanged.
Left to train are a first stage, which is a small network over the important words or the flat network trained further,
and a layout network for every other stage.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.config_groups import ModelSettings, PretrainedSettings
from cascaded_dllm.data.preprocessed import read_identity
from cascaded_dllm.diffusion.schedule import schedule_from_settings, schedule_settings
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.model.stage_settings import StageSettings, Weights
from cascaded_dllm.model.warm_start import require_same_vocabulary

First = Literal["new", "flat"]
"""What stage 1 starts from: random weights, or the flat network."""
FIRST: tuple[First, ...] = get_args(First)


def runs_from_flat(
    config: TrainConfig, source: str, *, weights: Weights, out: Path, first: First = "new"
) -> list[TrainConfig]:
    """The runs that make the cascade, first stage first.

    Args:
        config: what all runs share, and the network of a new first stage.
        source: the flat network, in any form that `load_stage` takes.
        weights: the moving average or the raw weights.
        out: folder of the run folders stage1, stage2, ...
        first: what stage 1 starts from.

    Raises:
        CheckpointError: there is no flat network, or it cannot fill in these stages.
        ConfigError: the lengths do not increase, or there is only one.
        DataError: the data is missing.
    """
    spec = CascadeSpec(config.stage_lengths)
    if spec.num_stages == 1:
        raise ConfigError(
            f"the lengths are {list(spec.stage_lengths)}, which is the flat model itself; give at least 2, for example "
            "32,64,128"
        )
    flat = load_stage(source, weights=weights).settings
    _require_filling(flat, source, spec)
    # Checked here because training stage 1 may not involve the flat network.
    found = read_identity(Path(str(config.data.path))).settings
    require_same_vocabulary(source, flat, vocab_size=found.vocab_size, tokenizer=found.tokenizer)
    packing = flat.packing or config.data.packing
    shared = replace(config, data=replace(config.data, packing=packing))
    as_flat = replace(
        shared,
        model=_model(flat.model.to_dict()),
        # A checkpoint of SEDD names the kind of its schedule alone, whose numbers are then the defaults.
        noise=replace(config.noise, **schedule_settings(schedule_from_settings(flat.noise))),  # type: ignore[arg-type]
        pretrained=PretrainedSettings(use_pretrained=True, model_path=source, weights=weights),
    )
    others = (
        replace(
            as_flat,
            stage=number,
            run_dir=str(out / f"stage{number}"),
            conditioning="placed",
            training=replace(config.training, halves="layout"),
        )
        for number in range(2, spec.num_stages + 1)
    )
    return [replace(as_flat if first == "flat" else shared, stage=1, run_dir=str(out / "stage1")), *others]


def _require_filling(flat: StageSettings, source: str, spec: CascadeSpec) -> None:
    """Checks that a network is a flat model of masked diffusion, for texts at least as long as those of the cascade.

    Raises:
        CheckpointError: it is not.
    """
    if flat.stage != 0:
        raise CheckpointError(
            f"{source} is stage {flat.stage} of a cascade; give a flat model, which `cdllm train --flat` makes"
        )
    if flat.model.process != "absorbing":
        raise CheckpointError(
            f"{source} was trained with the {flat.model.process} process, and only masked positions can be filled in; "
            "give a flat model of the absorbing process"
        )
    known = flat.stage_lengths[-1:]
    if known and known[0] < spec.window_length:
        raise CheckpointError(
            f"{source} was trained on texts of {known[0]} tokens, and the last length is {spec.window_length}; give "
            f"lengths up to {known[0]}, or a model of longer texts"
        )


def _model(network: Mapping[str, Any]) -> ModelSettings:
    """The settings of the flat network as model settings of a run."""
    settings = {key: value for key, value in network.items() if key not in ("vocab_size", "process")}
    return ModelSettings(name="from-flat", **settings)
