"""The provenance of a run: a record for every start, in provenance.json of the run folder."""

import json
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import cascaded_dllm
from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.versions import installed_versions

PROVENANCE_FILE = "provenance.json"
_LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors", "hydra-core", "omegaconf", "wandb", "tensorboard")
_SECONDS_FOR_GIT = 20


def append_start(folder: Path, facts: Mapping[str, Any], *, step: int) -> None:
    """Adds a start of the run in `folder` to its record.

    Args:
        folder: run folder.
        facts: facts about the run that do not depend on the process, such as its configuration and its data.
        step: optimizer steps that were done before.

    Raises:
        CheckpointError: the record of earlier starts cannot be read.
        OutputError: the record cannot be written.
    """
    path = folder / PROVENANCE_FILE
    starts = _starts(path) if path.exists() else []
    write_json(path, {"starts": [*starts, {"step": step} | process_facts() | dict(facts)]})


def last_start(folder: Path) -> dict[str, Any]:
    """The record of the newest start of the run in `folder`, without its settings."""
    start = _starts(folder / PROVENANCE_FILE)[-1]
    return {name: value for name, value in start.items() if name != "config"}


def process_facts() -> dict[str, Any]:
    """When, where and with which program this process runs; `commit` is None unless it runs from a checkout."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "host": socket.gethostname(),
        "commit": checkout_commit(Path(cascaded_dllm.__file__).resolve().parents[2]),
        # The version of an installed torch does not say for which CUDA it was built; torch.__version__ does.
        "versions": installed_versions(_LIBRARIES) | {"torch": str(torch.__version__)},
    }


def device_facts(device: torch.device) -> dict[str, Any]:
    """Type and name of a device, with the memory of a CUDA device, or the number of threads of any other."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {"type": "cuda", "name": properties.name, "memory_bytes": properties.total_memory}
    return {"type": device.type, "name": _processor(), "threads": torch.get_num_threads()}


def _processor() -> str:
    """The maker's name of the processor, which `platform` does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def checkout_commit(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` has checked out, and whether files differ from it; None if it is not a git checkout.

    It is also None if git cannot be run, or does not trust the folder.
    """
    if not (folder / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *command],
                check=True,
                capture_output=True,
                text=True,
                timeout=_SECONDS_FOR_GIT,
            ).stdout
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"id": commit.strip(), "has_changes": bool(changes.strip())}


def _starts(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}), and writing it again would lose the record of earlier "
            "starts; repair it, or move it away"
        ) from error
