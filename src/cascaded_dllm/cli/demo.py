"""`cdllm demo`: a page that turns keywords into a text, stage after stage, and lets the user edit every stage."""

import threading
import webbrowser
from typing import Annotated

import typer

from cascaded_dllm.cli.console import console, reported_errors, say
from cascaded_dllm.cli.load import load_cascade
from cascaded_dllm.cli.options import (
    Bundle,
    Debug,
    Device,
    Lengths,
    Stages,
    TokenizerSource,
    WeightsName,
)
from cascaded_dllm.demo.server import DemoServer, is_everywhere

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _open_page(address: str) -> None:
    if not webbrowser.open(address):
        console.print("no browser could be opened here; open the address yourself (--no-open does not try)")


@app.command()
def demo(
    stage: Stages = None,
    cascade: Bundle = None,
    host: Annotated[
        str, typer.Option(help="Address that the server listens on; 0.0.0.0 lets everyone on the network use the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the server; 0 takes any free one.")] = 8765,
    open: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    tokenizer: TokenizerSource = None,
    lengths: Lengths = None,
    weights: WeightsName = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="Precision of the matrix products: float32 or bfloat16.")] = "float32",
    debug: Debug = False,
) -> None:
    """Write texts on a page in the browser, and edit every stage on the way.

    Without --stage and --cascade, the page uses stories, the built-in cascade, which writes little stories. Nothing
    leaves this machine. Ctrl-C ends the server.

    Examples:

      cdllm demo
      cdllm demo --stage runs/stage1 --stage runs/stage2 --stage runs/stage3
      cdllm demo --cascade bundles/mine --port 0
      cdllm demo --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --device cuda
    """
    with reported_errors(debug):
        if not stage and cascade is None:
            cascade = "stories"
            console.print("no cascade is given; using the built-in one, stories (--stage or --cascade names another)")
        loaded = load_cascade(
            stage,
            bundle=cascade,
            lengths=lengths,
            tokenizer=tokenizer,
            weights=weights,
            device=device,
            dtype=dtype,
        )
        server = DemoServer(loaded, host=host, port=port)
        if is_everywhere(host):
            console.print(
                "everyone who can reach this machine can use the page; --host 127.0.0.1 limits it to this machine"
            )
        say(f"the page is at {server.address} (Ctrl-C ends it)")
        try:
            if open:
                # In a thread: a text browser blocks its caller, and waits for the page, which is not served yet.
                threading.Thread(target=_open_page, args=(server.address,), daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("ended")
        finally:
            server.close()
