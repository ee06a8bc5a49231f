"""The device on which a process computes, when several processes share a machine."""

import re

from cascaded_dllm.errors import ConfigError

_DEVICE = re.compile(r"auto|cpu|cuda(:(?P<number>\d+))?")


def require_device(device: str) -> None:
    """Checks the form of a device name, not whether this machine has the device.

    Raises:
        ConfigError: it is not a device name.
    """
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"the device is {device!r}; it must be one of auto, cpu, cuda, cuda:0, cuda:1, ...")


def device_of(device: str, *, worker: int, num_gpus: int) -> str:
    """The device of one of several processes: cpu, or cuda:N.

    With auto and cuda, processes take the GPUs in turn; with cuda:N, all of them share one.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is a GPU if there is one.
        worker: the number of the process, from 0.
        num_gpus: number of GPUs that the process sees.

    Raises:
        ConfigError: there is no such GPU.
    """
    if device == "cpu" or (device == "auto" and num_gpus == 0):
        return "cpu"
    if num_gpus == 0:
        raise ConfigError(f"the device is {device!r}, but there is no GPU that torch can use; choose auto or cpu")
    if device in ("auto", "cuda"):
        return f"cuda:{worker % num_gpus}"
    number = int(device.removeprefix("cuda:"))
    if number >= num_gpus:
        raise ConfigError(
            f"the device is {device!r}, and GPUs here are numbered from cuda:0 to cuda:{num_gpus - 1}; choose one of "
            "them, or auto"
        )
    return f"cuda:{number}"
