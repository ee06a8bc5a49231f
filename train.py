"""Trains one stage of a cascade: `python train.py stage@_global_=stage1-lr3e-4-32_64_128 model=small`; see --help."""

import sys

from cascaded_dllm.cli.main import app

if __name__ == "__main__":
    app(["train", *sys.argv[1:]], prog_name=sys.argv[0])
