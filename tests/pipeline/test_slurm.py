"""The array scripts and the Slurm executor on a real one-node Slurm that the test starts and stops."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.train.world import first_host
from tests.pipeline import tiny
from tests.pipeline.commands import success
from tests.pipeline.slurm_cluster import MAX_ARRAY_SIZE, PARTITION, URGENT, slurm_cluster, why_not
from tests.pipeline.test_executors import contents
from tests.processes import cdllm
from tests.processes import run as run_process
from tests.repo.source_tree import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]
NUM_SHARDS = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    story_tokenizer().save(folder)
    return folder / "tokenizer.json"


def flags(tokenizer_file: Path, out: Path) -> list[object]:
    common = ["--dataset", "stories", "--split", "valid", "--tagger", "stories", "--tokenizer", tokenizer_file]
    return ["preprocess", "constituency", *common, "--shards", NUM_SHARDS, "--out", out]


@pytest.fixture(scope="module")
def expected(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local")
    success(*flags(tokenizer_file, out), "--workers", 1)
    return contents(out / "constituency" / "stories_valid")


def run(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition, seconds=150.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def queue(environment: dict[str, str], job: str, what: str = "%i %T") -> str:
    # A job that is long over is unknown to the queue.
    command = ["squeue", "-h", "-r", "-j", job, "-o", what]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout


def test_array_script_with_a_killed_task(cluster, tokenizer_file, expected, tmp_path):
    environment = cluster | {
        "SBATCH_PARTITION": PARTITION,
        "NUM_SHARDS": str(NUM_SHARDS),
        "OUT": str(tmp_path),
        "TOKENIZER": str(tokenizer_file),
        "OPTIONS": "--tagger stories",
        "SETUP": f'export PATH="{Path(sys.executable).parent}:$PATH"',
    }
    # What the header asks for is more than this machine has; flags of sbatch win over it.
    resources = [
        "--cpus-per-task=1",
        "--mem-per-cpu=1000",
        f"--output={tmp_path}/%A_%a.out",
    ]
    script = ["scripts/preprocess/constituency.slurm", "stories", "valid"]
    # An array has no room for all shards.
    assert MAX_ARRAY_SIZE == NUM_SHARDS - 1
    rest = run(
        "sbatch", "--parsable", "--array=0", *resources, *script, environment=environment | {"SHARD_OFFSET": "2"}
    )
    submit = ["sbatch", "--parsable", "--array=0-1", *resources, *script]
    job = run(*submit, environment=environment).strip()
    wait_until(lambda: f"{job}_1 RUNNING" in queue(environment, job))
    run("scancel", "--signal=KILL", f"{job}_1", environment=environment)
    wait_until(lambda: not queue(environment, f"{job},{rest.strip()}"))
    folder = tmp_path / "constituency" / "stories_valid"
    said = {path.name: path.read_text() for path in tmp_path.glob("*.out")}
    assert sorted(path.name for path in folder.glob("shard_*")) == ["shard_0", "shard_2"], said
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard_*/*")}
    assert not (folder / "manifest.json").exists()

    job = run(*submit, environment=environment).strip()
    wait_until(lambda: not queue(environment, job))
    assert contents(folder) == expected
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_slurm_executor(cluster, tokenizer_file, expected, tmp_path):
    arguments = [*flags(tokenizer_file, tmp_path), "--executor", "slurm", "--partition", PARTITION, "--memory-gb", 1]
    done = run_process(cdllm, *arguments, environment=cluster)
    assert done.returncode == 0, done.stderr
    assert f"make, in turn, {NUM_SHARDS} shards" in done.stdout
    folder = tmp_path / "constituency" / "stories_valid"
    wait_until((folder / "manifest.json").exists)
    wait_until(lambda: not queue(cluster, "", "%i"))
    assert contents(folder) == expected
    assert PreprocessedDataset.open(folder).counts.documents == 1000
    assert sorted(path.name for path in (folder / "logs" / "completions").iterdir()) == [
        f"{index:05d}" for index in range(NUM_SHARDS)
    ]


def short_of_time(environment: dict[str, str], job: str) -> None:
    """What Slurm does with --signal=B:USR1@300."""
    run("scancel", "--batch", "--signal=USR1", job, environment=environment)


def preempted(environment: dict[str, str], job: str) -> None:
    """A more urgent job takes all there is; the other one has a minute to end."""
    resources = ["--ntasks=1", "--cpus-per-task=2", "--mem-per-cpu=1000", "--output=/dev/null"]
    urgent = environment | {"SBATCH_PARTITION": URGENT}
    run("sbatch", *resources, "--wrap", "sleep 1", environment=urgent)


def training_job(cluster: dict[str, str], stories: Path, folder: Path, *, tasks: int, steps: int) -> str:
    """The number of a training job of stage 2, once it has trained a step; it writes to job.out and run/."""
    environment = cluster | {
        "SBATCH_PARTITION": PARTITION,
        "OUT": str(folder / "run"),
        "SETUP": f'export PATH="{Path(sys.executable).parent}:$PATH" OMP_NUM_THREADS=1',
    }
    resources = [f"--ntasks-per-node={tasks}", "--cpus-per-task=1", "--mem-per-cpu=1500"]
    settings = [f"training.num_steps={steps}", f"training.snapshot_every={steps // 2}", "sampling.num_samples=0"]
    script = ["scripts/training/train.slurm", "2", "tiny", str(stories), *tiny.OVERRIDES, *settings]
    submit = ["sbatch", "--parsable", *resources, f"--output={folder}/job.out", *script]
    job = run(*submit, environment=environment).strip()
    metrics = folder / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0)
    return job


@pytest.mark.parametrize("interrupt", [short_of_time, preempted])
def test_training_that_has_to_stop(interrupt, cluster, stories, tmp_path):
    """The state is kept, the job comes again and completes the run."""
    job = training_job(cluster, stories, tmp_path, tasks=2, steps=200)
    interrupt(cluster, job)
    out = tmp_path / "run"
    wait_until(lambda: (out / "checkpoints" / "step_200").exists() and not queue(cluster, job))
    said = (tmp_path / "job.out").read_text()
    assert said.count("2 processes (ddp), cpu") == 2
    stopped = re.search(r"stage 2: stopped at step (\d+) of 200, which is kept in", said)
    assert stopped, said
    assert f"stage 2: resumed at step {stopped[1]}\n" in said
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 201))


def test_training_that_is_cancelled_stays_away(cluster, stories, tmp_path):
    """Although SIGTERM makes it end with the same exit code."""
    job = training_job(cluster, stories, tmp_path, tasks=1, steps=20_000)
    run("scancel", job, environment=cluster)
    wait_until(lambda: not queue(cluster, job))
    said = (tmp_path / "job.out").read_text()
    assert "stopped at step" in said, said
    shown = run("scontrol", "show", "job", job, environment=cluster)
    assert "JobState=CANCELLED" in shown
    assert "Restarts=0" in shown


def test_first_host_as_slurm_has_it(cluster):
    for hosts in ("gpu-[003-005,009],login1", "rack[2-3]node[11-12]", "a,b[1-2]"):
        listed = run("scontrol", "show", "hostnames", hosts, environment=cluster)
        assert first_host(hosts) == listed.split()[0]


def test_a_job_is_submitted_once(cluster, tokenizer_file, expected, tmp_path):
    """While its arrays, of which there are several where Slurm allows no larger ones, are queued or running."""
    arguments = [*flags(tokenizer_file, tmp_path), "--executor", "slurm", "--partition", PARTITION, "--memory-gb", 1]
    waiting = f"while [ ! -e {tmp_path}/go ]; do sleep 1; done"
    arguments += ["--setup", f'export PATH="{Path(sys.executable).parent}:$PATH"; {waiting}']
    done = run_process(cdllm, *arguments, environment=cluster)
    assert done.returncode == 0, done.stderr
    first, second = re.findall(r"^jobs (\d+), (\d+) make, in turn, 3 shards", done.stdout, re.MULTILINE)[0]
    folder = tmp_path / "constituency" / "stories_valid"
    again = run_process(cdllm, *arguments, environment=cluster)
    assert again.returncode == 2
    assert f"error: Slurm still has job {first} and job {second} for {folder} queued or running" in again.stderr
    shown = run_process(cdllm, "preprocess", "status", folder)
    assert "0 of 3 shards done, 0 at work, 3 not begun" in shown.stdout
    assert f"Slurm jobs: {first}, {second}" in shown.stdout
    run("scancel", first, second, environment=cluster)
    wait_until(lambda: not queue(cluster, f"{first},{second}"))
    (tmp_path / "go").touch()
    assert run_process(cdllm, *arguments, environment=cluster).returncode == 0
    wait_until((folder / "manifest.json").exists)
    wait_until(lambda: not queue(cluster, "", "%i"))
    assert contents(folder) == expected


def test_job_that_slurm_refuses(cluster, tokenizer_file, tmp_path):
    arguments = [*flags(tokenizer_file, tmp_path), "--executor", "slurm", "--partition", "nowhere"]
    done = run_process(cdllm, *arguments, environment=cluster)
    assert done.returncode == 2
    assert "error: Slurm refused the job" in done.stderr
