"""Where the number of a process means something: one host, since it was booted, in one namespace of processes."""

import hashlib
import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def pid_space() -> str:
    """Eight digits that two processes share only if each may look for the other by its number.

    The name of a host is not enough: containers may have that of their host, or all the same one, and number their
    processes apart from one another.
    """
    facts = (socket.gethostname(), _boot(), _namespace())
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


def _boot() -> str:
    """The boot of this host, where the system tells it from others; otherwise empty."""
    try:
        return _BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _namespace() -> str:
    """The namespace of processes of this one, where there are such; otherwise empty."""
    try:
        return os.readlink(_NAMESPACE)
    except OSError:
        return ""
