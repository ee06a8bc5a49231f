"""Which settings a run may be taken up with: those that would have led to the same steps."""

import re

import pytest

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.train.checkpoint import TrainerState
from cascaded_dllm.train.course import require_same_course
from cascaded_dllm.train.optim import OptimConfig

COURSE = {"optim.lr": 0.5, "stage_lengths": [4, 8], "data.valid": None}
SOURCE = "runs/a/step_5"
CONSTANT = OptimConfig(lr=0.5, warmup=3)
COSINE = OptimConfig(lr=0.5, warmup=3, decay="cosine")


def state(step=5, num_steps=10, course=COURSE):
    return TrainerState(step, num_steps, step, {}, dict(course))


def test_same_settings():
    require_same_course(state(), course=dict(COURSE), optim=COSINE, num_steps=10, source=SOURCE)


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"optim.lr": 0.25}, "optim.lr was 0.5 and is 0.25;"),
        (
            {"optim.lr": 0.25, "stage_lengths": [4, 9]},
            "optim.lr was 0.5 and is 0.25; stage_lengths was [4, 8] and is [4, 9];",
        ),
        ({"data.valid": "here"}, "data.valid was null and is here;"),
        ({"new.key": None}, "new.key was not there and is null;"),
    ],
)
def test_every_difference_is_listed(changes, listed):
    message = f"the checkpoint at step 5 was trained with other settings: {listed} give the settings of the run's"
    other = (
        "another --out: a new run, which takes these weights alone with pretrained.use_pretrained=true "
        f"pretrained.model_path={SOURCE}"
    )
    with pytest.raises(CheckpointError, match=f"{re.escape(message)} config.yaml, or {re.escape(other)}$"):
        require_same_course(state(), course=COURSE | changes, optim=CONSTANT, num_steps=10, source=SOURCE)


def test_checkpoints_from_before_the_copy_head():
    """They say nothing of it, and had none."""
    require_same_course(
        state(), course=COURSE | {"model.copy_head": False}, optim=CONSTANT, num_steps=10, source=SOURCE
    )
    with pytest.raises(CheckpointError, match=r"model\.copy_head was false and is true; give the settings"):
        require_same_course(
            state(), course=COURSE | {"model.copy_head": True}, optim=CONSTANT, num_steps=10, source=SOURCE
        )


def test_flat_checkpoints_that_name_a_stage():
    """A flat model is none, so that the number does not matter; to a stage it does."""
    flat = {"baseline": True, "stage": 1}
    require_same_course(state(course=flat | {"stage": 2}), course=flat, optim=CONSTANT, num_steps=10, source=SOURCE)
    with pytest.raises(CheckpointError, match=r"settings: stage was 2 and is 1; give"):
        require_same_course(
            state(course={"baseline": False, "stage": 2}),
            course={"baseline": False, "stage": 1},
            optim=CONSTANT,
            num_steps=10,
            source=SOURCE,
        )
    with pytest.raises(CheckpointError, match=r"settings: baseline was false and is true; give"):
        require_same_course(
            state(course={"baseline": False, "stage": 1}),
            course=flat,
            optim=CONSTANT,
            num_steps=10,
            source=SOURCE,
        )


def test_a_key_that_is_gone():
    course = {key: value for key, value in COURSE.items() if key != "optim.lr"}
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.5 and is not there; give .*, or another --out"):
        require_same_course(state(), course=course, optim=CONSTANT, num_steps=10, source=SOURCE)


@pytest.mark.parametrize("num_steps", [5, 9, 1000])
def test_another_number_of_steps_with_a_constant_rate(num_steps):
    require_same_course(state(), course=COURSE, optim=CONSTANT, num_steps=num_steps, source=SOURCE)


def test_another_number_of_steps_before_a_cosine_has_begun():
    """Of 4 steps the first three are warm-up, and the fourth has the peak whatever comes after it."""
    require_same_course(state(step=4), course=COURSE, optim=COSINE, num_steps=1000, source=SOURCE)


@pytest.mark.parametrize("num_steps", [9, 11, 1000])
def test_another_number_of_steps_within_a_cosine(num_steps):
    message = rf"training\.num_steps was 10 and is {num_steps}: with optim\.decay=cosine the learning rates of the 5 st"
    with pytest.raises(CheckpointError, match=message + r".*give training\.num_steps=10, or another --out"):
        require_same_course(state(), course=COURSE, optim=COSINE, num_steps=num_steps, source=SOURCE)


@pytest.mark.parametrize("optim", [CONSTANT, COSINE])
def test_fewer_steps_than_are_done(optim):
    with pytest.raises(
        CheckpointError, match=r"training\.num_steps is 4 and the run has done 5 steps; give at least as"
    ):
        require_same_course(state(), course=COURSE, optim=optim, num_steps=4, source=SOURCE)
