"""Sending the blocks of a network through torch.compile, on a machine that has a compiler for the device."""

import importlib.util
import os
import shutil
from typing import Any

import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.score_model import ScoreModel

_COMPILERS = ("c++", "g++", "clang++", "cl")
_WITHOUT = "do without compilation (training.compile=false, or no --compile)"
# Every combination of context, rows, gradients and sizes is a graph of its own: eleven for a cascade of three stages
# and two batch sizes. Past its limit, 8 by default, torch goes on without compilation.
_MOST_GRAPHS = 64


def compile_blocks(model: ScoreModel, device: torch.device) -> None:
    """Makes the blocks of a network compile when they are first called; weights and their names stay.

    The blocks of a layout network beside it are not compiled. Torch's limit of graphs for a function is raised for the
    whole process.

    Args:
        model: the network.
        device: where it will compute.

    Raises:
        ConfigError: there is no compiler for the device.
    """
    _require_compiler(device)
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_GRAPHS)
    for block in model.blocks:
        block.compile()


def _require_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError(f"torch.compile needs Triton on {device}; pip install triton, or {_WITHOUT}")
        return
    names = [name] if (name := os.environ.get("CXX")) else _COMPILERS
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f"torch.compile needs a C++ compiler on {device}, and there is no {', '.join(names)} on the path; install "
            f"one, or {_WITHOUT}"
        )
