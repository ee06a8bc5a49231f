"""Values of flags that several commands share."""

import torch

from cascaded_dllm.errors import ConfigError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def parse_lengths(text: str) -> tuple[int, ...]:
    """The stage lengths in "32,64,128".

    Raises:
        ConfigError: the text is no list of whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--lengths is {text!r}; it must be whole numbers with commas, for example 32,64,128")
    return tuple(int(part) for part in parts)


def choose_dtype(name: str) -> torch.dtype:
    """The dtype called `name`.

    Raises:
        ConfigError: it is none of those that networks compute in.
    """
    if name not in _DTYPES:
        raise ConfigError(f"--dtype is {name!r}; it must be one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
