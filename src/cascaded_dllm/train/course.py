"""Whether a run may go on from a checkpoint: only if its present settings would have led to the same steps."""

from collections.abc import Mapping
from typing import Any

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.overrides import as_written
from cascaded_dllm.train.checkpoint import TrainerState
from cascaded_dllm.train.optim import OptimConfig

_FORMERLY = {
    "model.copy_head": False,
    "conditioning": "prefix",
    "layout.num_blocks": 3,
    "training.halves": "both",
    "training.fills": False,
}
"""Values of settings for checkpoints that were written before the settings existed; nothing else was possible then.

`layout.num_blocks` is an exception: there was no layout network, so this is the present default.
"""


def require_same_course(
    state: TrainerState, *, course: Mapping[str, Any], optim: OptimConfig, num_steps: int, source: str
) -> None:
    """Checks that the steps of a checkpoint are the first steps of a run with the present settings.

    The number of steps of the whole run may change if the learning rates of the steps done do not. So it may change
    with a constant rate, but not once a cosine has begun, since the cosine is stretched over the run.

    Args:
        state: trainer state of the checkpoint.
        course: present settings that decide the course of training, without the number of steps.
        optim: present optimizer settings.
        num_steps: present number of steps of the whole run.
        source: path of the checkpoint, for the message.

    Raises:
        CheckpointError: a setting differs, or the number of steps differs and matters.
    """
    before = {key: value for key, value in _FORMERLY.items() if key in course} | dict(state.course)
    if before.get("baseline") and "stage" in course:
        # A flat model is not a stage, but older checkpoints of flat models hold the stage number of the configuration.
        before["stage"] = course["stage"]
    if changed := changed_settings(before, course):
        raise CheckpointError(
            f"the checkpoint at step {state.step} was trained with other settings: {'; '.join(changed)}; give the "
            "settings of the run's config.yaml, or another --out: a new run, which takes these weights alone with "
            f"pretrained.use_pretrained=true pretrained.model_path={source}"
        )
    if num_steps < state.step:
        raise CheckpointError(
            f"training.num_steps is {num_steps} and the run has done {state.step} steps; give at least as many, or "
            "another --out"
        )
    rates = ((optim.learning_rate(step, n) for n in (state.num_steps, num_steps)) for step in range(state.step))
    if num_steps != state.num_steps and any(before != now for before, now in rates):
        raise CheckpointError(
            f"training.num_steps was {state.num_steps} and is {num_steps}: with optim.decay={optim.decay} the learning "
            f"rates of the {state.step} steps done depend on it, so that they belong to no run of {num_steps} steps; "
            f"give training.num_steps={state.num_steps}, or another --out (only optim.decay=constant can be prolonged)"
        )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two sets of settings, a phrase for each key."""
    keys = [key for key in {**before, **now} if key not in before or key not in now or before[key] != now[key]]
    was, are = ([as_written(settings.get(key, "not there")) for key in keys] for settings in (before, now))
    return [f"{key} was {former} and is {present}" for key, former, present in zip(keys, was, are, strict=True)]
