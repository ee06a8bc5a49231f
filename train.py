"""Trains one stage of a cascade: `python train.py stage@_global_=stage1-lr3e-4-32_64_128 model=small`; see --help."""

from typer.main import get_group

from cascaded_dllm.cli.main import app

if __name__ == "__main__":
    get_group(app).commands["train"](prog_name="train.py")
