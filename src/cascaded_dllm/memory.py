"""Tells errors of memory that has run out from others; the remedy is left to callers, who know what was computed."""

import os

import torch

_SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""Parts of the messages of devices whose errors have no type of their own."""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine ran out of memory."""
    is_typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_typed or any(text in str(error).lower() for text in _SHORT_OF_MEMORY)


def physical_memory() -> int:
    """The bytes of memory that this machine has; a container may get less of it."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
