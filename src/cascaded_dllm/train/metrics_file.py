"""metrics.jsonl as it is read again: by a run that goes on, and by the study that the run belongs to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import write_text
from cascaded_dllm.errors import CheckpointError

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: Path, *, loss_needs: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The complete lines of metrics.jsonl, each with its parsed content; the last one may be cut off or being written.

    Args:
        path: path of the file; if it does not exist, there are no lines.
        loss_needs: keys that a line with a loss must have besides its step.

    Raises:
        CheckpointError: a line is not a line of metrics.
    """
    content = path.read_bytes() if path.is_file() else b""
    for number, raw in enumerate(content[: content.rfind(b"\n") + 1].splitlines(keepends=True), start=1):
        try:
            line = raw.decode()
            entry = dict(json.loads(line))
            entry["step"] = int(entry["step"])
            if has_loss(entry):
                entry |= {name: entry[name] for name in loss_needs}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} line {number} is not a line of metrics ({type(error).__name__}); remove the line"
            ) from error
        yield line, entry


def has_loss(entry: Mapping[str, Any]) -> bool:
    """Whether a line of metrics is about steps, and not about a bound or samples."""
    return entry.get("loss_nats_per_token") is not None


def forget_after(folder: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl of steps that will be done again, and a last line that was cut off.

    Raises:
        CheckpointError: a line is not a line of metrics.
    """
    path = folder / METRICS_FILE
    write_text(path, "".join(line for line, entry in read_metrics(path) if entry["step"] <= step))


def has_bound(folder: Path, step: int) -> bool:
    """Whether metrics.jsonl has a bound of the weights after `step` steps."""
    return any("bound_nats_per_token" in entry for entry in _at_step(folder, step))


def has_figures(folder: Path, step: int) -> bool:
    """Whether metrics.jsonl has the line about the samples after `step` steps: one without a loss or a bound."""
    others = {"loss_nats_per_token", "bound_nats_per_token"}
    return any(entry.keys().isdisjoint(others) for entry in _at_step(folder, step))


def _at_step(folder: Path, step: int) -> Iterator[dict[str, Any]]:
    return (entry for _, entry in read_metrics(folder / METRICS_FILE) if entry["step"] == step)
