"""`cdllm train ngpus=2` as a user runs it: one terminal, one error when a process is lost, an end on a signal."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from cascaded_dllm.model.integrity import numbered
from tests.pipeline import tiny
from tests.pipeline.commands import failure
from tests.processes import Process, cdllm, started

STEPS = 120
CHANGES = (
    "model.dropout=0.1",
    "training.accum=2",
    f"training.num_steps={STEPS}",
    "training.snapshot_every=10",
    "sampling.num_samples=0",
    "optim.eps=1e-4",
)


@pytest.fixture(scope="module")
def arguments(stories: Path) -> list[str]:
    """Of stage 2, long enough to be interrupted."""
    return ["train", "--data", str(stories), "--stage", "2", *tiny.OVERRIDES, *CHANGES]


def wait_for_a_checkpoint(process: Process, folder: Path, after: int = 0) -> None:
    while not any(step > after for step, _ in numbered(folder / "checkpoints")):
        assert process.poll() is None, process.stdout + process.stderr
        time.sleep(0.01)


def workers(process: Process) -> list[int]:
    """The processes that it has started, by their number; Python starts another one to clean up after them."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    found = [int(pid) for path in children for pid in path.read_text().split()]
    return sorted(pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss_nats_per_token"] for line in lines if "lr" in line}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_lost_then_stopped_then_moved(arguments, tmp_path):
    """Two processes with split weights, one of which is killed; two with whole ones, told to stop; one that ends it.

    They are told as batch systems do, each by itself, beside the one that tells them as well.
    """
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    arguments = [*arguments, "--out"]
    with started(cdllm, *arguments, str(run), "ngpus=2", "training.strategy=fsdp") as process:
        wait_for_a_checkpoint(process, run)
        os.kill(workers(process)[1], signal.SIGKILL)
        ended = process.wait()
    assert ended.returncode == 2
    out, err = ended.stdout, ended.stderr
    assert err.startswith("error: process 1 of 2 was ended by SIGKILL, sent by the system for lack of memory or by")
    assert err.count("\n") == 1
    assert out.count("stage 2 of [4, 8, 40]") == 1
    assert "2 processes (fsdp), cpu, attention kernel: torch's choice" in out
    kept = numbered(run / "checkpoints")[-1][0]

    ddp = (*arguments, str(run), "ngpus=2", "training.strategy=ddp")
    with started(cdllm, *ddp, leads_session=True) as process:
        wait_for_a_checkpoint(process, run, after=kept)
        os.killpg(process.pid, signal.SIGTERM)
        ended = process.wait()
    out, err = ended.stdout, ended.stderr
    assert ended.returncode == 75, err
    assert "2 processes (ddp), cpu" in out
    assert f"stage 2: resumed at step {kept}\n" in out
    stopped_at = numbered(run / "checkpoints")[-1][0]
    assert err.splitlines() == [
        "stage 2: stopping after this step; a second signal stops at once and loses the step",
        f"stage 2: stopped at step {stopped_at} of {STEPS}, which is kept in {run}/checkpoints/step_{stopped_at}; the "
        "same command goes on from there",
    ]
    assert kept < stopped_at < STEPS

    with started(cdllm, *arguments, str(run)) as resumed, started(cdllm, *arguments, str(unbroken)) as whole:
        ended = resumed.wait()
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"resumed at step {stopped_at}" in ended.stdout
        ended = whole.wait()
        assert (ended.returncode, ended.stderr) == (0, "")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    starts = json.loads((run / "provenance.json").read_text())["starts"]
    layouts = [(start["step"], start["layout"]["processes"], start["layout"]["strategy"]) for start in starts]
    assert layouts == [(0, 2, "fsdp"), (kept, 2, "ddp"), (stopped_at, 1, "single")]
    # Rounding grows with the steps, to 1.3e-4 where it was looked at; other samples would be off by tenths of nats.
    assert losses(run) == pytest.approx(losses(unbroken), abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_stopped_while_the_processes_begin(arguments, tmp_path, number, code):
    """They import the program, and know of no wishes yet."""
    with started(cdllm, *arguments, "--out", str(tmp_path / "run"), "ngpus=2") as process:
        while len(workers(process)) < 2:
            assert process.poll() is None, process.stdout + process.stderr
            time.sleep(0.01)
        process.send(number)
        ended = process.wait()
    assert (ended.returncode, ended.stderr) == (
        code,
        "told to stop, the 2 processes ended before they could save a step; the same command goes on from the "
        "last checkpoint, or begins again if there is none\n",
    )


def test_more_processes_than_torchrun_has_started(arguments, tmp_path, monkeypatch):
    place = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in (place | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    message = failure(*arguments, "--out", tmp_path / "run", "ngpus=4")
    assert message == (
        "ngpus is 4 and torchrun has started 2 processes; leave ngpus out (ngpus=null for a run that is taken up with "
        "its settings), or start 4"
    )
