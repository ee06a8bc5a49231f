"""Memory that has run short, told from other errors; what to do about it, those say who know what was wanted."""

import torch

_SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What the devices' own errors have in common, where there is no type for them."""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the machine, had no room for what was wanted."""
    is_typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_typed or any(text in str(error).lower() for text in _SHORT_OF_MEMORY)
