"""What ends a run, or keeps it from beginning: said in one line, and the last good checkpoint takes it up again."""

import json
import re
from pathlib import Path

from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.run_lock import run_lock
from cascaded_dllm.train.objective import Objective
from tests.pipeline import tiny
from tests.pipeline.commands import failure, files, success


def newest(run: Path) -> str:
    """The name of the newest checkpoint, which is whole, as all are."""
    found, faults = newest_complete(run / "checkpoints")
    assert faults == []
    assert found is not None
    return found.name


def test_loss_that_is_no_number_at_a_huge_learning_rate(stories, tmp_path):
    """The last step that was good is kept, and all lines of metrics are of good steps."""
    run = tmp_path / "run"
    flags = ["--out", run, *tiny.OVERRIDES, "training.num_steps=8", "optim.lr=1e30", "training.snapshot_every=1"]
    message = failure("train", "--data", stories, *flags)
    expected = (
        r"the (loss|gradient norm) is (nan|inf) at step \d with learning rate 1e\+30, it must be finite; the weights"
    )
    assert re.match(expected, message)
    assert "start a new run with a lower optim.lr or optim.grad_clip from the weights of a checkpoint before" in message
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert newest(run) == f"step_{max(steps)}"
    assert load_stage(run).settings.step == max(steps)


def test_poisoned_batch(stories, tmp_path, monkeypatch):
    """At step 3 of 4 the loss is no number; the run goes on from step 2 and ends with the bytes of an unbroken one."""
    common = ["train", "--data", stories, *tiny.OVERRIDES, "training.num_steps=4"]
    times = Objective.times

    def poisoned(self, index, length, *, draws, step, global_batch_size):
        t = times(self, index, length, draws=draws, step=step, global_batch_size=global_batch_size)
        return t * float("nan") if step == 2 else t

    monkeypatch.setattr(Objective, "times", poisoned)
    message = failure(*common, "--out", tmp_path / "run")
    assert re.match(
        r"the (loss|gradient norm) is nan at step 3 with learning rate 0\.01, it must be finite; the", message
    )
    assert newest(tmp_path / "run") == "step_2"
    monkeypatch.undo()
    assert "resumed at step 2" in success(*common, "--out", tmp_path / "run").stdout
    success(*common, "--out", tmp_path / "unbroken")
    ends = [tmp_path / name / "checkpoints" / "step_4" / "model.safetensors" for name in ("run", "unbroken")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_two_runs_on_one_folder(stories, tmp_path):
    """The second one ends before it has changed anything, and the first one goes on."""
    flags = ["train", "--data", stories, "--out", tmp_path / "run", *tiny.OVERRIDES]
    (tmp_path / "run").mkdir()
    with run_lock(tmp_path / "run"):
        before = files(tmp_path)
        message = failure(*flags)
        assert re.search(
            r"run belongs to a run that is going on: process \d+ on .*; wait for it or stop it, or give", message
        )
        assert files(tmp_path) == before
    success(*flags)
    assert not (tmp_path / "run" / "run.lock").exists()


def test_stage_that_the_run_is_not_of(runs):
    """A run is one of one stage; its folder is left as it is."""
    before = files(runs)
    message = failure("train", f"load_dir={runs}/stage1", "stage=2")
    assert (
        "trained with other settings: stage was 1 and is 2; give the settings of the run's config.yaml, or" in message
    )
    message = failure("train", f"load_dir={runs}/stage1", "stage=4")
    assert "stage 4 does not exist; a cascade of (4, 8, 40) has 1..3" in message
    assert newest(runs / "stage1") == "step_2"
    assert files(runs) == before


def test_checkpoint_of_another_network(runs):
    before = files(runs)
    message = failure("train", f"load_dir={runs}/stage1", "model.num_blocks=2")
    assert "model.num_blocks was 1 and is 2" in message
    assert files(runs) == before
