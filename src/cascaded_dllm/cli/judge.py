"""`cdllm judge`: trains a judge, a small causal language model, on a preprocessed corpus."""

from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble.judge import assemble_judge
from cascaded_dllm.cli.building import shown_building
from cascaded_dllm.cli.console import console, counted, progress_bar, reported_errors, say, say_passed_over, warn
from cascaded_dllm.cli.interrupt import reported_stop
from cascaded_dllm.cli.options import Debug, Device
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.judge.run import JudgeFinished, JudgeKept, JudgeRun
from cascaded_dllm.judge.settings import SIZES, JudgeSettings, judge_size
from cascaded_dllm.judge.trainer import JudgeStep
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.run_events import Resumed

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _judge() -> None:
    """Train a judge: a small language model that measures how probable written texts are."""


@app.command()
def train(
    data: Annotated[Path | None, typer.Option(help="Training data: a folder that `cdllm preprocess` made.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the judge; an unfinished training in it is resumed.")
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation data: another preprocessed folder, to measure the judge on.")
    ] = None,
    valid_documents: Annotated[
        int, typer.Option(help="Number of validation documents to measure, from the first on.")
    ] = 1000,
    stages: Annotated[Path | None, typer.Option(help="Folder for built windows, if the data is read-only.")] = None,
    model: Annotated[str, typer.Option(help=f"Size of the network: {', '.join(SIZES)}.")] = "tiny",
    width: Annotated[int | None, typer.Option(help="Width of the network.", show_default="of --model")] = None,
    blocks: Annotated[int | None, typer.Option(help="Number of blocks.", show_default="of --model")] = None,
    heads: Annotated[int | None, typer.Option(help="Number of attention heads.", show_default="of --model")] = None,
    length: Annotated[int, typer.Option(help="Tokens in a window.")] = 256,
    packing: Annotated[
        str,
        typer.Option(
            help="How windows are cut: document (each document begins a window) or stream (documents joined and cut)."
        ),
    ] = "document",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Windows in a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 1e-3,
    warmup: Annotated[
        int | None, typer.Option(help="Steps over which the learning rate rises.", show_default="a tenth of --steps")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay (AdamW).")] = 0.01,
    dropout: Annotated[float, typer.Option(help="Dropout rate.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights, the order and dropout.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Train a small GPT-2 on a preprocessed corpus; every --judge option takes its folder.

    The folder is a causal language model of the transformers library, with the tokenizer of the corpus; judge.json says
    how it was made and how good it is. After a kill or an interruption, the same command resumes the training and ends
    with the same weights, bit for bit.

    Examples:

      cdllm judge train --data D --valid V --out judges/mine
      cdllm judge train --data D --out judges/larger --model small --steps 20000 --length 512
      cdllm sample --cascade bundles/mine --judge judges/mine
    """
    with reported_errors(debug):
        if data is None or out is None:
            missing = "--data" if data is None else "--out"
            raise ConfigError(
                f"no {missing} is given; --data names a folder that `cdllm preprocess` made, --out a new folder"
            )
        settings = JudgeSettings(
            size=judge_size(model, width=width, blocks=blocks, heads=heads),
            length=length,
            packing=packing,
            num_steps=steps,
            batch_size=batch_size,
            dropout=dropout,
            seed=seed,
            optim=OptimConfig(
                lr=lr,
                beta2=0.95,
                weight_decay=weight_decay,
                warmup=steps // 10 if warmup is None else warmup,
                decay="cosine",
            ),
        )
        with shown_building("building windows") as building:
            run = assemble_judge(
                data=data,
                out=out,
                settings=settings,
                device=choose_device(device),
                valid=valid,
                valid_documents=valid_documents,
                stages_dir=stages,
                checkpoint_every=checkpoint_every,
                building=building,
            )
        _train(run)


def _train(run: JudgeRun) -> None:
    """Trains behind a progress bar, and prints the result.

    Raises:
        typer.Exit: it was interrupted.
    """
    size = sum(parameter.numel() for parameter in run.trainer.network.parameters())
    console.print(f"judge of {size:,} parameters, {counted(len(run.trainer.windows), 'window')}, {run.trainer.device}")
    num_steps, kept = run.trainer.settings.num_steps, None
    with progress_bar("judge") as (progress, move), reported_stop() as request:
        measuring = progress.add_task("measuring it", total=None, status="", visible=False)

        def on_measured(done: int, total: int) -> None:
            progress.update(measuring, completed=done, total=total, visible=True)

        for event in run.events(should_stop=request.is_made, on_measured=on_measured):
            match event:
                case Resumed():
                    say_passed_over(event.faults)
                    console.print(f"judge: resumed at step {event.step}")
                case JudgeStep():
                    move(event.step, num_steps)
                    status = f"loss {event.loss_nats_per_token:.3f} nats/token"
                    progress.update(progress.task_ids[0], status=status)
                case JudgeKept():
                    kept = event
                    if not console.is_terminal:
                        loss = run.trainer.losses[-1]
                        console.print(f"judge: step {event.step} of {num_steps}, loss {loss:.3f} nats/token")
                case JudgeFinished():
                    _say(run, event)
                    return
    assert kept is not None
    warn(
        f"judge: stopped at step {kept.step} of {num_steps}, which is kept in {kept.folder}; the same command goes on "
        "from there"
    )
    raise typer.Exit(request.exit_code)


def _say(run: JudgeRun, finished: JudgeFinished) -> None:
    """Prints how good the judge is, and where it is."""
    if not finished.is_new:
        console.print("judge: finished already; nothing is trained")
    figures = finished.summary["validation"]
    if figures is not None:
        console.print(
            f"{counted(figures['num_documents'], 'validation text')}: perplexity {figures['ppl_per_token']:.2f} a "
            f"token, {figures['bpc_bits']:.4f} bits a character",
            soft_wrap=True,
        )
    say(f"judge: {run.folder}")
