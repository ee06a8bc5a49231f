"""`cdllm bundle`: all stages of a cascade, their tokenizer and a model card in one folder, or on the hub."""

from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.cli.console import reported_errors, say, working
from cascaded_dllm.cli.load import load_cascade
from cascaded_dllm.cli.options import Debug, Lengths, Stages, TokenizerSource, WeightsName
from cascaded_dllm.errors import ConfigError, OutputError
from cascaded_dllm.sample.bundle_hub import require_repo_id

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _require_place(out: Path | None, push: str | None, *, private: bool) -> None:
    """Checks, before a checkpoint is read, that the bundle can be written.

    Raises:
        ConfigError: no destination is given, or options contradict each other.
        OutputError: `out` exists.
    """
    if out is None and push is None:
        raise ConfigError("neither --out nor --push is given; name a new folder, or a repository of the hub")
    if private and push is None:
        raise ConfigError(
            "--private is given without --push, and only a repository of the hub can be private; leave it out"
        )
    if push is not None:
        require_repo_id(push)
    if out is not None and out.exists():
        raise OutputError(f"--out is {out}, which exists, and nothing is overwritten; choose another folder")


@app.command()
def bundle(
    stage: Stages = None,
    cascade: Annotated[
        str | None, typer.Option(help="Instead of --stage: an existing bundle, to push or copy it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the bundle.")] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Repository of the Hugging Face hub to upload to."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Upload only into a private repository; a new one is made private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit on the hub.")] = "Upload a cascade",
    license: Annotated[
        str | None, typer.Option(help="Licence for the model card, such as apache-2.0; none by default.")
    ] = None,
    tokenizer: TokenizerSource = None,
    lengths: Lengths = None,
    weights: WeightsName = None,
    debug: Debug = False,
) -> None:
    """Put all stages, the tokenizer and a model card into one folder.

    A bundle is loaded with one path. It is written completely or not at all. What only training needs, such as the
    state of the optimizer, stays in the runs. --push uses the token that `hf auth login` has stored, or HF_TOKEN.

    Examples:

      cdllm bundle --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --out bundles/mine
      cdllm bundle --cascade bundles/mine --push somebody/mine --private --license mit
      cdllm bundle --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --out bundles/sedd
    """
    with reported_errors(debug):
        _require_place(out, push, private=private)
        loaded = load_cascade(
            stage,
            bundle=cascade,
            lengths=lengths,
            tokenizer=tokenizer,
            weights=weights,
            device="cpu",
        )
        if out is not None:
            loaded.save_pretrained(out, license=license)
            say(f"written to {out}")
        if push is not None:
            with working(f"uploading to {push}"):
                address = loaded.push_to_hub(push, private=private or None, commit_message=message, license=license)
            say(f"uploaded to {address}")
