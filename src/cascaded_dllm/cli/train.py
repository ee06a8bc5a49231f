"""`cdllm train`: one stage or one flat model, from a configuration and overrides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cascaded_dllm.cli.console import reported_errors
from cascaded_dllm.cli.options import parse_lengths
from cascaded_dllm.cli.train_run import train_run
from cascaded_dllm.config import TrainConfig, parse_config
from cascaded_dllm.errors import ConfigError

_FLAGS = {"data.path": "--data", "run_dir": "--out"}
"""Flags of the keys that have no default."""


def config_folder() -> Path:
    """Where the configurations are: inside the installed package, or at the root of a checkout."""
    inside = Path(__file__).resolve().parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "configs"


def compose_config(
    overrides: Sequence[str], *, name: str = "cascade_config", paths: Mapping[str, Path] | None = None
) -> TrainConfig:
    """The configuration `name` of `configs/` with overrides such as `model=tiny` and `optim.lr=1e-3`.

    Args:
        overrides: in Hydra's grammar.
        name: file in `configs/`.
        paths: values of `run_dir` and of the paths in `data`, taken as they are: in the grammar of overrides a path
            with a dollar sign or a backslash would be something else.

    Raises:
        ConfigError: an override cannot be read, a key is unknown or missing, or a value has the wrong type.
    """
    composed = _composed(overrides, name, paths or {})
    return parse_config(composed)


def _composed(overrides: Sequence[str], name: str, paths: Mapping[str, Path]) -> dict[str, Any]:
    # "+" lets unknown keys through Hydra, so that our own check can name the nearest known one.
    forced = [_forced(override) for override in overrides]
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            composed = compose(name, overrides=forced)
        missing = sorted(OmegaConf.missing_keys(composed) - paths.keys())
        settings: Any = {} if missing else OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra has errors of its own for most mistakes, and a ValueError for a group that is a number.
        raise ConfigError(
            f"the configuration cannot be composed: {str(error).strip()}; check the overrides, key=value"
        ) from error
    if missing:
        given = " and ".join(_FLAGS.get(key, f"{key}=...") for key in missing)
        raise ConfigError(f"{' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} no value; give {given}")
    for key, path in paths.items():
        *groups, last = key.split(".")
        group = settings
        for part in groups:
            group = group[part]
        group[last] = str(path)
    return dict(settings)


def _forced(override: str) -> str:
    name, separator, value = override.partition("=")
    if not separator or not name:
        raise ConfigError(
            f"the override {override!r} has no key and '='; write key=value, for example training.num_steps=1000"
        )
    group = config_folder() / name
    if group.is_dir():
        choices = sorted(path.stem for path in group.glob("*.yaml"))
        if value not in choices:
            raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
        return override
    return override if name[0] in "+~" else f"++{override}"


def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides key=value; see configs/cascade_config.yaml.", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that `cdllm preprocess` made (data.path).")] = None,
    valid: Annotated[Path | None, typer.Option(help="Another one, to measure the bound on (data.valid).")] = None,
    stages: Annotated[
        Path | None, typer.Option(help="Where windows and stages are kept, for read-only data (data.stages_dir).")
    ] = None,
    stage: Annotated[int | None, typer.Option(help="Stage 1..K to train.")] = None,
    flat: Annotated[bool, typer.Option("--flat", help="Train a flat model on the same windows (baseline).")] = False,
    lengths: Annotated[str | None, typer.Option(help="Stage lengths, for example 32,64,128.")] = None,
    model: Annotated[str | None, typer.Option(help="quick, tiny, small or medium.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (run_dir); an existing run is resumed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda, ...")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train one stage of a cascade, or a flat model.

    A run folder that holds a run already is taken up at its newest complete checkpoint, and ends with the numbers of
    a run that was never broken off. Ctrl-C, SIGTERM and SIGUSR1 end a run after the current step, which is kept in a
    checkpoint. ngpus=N trains with N processes; under torchrun or srun this is one of them.

    Examples:

      cdllm train --data data/preprocessed/constituency/mine_train --stage 1 --model tiny --out runs/stage1
      cdllm train --data D --valid V --stage 2 --lengths 16,32,128 --out runs/stage2 training.num_steps=20000
      cdllm train --data D --stage 3 --out runs/stage3 ngpus=8 dtype=bfloat16
      cdllm train --data D --flat --out runs/flat model.parameterization=normalized optim.lr=1e-3
    """
    with reported_errors(debug):
        chosen = [
            *([f"model={model}"] if model is not None else []),
            *([f"stage={stage}"] if stage is not None else []),
            *(["baseline=true"] if flat else []),
            *([f"stage_lengths={list(parse_lengths(lengths))}"] if lengths is not None else []),
            *([f"device={device}"] if device is not None else []),
            *(overrides or []),
        ]
        paths = {"data.path": data, "data.valid": valid, "data.stages_dir": stages, "run_dir": out}
        train_run(compose_config(chosen, paths={key: path for key, path in paths.items() if path is not None}))
