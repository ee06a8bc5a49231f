"""How far a study is, by what its folder holds: states of parts, steps, and the time that trainings still take."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.errors import CheckpointError, DataError
from cascaded_dllm.lock_owner import SECONDS_OF_SILENCE
from cascaded_dllm.run_lock import LOCK_FILE, is_held
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.plan import PlannedRun
from cascaded_dllm.study.status import PartStatus, StudyStatus, statuses
from cascaded_dllm.study.training import Pace, read_pace
from cascaded_dllm.study.work import Part
from cascaded_dllm.train.meter import StepCost


def part(name: str, *after: str) -> Part:
    return Part(name, name, f"the {name}", after, dict)


def run(folder: Path, name: str, *, token_forwards: int = 10) -> PlannedRun:
    """A planned training of 100 steps."""
    config = compose_config(["model=tiny", "training.num_steps=100", f"run_dir={folder / name}"])
    return PlannedRun(key=name, stage=1, config=config, cost=StepCost(token_forwards, 1.0))


def tell(folder: Path, name: str, *lines: dict[str, Any], kept: int = 0, rest: str = "") -> None:
    """The folder of a training with these lines of metrics and a checkpoint."""
    (folder / name).mkdir()
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / name / "metrics.jsonl").write_text(text + rest)
    if kept:
        (folder / name / f"checkpoints/step_{kept}").mkdir(parents=True)


def loss(step: int, seconds: float) -> dict[str, Any]:
    """A line about a step that took so long."""
    return {"step": step, "loss_nats_per_token": 5.0, "tokens": 64, "tokens_per_second": 64 / seconds}


BOUND = {"step": 24, "bound_nats_per_token": 4.0}


def test_a_run_is_where_any_line_or_checkpoint_says(tmp_path: Path) -> None:
    """Losses come every so many steps, bounds and checkpoints at others."""
    assert read_pace(run(tmp_path, "none")) == Pace(0, 0, None)
    tell(tmp_path, "bound", {"step": 0, "bound_nats_per_token": 9.0}, BOUND)
    assert read_pace(run(tmp_path, "bound")) == Pace(24, 0, None)
    tell(tmp_path, "stopped", BOUND, kept=39)
    assert read_pace(run(tmp_path, "stopped")) == Pace(39, 39, None)
    tell(tmp_path, "ahead", loss(50, 2.0), kept=39)
    assert read_pace(run(tmp_path, "ahead")) == Pace(50, 39, 2.0)


def test_the_pace_is_that_of_the_last_lines(tmp_path: Path) -> None:
    tell(tmp_path, "slow_first", loss(1, 900.0), *(loss(step, 2.0) for step in range(2, 11)), loss(11, 3.0), BOUND)
    assert read_pace(run(tmp_path, "slow_first")) == Pace(24, 0, pytest.approx(2.1))


def test_a_line_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    tell(tmp_path, "a", loss(10, 2.0), rest='{"step": 99, "loss_nats')
    assert read_pace(run(tmp_path, "a")) == Pace(10, 0, 2.0)


@pytest.mark.parametrize(
    ("line", "error"),
    [("[1]", "TypeError"), ("{", "JSONDecodeError"), ('{"step": 1, "loss_nats_per_token": 2}', "KeyError")],
)
def test_broken_metrics(tmp_path: Path, line: str, error: str) -> None:
    tell(tmp_path, "a", loss(10, 2.0), rest=f"{line}\n")
    with pytest.raises(
        CheckpointError, match=rf"a/metrics.jsonl line 2 is not a line of metrics \({error}\); remove the line"
    ):
        read_pace(run(tmp_path, "a"))


def test_time_left(tmp_path: Path) -> None:
    """At its own pace, from its last checkpoint if it was left; unbegun ones at what a position costs in the others."""
    folder = StudyFolder(tmp_path)
    tell(tmp_path, "left", loss(50, 2.0), kept=40)
    tell(tmp_path, "done", loss(100, 8.0), kept=100)
    folder.settle("done", {"of": "done", "status": "done"})
    runs = {
        "left": run(tmp_path, "left"),
        "done": run(tmp_path, "done"),
        "new": run(tmp_path, "new", token_forwards=30),
    }
    found = statuses(folder, [part("left"), part("done"), part("new", "left"), part("bound", "new")], runs)
    assert [(each.state, each.step, each.num_steps) for each in found.values()] == [
        ("begun", 40, 100),
        ("done", None, None),
        ("waiting", 0, 100),
        ("waiting", None, None),
    ]
    assert found["left"].seconds_left == 60 * 2.0
    # Ten seconds for twenty positions.
    assert found["new"].seconds_left == 100 * 30 * 0.5
    with folder.lock("left"):
        at_work = statuses(folder, [part("left")], runs)["left"]
    assert (at_work.state, at_work.step, at_work.seconds_left) == ("at work", 50, 50 * 2.0)


def test_what_has_broken_down(tmp_path: Path) -> None:
    """One that has failed is tried again, also now; one that has diverged is not, and what needs it is lost."""
    folder = StudyFolder(tmp_path)
    folder.settle("failed", {"of": "failed", "status": "failed", "reason": "the disk", "attempt": "1"})
    folder.settle("wild", {"of": "wild", "status": "diverged", "reason": "the loss"})
    folder.settle("other", {"of": "something else", "status": "done"})
    parts = [part("failed"), part("wild"), part("a", "failed"), part("b", "wild"), part("c", "b"), part("other")]
    runs = {"failed": run(tmp_path, "failed")}
    found = statuses(folder, parts, runs)
    assert {name: (each.state, each.reason) for name, each in found.items()} == {
        "failed": ("failed", "the disk"),
        "wild": ("diverged", "the loss"),
        "a": ("waiting", None),
        "b": ("lost", None),
        "c": ("lost", None),
        "other": ("waiting", None),
    }
    assert found["failed"].step == 0
    with folder.lock("failed"):
        assert statuses(folder, parts, runs)["failed"].state == "at work"


def left(name: str, seconds: float | None, *after: str) -> PartStatus:
    return PartStatus(name, name, "waiting", after, 0, 1, seconds)


def test_trainings_that_wait_for_each_other_cannot_go_side_by_side() -> None:
    chain = StudyStatus(
        "done", (left("a", 30.0), left("b", 50.0, "a"), left("c", 10.0), PartStatus("d", "d", "waiting", ("c",)))
    )
    assert [chain.training_seconds_left(number) for number in (1, 2)] == [90, 80]
    assert StudyStatus("done", (left("a", 30.0), left("b", None))).training_seconds_left() is None
    assert StudyStatus("done", ()).training_seconds_left() == 0
    assert StudyStatus("waiting").training_seconds_left() is None


def test_a_record_without_its_keys(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.settle("a", {"status": "done"})
    with pytest.raises(DataError, match=r"a.json lacks 'of'; remove it, and the part is looked at again"):
        folder.record("a")


def test_who_holds_a_lock(tmp_path: Path) -> None:
    """The dead of this machine are known at once, others by their silence; nothing is written to find out."""
    assert not is_held(tmp_path)
    with StudyFolder(tmp_path).lock("a"):
        folder = tmp_path / "locks/a"
        before = sorted(folder.iterdir())
        assert is_held(folder)
        assert sorted(folder.iterdir()) == before
        owner = json.loads((folder / LOCK_FILE).read_text())
    assert not is_held(folder)
    lock = folder / LOCK_FILE
    lock.write_text(json.dumps(owner | {"started": "long ago"}))
    assert not is_held(folder), "another process has that number now"
    lock.write_text(json.dumps(owner | {"space": "elsewhere"}))
    assert is_held(folder)
    silent = time.time() - 3 * SECONDS_OF_SILENCE
    os.utime(lock, (silent, silent))
    assert not is_held(folder)
    lock.write_text("{")
    assert not is_held(folder), "a lock of nobody"
