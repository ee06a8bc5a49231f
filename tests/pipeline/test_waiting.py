"""Commands that need windows which another process builds: for whom they wait is said, and they can be stopped."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.study_file import read_study
from cascaded_dllm.cli.study_work import prepare_work
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import EXIT_AGAIN, StoppedError
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.plan import arm_configs
from tests.pipeline import tiny
from tests.processes import SECONDS, Process, cdllm, started

WAITING = "waiting for process"
OF_THE_STUDY = ("stage_lengths", "training.num_steps", "training.eval_every", "training.snapshot_every")
STUDY = {
    "name": "waiting",
    "lengths": list(tiny.LENGTHS),
    "budget": {"token_forwards": 1000},
    "base": [text for text in tiny.OVERRIDES if not text.startswith(OF_THE_STUDY)],
    "arms": [{"name": "flat", "kind": "flat"}],
    "evaluate": {"num_windows": 2, "num_times": 1, "batch_size": 2, "points": 1},
}


def build_slowly(folder: str, lengths: tuple[int, ...]) -> None:
    """In a process of its own: builds stages, and is not done with them before it is killed."""

    def on_progress(*_: object) -> None:
        print("builds", flush=True)
        time.sleep(SECONDS)

    StageArrays.build(Path(folder), CascadeSpec(lengths), packing="document", on_progress=on_progress)


def until(is_true: Callable[[], bool], process: Process) -> None:
    """Returns when it is true; the process must not end before."""
    end = time.monotonic() + SECONDS
    while not is_true():
        assert process.poll() is None, f"{process.stdout}{process.stderr}"
        assert time.monotonic() < end, f"{process.stdout}{process.stderr}"
        time.sleep(0.02)


@contextmanager
def builder(folder: Path, lengths: tuple[int, ...] = tiny.LENGTHS) -> Iterator[Process]:
    """Another process that builds the stages of a folder, as long as nobody kills it."""
    with started(build_slowly, str(folder), lengths) as process:
        until(lambda: "builds" in process.stdout, process)
        yield process


@pytest.fixture
def data(stories: Path, tmp_path: Path) -> Path:
    """A dataset of which no stages are built."""
    return shutil.copytree(stories, tmp_path / "data", ignore=shutil.ignore_patterns("stages"))


def judge_train(data: Path, runs: Path, out: Path) -> list[object]:
    pytest.importorskip("transformers", reason="the extra eval is not installed")
    sizes = ["--model", "tiny", "--width", 8, "--blocks", 1, "--heads", 1, "--length", 40]
    return ["judge", "train", "--data", data, "--out", out, *sizes, "--steps", 1, "--device", "cpu"]


def evaluate_likelihood(data: Path, runs: Path, out: Path) -> list[object]:
    stages = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    return ["evaluate", "likelihood", *stages, "--data", data, "--num-windows", 2, "--num-times", 1]


def evaluate_gap(data: Path, runs: Path, out: Path) -> list[object]:
    stages = ["--stage", runs / "stage1", "--stage", runs / "stage2", "--data", data]
    return ["evaluate", "gap", *stages, "--num-texts", 2, "--num-times", 1, "--num-resamples", 100]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "lengths"),
    [(judge_train, (40,)), (evaluate_likelihood, tiny.LENGTHS), (evaluate_gap, tiny.LENGTHS)],
)
def test_commands_say_for_whom_they_wait(
    data: Path, runs: Path, tmp_path: Path, command: Callable[..., list[object]], lengths: tuple[int, ...]
) -> None:
    """And build themselves once the other one is gone."""
    words = command(data, runs, tmp_path / "out")
    with builder(data, lengths) as other, started(cdllm, *words) as process:
        until(lambda: f"{WAITING} {other.pid} on" in process.stdout, process)
        assert "which builds the same\n" in process.stdout
        other.send(signal.SIGKILL)
        ended = process.wait()
    assert ended.returncode == 0, ended
    assert ended.stdout.count(WAITING) == 1


def test_a_program_reads_no_word_of_it(data: Path, runs: Path, tmp_path: Path) -> None:
    with builder(data) as other, started(cdllm, *evaluate_likelihood(data, runs, tmp_path), "--json") as process:
        until(lambda: WAITING in process.stderr, process)
        other.send(signal.SIGKILL)
        ended = process.wait()
    assert ended.returncode == 0, ended
    assert json.loads(ended.stdout)["num_windows"] == 2


@pytest.fixture
def study(data: Path, valid_stories: Path, tmp_path: Path) -> Path:
    """A study of the dataset."""
    valid = shutil.copytree(valid_stories, tmp_path / "valid", ignore=shutil.ignore_patterns("stages"))
    folders = [{"method": "constituency", "train": str(data), "valid": str(valid)}]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "corpus": {"folders": folders}}))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_study_that_waits_is_stopped(data: Path, study: Path, tmp_path: Path, number: signal.Signals) -> None:
    with builder(data) as other, started(cdllm, "study", "run", study, "--out", tmp_path / "out") as process:
        until(lambda: f"{WAITING} {other.pid} on" in process.stdout, process)
        process.send(number)
        ended = process.wait()
        assert other.poll() is None
    assert ended.returncode == (130 if number == signal.SIGINT else EXIT_AGAIN), ended
    assert "the study was told to stop; what is finished is kept" in ended.stderr


def test_a_study_that_builds_is_stopped(study: Path, tmp_path: Path) -> None:
    """In the middle of a build, of which nothing is left."""
    settings, said = read_study(str(study)), []
    callbacks = StudyCallbacks(lambda: bool(said), show=lambda what, done, total: said.append((what, done, total)))
    work = prepare_work(settings, arm_configs(settings, compose_config), StudyFolder(tmp_path), callbacks, "one")
    with pytest.raises(StoppedError, match="the study was told to stop"):
        work.settle_all(work.parts(work.arms))
    assert said[0][0].endswith("windows and stages")
    assert list((tmp_path / "data" / "stages").iterdir()) == []


def test_windows_to_measure_on_are_waited_for(study: Path, tmp_path: Path) -> None:
    settings, said = read_study(str(study)), []
    callbacks = StudyCallbacks(lambda: bool(said), say=said.append)
    work = prepare_work(settings, arm_configs(settings, compose_config), StudyFolder(tmp_path), callbacks, "one")
    stopped = pytest.raises(StoppedError, match="the study was told to stop")
    with builder(tmp_path / "valid") as other, stopped:
        _ = work.windows.measured
    assert other.poll() is not None
    assert said[0].startswith(f"windows and stages to measure on: {WAITING} {other.pid} on ")
