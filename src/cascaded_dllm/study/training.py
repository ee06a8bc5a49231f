"""One training run of a study, and what its folder says of it afterwards."""

import itertools
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import StoppedError
from cascaded_dllm.model.integrity import numbered
from cascaded_dllm.study.attendant import Attendant
from cascaded_dllm.study.plan import PlannedRun
from cascaded_dllm.train.run_events import Evaluation, Resumed, Stopped
from cascaded_dllm.train.run_folder import CHECKPOINTS_FOLDER
from cascaded_dllm.train.run_log import METRICS_FILE, has_loss, read_metrics
from cascaded_dllm.train.trainer import StepResult

_LAST_LINES = 10
"""Of metrics.jsonl, whose steps tell how fast a run goes."""


def train(planned: PlannedRun, attendant: Attendant) -> dict[str, Any]:
    """Trains to the end, from where the run is, and returns what its record says.

    Raises:
        StoppedError: it was told to stop; the last step is kept, if there was one.
        CascadeError: see `assemble_run` and `Run.events`.
    """
    run = assemble_run(planned.config, building=attendant.building(f"{planned.name}, windows and stages"))
    num_steps, is_stopped = run.trainer.loop.num_steps, False
    for event in run.events(should_stop=attendant.should_stop):
        match event:
            case Resumed():
                attendant.say(f"{planned.name}: resumed at step {event.step}")
            case StepResult():
                attendant.show(planned.name, event.step, num_steps)
            case Evaluation():
                bound = f"bound {event.bound_nats_per_token:.4f} nats/token"
                attendant.say(f"{planned.name}: step {event.step} of {num_steps}, {bound}")
            case Stopped():
                is_stopped = True
            case _:
                pass
    if is_stopped:
        raise StoppedError(
            f"{planned.name} was stopped at step {run.trainer.step} of {num_steps}, which is kept; the same command "
            "goes on from there"
        )
    return {
        "num_steps": num_steps,
        "token_forwards": num_steps * planned.cost.token_forwards,
        "flops": num_steps * planned.cost.flops,
        "parameters": sum(parameter.numel() for parameter in run.trainer.model.parameters()),
        "num_windows": len(run.trainer.dataset),
    }


class Course(NamedTuple):
    """What metrics.jsonl of a run tells.

    Attributes:
        curve: token-forwards and loss, nats a target token.
        bound_curve: token-forwards and bound, nats a window, from the first step on: logarithmic axes have no place for
            what a run begins with.
        seconds: that training took, without evaluation; over all the times that the run went on.
    """

    curve: list[tuple[int, float]]
    bound_curve: list[tuple[int, float]]
    seconds: float


class Pace(NamedTuple):
    """Where a run is.

    Attributes:
        told: the last step that metrics.jsonl has, 0 for none.
        kept: the last step that has a checkpoint, 0 for none: a run that was left goes on there.
        seconds_a_step: of the last lines with a loss; None where there is none.
    """

    told: int
    kept: int
    seconds_a_step: float | None


def read_pace(planned: PlannedRun) -> Pace:
    """How far a run is and how fast it goes; nothing where it has not begun.

    Raises:
        CheckpointError: its metrics are damaged.
    """
    lines = _metrics(planned)
    kept = max((step for step, _ in numbered(Path(str(planned.config.run_dir)) / CHECKPOINTS_FOLDER)), default=0)
    told = max((line["step"] for line in lines), default=0)
    seconds = [line["tokens"] / line["tokens_per_second"] for line in lines if has_loss(line)]
    return Pace(max(told, kept), kept, statistics.fmean(seconds[-_LAST_LINES:]) if seconds else None)


def read_course(planned: PlannedRun) -> Course:
    """How a run went; nothing where it has not begun."""
    lines = _metrics(planned)
    cost, length = planned.cost.token_forwards, planned.config.stage_lengths[planned.stage - 1]
    steps = list(filter(has_loss, lines))
    seconds = (
        (line["step"] - before) * line["tokens"] / line["tokens_per_second"]
        for before, line in zip(itertools.chain([0], (line["step"] for line in steps)), steps, strict=False)
    )
    return Course(
        curve=[(line["step"] * cost, line["loss_nats_per_token"]) for line in steps],
        bound_curve=[
            (line["step"] * cost, line["bound_nats_per_token"] * length)
            for line in lines
            if "bound_nats_per_token" in line and line["step"] > 0
        ],
        seconds=sum(seconds),
    )


def _metrics(planned: PlannedRun) -> list[dict[str, Any]]:
    """What the lines of metrics.jsonl say; see `read_metrics`."""
    path = Path(str(planned.config.run_dir)) / METRICS_FILE
    return [entry for _, entry in read_metrics(path, loss_needs=("tokens", "tokens_per_second"))]
