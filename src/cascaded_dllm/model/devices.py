"""Devices and dtypes by their names."""

import torch

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import ConfigError

_DEVICES = "choose auto, cpu, mps or cuda"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str | torch.device) -> torch.device:
    """The device called `name`, once it is known to be there; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        # Its message lists every device that torch has ever heard of.
        raise ConfigError(f"device {str(name)!r} cannot be used (torch knows none of this name); {_DEVICES}") from error
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
        ConfigError: the name is none of those that networks compute in.
    """
    if isinstance(name, torch.dtype):
        return name
    return _DTYPES[one_of("dtype", name, _DTYPES)]
