"""How much memory there is, and which errors say that it has run out.

The remedy is left to callers, who know what was computed.
"""

import os
from pathlib import Path

import torch

_SHORT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""Parts of the messages of devices whose errors have no type of their own."""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine ran out of memory."""
    is_typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_typed or any(text in str(error).lower() for text in _SHORT_OF_MEMORY)


def memory_limit(root: Path = Path("/")) -> int:
    """The bytes of memory that this process may use: all of the machine, or what a container or a job gets of it.

    The system gives out more than that, piece by piece, and then kills the process.

    Args:
        root: of the file system that says which control groups of Linux the process is in, and their limits.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A group is also bound by those that it lies in. From inside a container its path may lead nowhere, and the
        # limit of the container is found at the top.
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (limit := _text(folder / name).strip()).isdigit():
                limits.append(int(limit))
    return min(limits)


def _text(path: Path) -> str:
    """The text of a file; none if the system has no such file, or does not show it to this user."""
    try:
        return path.read_text()
    except OSError:
        return ""
