"""One training run of a study, and its course and pace as its folder shows them."""

import itertools
import statistics
from typing import Any, NamedTuple

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import StoppedError
from cascaded_dllm.model.integrity import numbered
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.plan import PlannedRun
from cascaded_dllm.train.metrics_file import METRICS_FILE, has_loss, read_metrics
from cascaded_dllm.train.run_events import Evaluation, Resumed, Stopped
from cascaded_dllm.train.run_folder import CHECKPOINTS_FOLDER
from cascaded_dllm.train.trainer import StepResult

_LAST_LINES = 10
"""Number of last lines of metrics.jsonl whose mean gives the pace of a run."""


def train(planned: PlannedRun, callbacks: StudyCallbacks) -> dict[str, Any]:
    """Trains a run to its end, from wherever it is, and returns the content of its record.

    Raises:
        StoppedError: it is time to stop; the last step, if any, is kept.
        CascadeError: see `assemble_run` and `Run.events`.
    """
    run = assemble_run(planned.config, building=callbacks.building(f"{planned.name}, windows and stages"))
    num_steps, is_stopped = run.trainer.loop.num_steps, False
    for event in run.events(should_stop=callbacks.should_stop):
        match event:
            case Resumed():
                callbacks.say(f"{planned.name}: resumed at step {event.step}")
            case StepResult():
                callbacks.show(planned.name, event.step, num_steps)
            case Evaluation():
                bound = f"bound {event.bound_nats_per_token:.4f} nats/token"
                callbacks.say(f"{planned.name}: step {event.step} of {num_steps}, {bound}")
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
    """The course of a run, from its metrics.jsonl.

    Attributes:
        curve: pairs of token-forwards and loss, nats a target token.
        bound_curve: pairs of token-forwards and bound, nats a window, without the bound before the first step, which
            logarithmic axes cannot show.
        seconds: of training without evaluation, over all resumptions.
    """

    curve: list[tuple[int, float]]
    bound_curve: list[tuple[int, float]]
    seconds: float


class Pace(NamedTuple):
    """How far a run is, and how fast it goes.

    Attributes:
        last_step: the last step that metrics.jsonl or a checkpoint has, 0 for none.
        checkpoint_step: the last step that has a checkpoint, 0 for none; an unfinished run continues there.
        seconds_a_step: mean over the last lines with a loss; None without any.
    """

    last_step: int
    checkpoint_step: int
    seconds_a_step: float | None


def read_pace(planned: PlannedRun) -> Pace:
    """How far a run is and how fast it goes; 0 steps and no pace if it has not begun.

    Raises:
        CheckpointError: its metrics are damaged.
    """
    lines = _metrics(planned)
    checkpoint_step = max((step for step, _ in numbered(planned.folder / CHECKPOINTS_FOLDER)), default=0)
    logged_step = max((line["step"] for line in lines), default=0)
    seconds = [line["tokens"] / line["tokens_per_second"] for line in lines if has_loss(line)]
    return Pace(
        max(logged_step, checkpoint_step),
        checkpoint_step,
        statistics.fmean(seconds[-_LAST_LINES:]) if seconds else None,
    )


def read_course(planned: PlannedRun) -> Course:
    """The course of a run; empty if it has not begun."""
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
    """The lines of metrics.jsonl; see `read_metrics`."""
    path = planned.folder / METRICS_FILE
    return [entry for _, entry in read_metrics(path, loss_needs=("tokens", "tokens_per_second"))]
