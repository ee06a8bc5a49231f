"""`cdllm train`: trains one stage or one flat model, from the configuration files and overrides."""

from pathlib import Path
from typing import Annotated

import typer
from omegaconf import OmegaConf

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import reported_errors
from cascaded_dllm.cli.options import Debug, given, parse_lengths
from cascaded_dllm.cli.streams import App
from cascaded_dllm.cli.train_run import train_run
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.errors import ConfigError

app = App(add_completion=False, pretty_exceptions_enable=False)


def _print_config(config: TrainConfig, what: str) -> None:
    """Prints the composed configuration as YAML.

    Raises:
        ConfigError: `what` is not "job".
    """
    if what != "job":
        raise ConfigError(f"--cfg is {what!r}; it must be job, which prints the configuration of the run")
    typer.echo(OmegaConf.to_yaml(config.to_dict()), nl=False)


@app.command()
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides key=value; configs/cascade_config.yaml has all keys.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Training data: a folder that `cdllm preprocess` made (data.path).")
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation data, to measure the bound on: another such folder (data.valid).")
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(help="Folder for built windows and stages, if the data is read-only (data.stages_dir)."),
    ] = None,
    stage: Annotated[int | None, typer.Option(help="Stage to train, 1 to K (stage).")] = None,
    flat: Annotated[bool, typer.Option("--flat", help="Train a flat model on the same windows (baseline).")] = False,
    lengths: Annotated[
        str | None, typer.Option(help="Stage lengths in tokens, for example 32,64,128 (stage_lengths).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Size of the network: quick, tiny, small or medium (model).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a run that is in it is resumed (run_dir).")] = None,
    device: Annotated[str | None, typer.Option(help="Device to train on: auto, cpu, mps, cuda, ... (device).")] = None,
    cfg: Annotated[
        str | None,
        typer.Option(help='"job" prints the configuration instead of training, as in Hydra.', show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train one stage of a cascade, or a flat model; `python train.py` is the same.

    A run that is already in --out is resumed at its newest complete checkpoint, and ends with the same numbers as an
    uninterrupted run. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end a run after the current step, which is kept in a
    checkpoint. ngpus=N trains with N processes; under torchrun or srun, this process is one of those that they started.

    By default a run has 500,001 steps of 512 windows, as the original: weeks on a CPU, even with --model tiny.

    Examples:

      cdllm train --data D --stage 1 --model tiny --out runs/stage1 training.batch_size=32 training.num_steps=4000
      cdllm train --data D --valid V --stage 2 --lengths 16,32,128 --out runs/stage2 training.num_steps=20000
      cdllm train --data D --stage 3 --out runs/stage3 ngpus=8 dtype=bfloat16
      cdllm train --data D --flat --out runs/flat model.parameterization=normalized optim.lr=1e-3
    """
    with reported_errors(debug):
        if flat and stage is not None:
            raise ConfigError(f"--stage is {stage}, and a flat model (--flat) is not a stage; give only one of them")
        flags = {
            "--model": None if model is None else f"model={model}",
            "--stage": None if stage is None else f"stage={stage}",
            "--flat": "baseline=true" if flat else None,
            "--lengths": None if lengths is None else f"stage_lengths={list(parse_lengths(lengths))}",
            "--device": None if device is None else f"device={device}",
        }
        paths = {"data.path": data, "data.valid": valid, "data.stages_dir": stages, "run_dir": out}
        config = compose_config(overrides or [], paths=given(paths), flags=given(flags), is_one_run=True)
        if cfg is not None:
            _print_config(config, cfg)
            return
        train_run(config)
