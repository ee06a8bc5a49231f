"""Devices and dtypes by name."""

import contextlib
from collections.abc import Iterator

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
    except (RuntimeError, TypeError) as error:
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


@contextlib.contextmanager
def host_by_default() -> Iterator[None]:
    """Inside the block, or in a function that it decorates, tensors without a device of their own are on the host.

    A program may have set another default device, such as its GPU, where only networks and texts should be.
    """
    # Entering torch.device in any case would slow down every call of torch a little. torch.get_default_device does not
    # know of a torch.device that was entered before torch 2.8.
    with contextlib.nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu"):
        yield


def require_precise_default() -> None:
    """Checks that tensors without a dtype of their own, such as times, are precise enough.

    Raises:
        ConfigError: they would be in half precision.
    """
    if (dtype := torch.get_default_dtype()) in (torch.bfloat16, torch.float16):
        raise ConfigError(
            f"torch's default dtype is {dtype}, which is too coarse for times and probabilities; call "
            "torch.set_default_dtype(torch.float32), and give dtype='bfloat16' to compute in it"
        )


def choose_dtype(name: str | torch.dtype) -> torch.dtype:
    """The dtype called `name`, or the dtype itself.

    Raises:
        ConfigError: the name is neither float32 nor bfloat16, or networks cannot compute in the dtype.
    """
    if name in (torch.float32, torch.bfloat16, torch.float16):
        return name
    name = str(name).removeprefix("torch.") if isinstance(name, torch.dtype) else name
    return _DTYPES[one_of("dtype", name, _DTYPES)]
