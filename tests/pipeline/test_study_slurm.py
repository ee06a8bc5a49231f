"""A study on a real one-node Slurm: a job an arm and seed, which all add to the same results."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.preprocess.executors import Resources
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.slurm import job_script, submit_arm
from tests.pipeline.commands import success
from tests.pipeline.slurm_cluster import PARTITION, slurm_cluster, why_not
from tests.pipeline.test_study import SMALL, entries, results_of, weights, what_must_be_equal, write_study
from tests.processes import cdllm, run

NEEDS_SLURM = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"OMP_NUM_THREADS": "1"}


def wait_for_jobs(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 280
    while subprocess.run(["squeue", "-h"], env=environment, check=True, capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


@NEEDS_SLURM
@pytest.mark.slow
def test_jobs_do_what_one_process_does(cluster, tmp_path):
    study = write_study(tmp_path / "study.yaml", **SMALL)
    resources = ["--executor", "slurm", "--partition", PARTITION, "--memory-gb", 1, "--time", "01:00:00"]
    submitted = run(cdllm, "study", "run", study, "--out", tmp_path / "jobs", *resources, environment=cluster)
    assert submitted.returncode == 0, submitted.stderr
    assert re.findall(r"job \d+: arm (\w+), seed 0", submitted.stdout) == ["flat", "one_way"]
    wait_for_jobs(cluster)
    logs = {path.name: path.read_text() for path in (tmp_path / "jobs/logs").iterdir()}
    assert set(logs) == {"flat-seed0.log", "one_way-seed0.log"}
    assert [entry["status"] for entry in entries(results_of(tmp_path / "jobs")).values()] == ["done", "done"], logs
    assert run(cdllm, "study", "run", study, "--out", tmp_path / "one").returncode == 0
    assert weights(tmp_path / "jobs") == weights(tmp_path / "one")
    assert what_must_be_equal(results_of(tmp_path / "jobs")) == what_must_be_equal(results_of(tmp_path / "one"))


@NEEDS_SLURM
@pytest.mark.slow
def test_a_job_that_slurm_refuses(cluster, tmp_path):
    study = write_study(tmp_path / "study.yaml", **SMALL)
    flags = ["--executor", "slurm", "--partition", "nowhere"]
    done = run(cdllm, "study", "run", study, "--out", tmp_path / "out", *flags, environment=cluster)
    assert done.returncode == 2
    assert "error: Slurm refused the job of arm flat, seed 0 (exit code " in done.stderr


def test_commands_of_slurm_that_are_missing_or_fail(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    resources = Resources(partition="gpu", gpus=1, account="mine")
    with pytest.raises(DataError, match=r"sbatch is not on this machine; submit from a login node of the cluster, or"):
        submit_arm(StudyFolder(tmp_path / "out"), "flat", 0, resources)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    sbatch.chmod(0o700)
    with pytest.raises(DataError, match=r"the job of arm flat, seed 0 \(exit code 3: .*--gpus=1 --account=mine"):
        submit_arm(StudyFolder(tmp_path / "out"), "flat", 0, resources)


def test_commands_that_are_shown_after_submitting(monkeypatch, tmp_path):
    """They can be given as they stand, though the folder has a space in its name."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 17\n")
    sbatch.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    study, out = write_study(tmp_path / "study.yaml", **SMALL), tmp_path / "my jobs"
    shown = success("study", "run", study, "--out", out, "--executor", "slurm", "--partition", "p").stdout
    assert "job 17: arm flat, seed 0" in shown
    assert f"cdllm study status '{out}' shows the progress, and cdllm study collect '{out}' the results" in shown


def test_the_script_of_a_job_is_sound_and_quotes_what_it_is_given():
    script = job_script(
        StudyFolder(Path("/data/my $study")), "flat", 3, Resources(partition="p", setup="module load x")
    )
    assert "cdllm study run '/data/my $study/study.yaml' --out '/data/my $study' --arm flat --seed 3 &" in script
    assert "module load x\n" in script
    done = subprocess.run(["bash", "-n"], input=script, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("code", "is_requeued"), [(75, True), (138, True), (2, False)])
def test_a_job_whose_time_is_short_comes_again(monkeypatch, tmp_path, code, is_requeued):
    """As Slurm does with --signal=B:USR1@120: the signal is passed on, and what has kept its work is queued again."""
    for name, body in {
        "cdllm": f"trap 'exit {code}' USR1\ntouch begun\nwhile :; do sleep 0.05; done",
        "scontrol": 'echo "$@" > requeued',
    }.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o700)
    script = job_script(
        StudyFolder(tmp_path), "flat", 0, Resources(partition="p", setup=f'export PATH="{tmp_path}:$PATH"')
    )
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with subprocess.Popen(["bash", "-c", script], cwd=tmp_path) as job:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(60) == code
    assert (tmp_path / "requeued").exists() is is_requeued
    assert not is_requeued or (tmp_path / "requeued").read_text() == "requeue 17\n"
