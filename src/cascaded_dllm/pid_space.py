"""Where a process id is valid: on one host, since its last boot, in one process namespace."""

import hashlib
import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def pid_space() -> str:
    """Eight hexadecimal digits that two processes share only if each can look up the other by its process id.

    The host name is not enough: containers may share it with one another or with their host, while each has process ids
    of its own.
    """
    facts = (socket.gethostname(), _boot(), _namespace())
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


def _boot() -> str:
    """The id of this host's last boot; empty if the system has none."""
    try:
        return _BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _namespace() -> str:
    """The process namespace of this process; empty if the system has none."""
    try:
        return os.readlink(_NAMESPACE)
    except OSError:
        return ""
