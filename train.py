"""Trains one stage of a cascade: `python train.py stage@_global_=stage1-lr3e-4-32_64_128 model=small`; see --help."""

from cascaded_dllm.cli.train import app

if __name__ == "__main__":
    app(prog_name="train.py")
