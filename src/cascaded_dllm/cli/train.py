"""`cdllm train`: one stage or one flat model, from a configuration and overrides."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import TextColumn

from cascaded_dllm.assemble import assemble_run
from cascaded_dllm.cli.console import console, error_console, progress_bar, reported_errors, working
from cascaded_dllm.config import TrainConfig, parse_config
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.train.run import Evaluation, Resumed, Run, Snapshot
from cascaded_dllm.train.trainer import StepResult

_SECONDS_BETWEEN_LINES = 30.0
"""Where there is no terminal for a bar, the progress of a run is a line now and then."""


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
        raise ConfigError(f"{', '.join(missing)} has no value; set {missing[0]}=...")
    for key, path in paths.items():
        *groups, last = key.split(".")
        group = settings
        for part in groups:
            group = group[part]
        group[last] = str(path)
    return dict(settings)


def _forced(override: str) -> str:
    name, separator, _ = override.partition("=")
    if not separator or not name:
        raise ConfigError(
            f"the override {override!r} has no key and '='; write key=value, for example training.num_steps=1000"
        )
    is_group = (config_folder() / name).is_dir()
    return override if is_group or name[0] in "+~" else f"++{override}"


def run_with_progress(run: Run, description: str) -> Evaluation | None:
    """Run to the end behind a progress bar; the last evaluation, or None if nothing was evaluated."""
    last = None
    columns = (TextColumn("{task.fields[status]}"),)
    with progress_bar(description, *columns) as (progress, _):
        task = progress.task_ids[0]
        progress.update(task, total=run.trainer.num_steps, status="")
        rate = loss = 0.0
        told = time.monotonic()
        for event in run.events():
            match event:
                case Resumed():
                    for fault in event.faults:
                        error_console.print(f"passed over a damaged checkpoint: {fault}", markup=False)
                    console.print(f"{description}: resumed at step {event.step}")
                    progress.update(task, completed=event.step)
                case StepResult():
                    now = event.tokens / event.seconds
                    rate = now if rate == 0 else 0.95 * rate + 0.05 * now
                    loss = event.loss_nats_per_token if loss == 0 else 0.95 * loss + 0.05 * event.loss_nats_per_token
                    status = f"loss {loss:.3f} nats/token  {rate:,.0f} tokens/s"
                    progress.update(task, completed=event.step, status=status)
                    if not console.is_terminal and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                        told = time.monotonic()
                        console.print(f"{description}: step {event.step} of {run.trainer.num_steps}, {status}")
                case Evaluation():
                    last = event
                    console.print(
                        f"{description}: step {event.step}, bound {event.bound_nats_per_token:.4f} "
                        f"+- {event.standard_error or math.nan:.4f} nats/token on {event.num_windows} windows"
                    )
                case Snapshot():
                    pass
    return last


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
    model: Annotated[str | None, typer.Option(help="tiny, small or medium.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (run_dir); an existing run is resumed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda, ...")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train one stage of a cascade, or a flat model.

    A run folder that holds a run already is taken up at its newest complete checkpoint, and ends with the numbers of
    a run that was never broken off.

    Examples:

      cdllm train --data data/preprocessed/constituency/mine_train --stage 1 --model tiny --out runs/stage1
      cdllm train --data D --valid V --stage 2 --lengths 16,32,128 --out runs/stage2 training.num_steps=20000
      cdllm train --data D --flat --out runs/flat model.parameterization=normalized optim.lr=1e-3
    """
    chosen = [
        *([f"model={model}"] if model else []),
        *([f"stage={stage}"] if stage is not None else []),
        *(["baseline=true"] if flat else []),
        *([f"stage_lengths=[{lengths}]"] if lengths else []),
        *([f"device={device}"] if device else []),
        *(overrides or []),
    ]
    with reported_errors(debug):
        paths = {"data.path": data, "data.valid": valid, "data.stages_dir": stages, "run_dir": out}
        config = compose_config(chosen, paths={key: path for key, path in paths.items() if path is not None})
        with working("building windows and stages"):
            run = assemble_run(config)
        name = "flat" if config.baseline else f"stage {config.stage}"
        size = sum(parameter.numel() for parameter in run.trainer.model.parameters())
        console.print(
            f"{name} of {list(config.stage_lengths)}: {config.model.name}, {size:,} parameters, "
            f"{len(run.trainer.dataset):,} windows, {run.trainer.device}"
        )
        run_with_progress(run, name)
        console.print(f"run folder: {run.folder}", markup=False, soft_wrap=True)
