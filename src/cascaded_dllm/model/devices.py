"""Devices and dtypes by name."""

import torch

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import ConfigError

_DEVICES = "choose auto, cpu, mps or cuda"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str | torch.device) -> torch.device:
    """The device called `name`, which is tried; `auto` takes the first available of CUDA, MPS and the CPU untried.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        # The message of torch would list every kind of device that it knows.
        raise ConfigError(f"device {str(name)!r} cannot be used (torch knows no such device); {_DEVICES}") from error
    if device.type == "meta":
        raise ConfigError(f"device 'meta' cannot be used (it holds no numbers); {_DEVICES}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(name)!r} cannot be used ({reason}); {_DEVICES}") from error
    return device


def choose_dtype(name: str | torch.dtype) -> torch.dtype:
    """The dtype called `name`, or the dtype itself.

    Raises:
        ConfigError: the name is neither float32 nor bfloat16.
    """
    if isinstance(name, torch.dtype):
        return name
    return _DTYPES[one_of("dtype", name, _DTYPES)]
