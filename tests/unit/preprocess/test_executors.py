"""What is said when something around the tasks fails; the tasks themselves run for real in tests/pipeline."""

import contextlib
import errno
import importlib.util
import sys
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from types import SimpleNamespace

import pytest

from cascaded_dllm.cli.preprocess_run import run_job
from cascaded_dllm.errors import ConfigError, MissingExtraError, OutputError, WorkerDiedError
from cascaded_dllm.preprocess import encoder, executors, on_ray
from cascaded_dllm.preprocess.executors import Resources, Share, SharedOut, Tasks, run_local, shared_out
from cascaded_dllm.preprocess.job import CorpusChoice, Job, ScorerChoice
from cascaded_dllm.processes import worker_index
from cascaded_dllm.text.document import Document


def nothing(data: object, rank: int, world_size: int) -> None:
    """A task that is done at once."""


@pytest.fixture
def tasks(tmp_path):
    return Tasks(nothing, tmp_path / "data", 2, [0, 1], [])


def failing_pool(error):
    class Pool(ProcessPoolExecutor):
        def submit(self, *_):
            raise error

    return lambda *_, **__: contextlib.nullcontext(object.__new__(Pool))


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            BrokenProcessPool("gone"),
            WorkerDiedError,
            "a process that makes a shard was killed, .* with fewer --workers",
        ),
        (OSError(28, "No space left on device"), OutputError, r"logs cannot be written \(.*No space left.*; choose an"),
        # Every process of a pool takes an open file, so too many of them meet the limit first.
        (OSError(errno.EMFILE, "Too many"), OutputError, r"cannot be written \(.*Too many\); raise the limit of open"),
    ],
)
def test_local_tasks_that_fail_from_outside(tasks, monkeypatch, error, expected, message):
    monkeypatch.setattr(executors, "process_pool", failing_pool(error))
    with pytest.raises(expected, match=message):
        run_local(tasks, 1)


def test_workers_are_shared_out():
    assert shared_out(5, [0, 2, 7]) == {0: (2, 0), 2: (2, 2), 7: (1, 4)}
    assert shared_out(8, [0, 1, 2]) == {0: (3, 0), 1: (3, 3), 2: (2, 6)}
    assert shared_out(8, [3]) == {3: (8, 0)}
    asked = []

    class Task:
        def on_processes(self, number):
            return lambda *arguments: asked.append((number, worker_index(), arguments))

    SharedOut(Task(), {0: Share(2, 0), 2: Share(1, 2)})(None, 2, 3)
    assert asked == [(1, 2, (None, 2, 3))]
    assert worker_index() == 0


def test_killed_process_that_scores(monkeypatch):
    monkeypatch.setattr(encoder, "process_pool", failing_pool(BrokenProcessPool("gone")))
    with (
        encoder.encoder_processes(lambda: None, 2) as encode_all,
        pytest.raises(WorkerDiedError, match=r"a process that scores documents was killed, .* with fewer workers"),
    ):
        list(encode_all([[Document("a", "b")], [Document("c", "d")]]))


def test_single_batch_starts_no_process(monkeypatch):
    monkeypatch.setattr(encoder, "process_pool", failing_pool(BrokenProcessPool("gone")))
    batch = [Document("a", "b")]
    monkeypatch.setattr(encoder.Encoder, "encode_all", lambda _, batches: iter(batches))
    here = object.__new__(encoder.Encoder)
    with encoder.encoder_processes(lambda: here, 2) as encode_all:
        assert list(encode_all([batch])) == [batch]
        assert list(encode_all([])) == []


@pytest.mark.parametrize(("executor", "library"), [("local", "datatrove"), ("slurm", "datatrove"), ("ray", "ray")])
def test_missing_library(tmp_path, monkeypatch, executor, library):
    """It is told before anything else: the corpus, which is not there either, would be read for a tokenizer."""
    for name in ("datatrove", "ray"):
        monkeypatch.setitem(sys.modules, name, None if name == library else SimpleNamespace())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys.modules[name])
    job = Job(CorpusChoice(str(tmp_path / "a.txt")), ScorerChoice("random"), None, 300, 1, str(tmp_path))
    with pytest.raises(MissingExtraError, match=rf"needs {library}, which is not installed"):
        run_job(
            job,
            executor=executor,
            workers=None,
            resources=Resources(partition="main" if executor == "slurm" else None),
            shard=None,
            ray_address=None,
            submit_anyway=False,
        )


@pytest.mark.parametrize("option", ["cpus", "memory_gb", "gpus"])
def test_task_that_would_get_nothing(option):
    with pytest.raises(ConfigError, match=rf"--{option.replace('_', '-')} is -1; it must be at least [01]$"):
        Resources(partition="main", **{option: -1}).check("slurm")


class CrashedError(Exception):
    """Stands for what Ray raises where a process was lost."""


class RayletError(Exception):
    """Stands for what Ray raises where it is itself lost on this machine."""


class TaskError(Exception):
    """Stands for what Ray raises where a task has raised something."""

    def __init__(self, cause):
        self.cause = cause


def fake_ray(*resources, error=CrashedError):
    """A Ray whose tasks all fail, and whose cluster has `resources`: at first, then as long as it is asked."""

    def get(_):
        raise error

    has = iter(resources)
    last = resources[-1]
    exceptions = SimpleNamespace(
        **dict.fromkeys(("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "ObjectLostError"), CrashedError),
        RayTaskError=TaskError,
        LocalRayletDiedError=RayletError,
    )
    handle = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: object()))
    return SimpleNamespace(
        init=lambda **_: None,
        shutdown=lambda: None,
        cluster_resources=lambda: next(has, last),
        remote=lambda _: handle,
        wait=lambda running, timeout: (running[:1], running[1:]),
        get=get,
        exceptions=exceptions,
    )


def ignored(finished, in_progress):
    """Is told how far tasks are, and does nothing."""


ENOUGH = {"CPU": 2.0, "memory": 1e12}


@pytest.mark.parametrize(
    ("error", "why"), [(CrashedError, "CrashedError"), (TaskError(WorkerDiedError("killed")), "WorkerDiedError")]
)
def test_processes_that_are_lost_on_ray_time_and_again(tasks, monkeypatch, error, why):
    """Those that Ray starts, and those that a task starts itself."""
    monkeypatch.setitem(sys.modules, "ray", fake_ray(ENOUGH, error=error))
    told = []
    with pytest.raises(WorkerDiedError, match=r"process that makes shard 0 was lost 3 times; .* with more --memory-gb"):
        on_ray.run_ray(tasks, Resources(), None, ignored, lambda *lost: told.append(lost))
    assert told == [(0, why), (1, why)] * 2


def test_what_a_task_raises_on_ray_comes_out_at_once(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray(ENOUGH, error=TaskError(ConfigError("wrong"))))
    with pytest.raises(ConfigError, match="wrong"):
        on_ray.run_ray(tasks, Resources(), None, ignored, pytest.fail)


def test_nodes_that_are_lost_on_ray(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray(ENOUGH, {"CPU": 0.0}))
    with pytest.raises(WorkerDiedError, match="cluster has lost nodes: a task asks for CPU 1, and all of the Ray"):
        on_ray.run_ray(tasks, Resources(), None, ignored, lambda *_: None)


def test_ray_that_is_itself_lost(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray(ENOUGH, error=RayletError))
    with pytest.raises(WorkerDiedError, match="the Ray of this machine was killed; complete shards are kept"):
        on_ray.run_ray(tasks, Resources(), None, ignored, lambda *_: None)


def test_cluster_without_room(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray(ENOUGH))
    with pytest.raises(
        ConfigError, match="a task asks for GPU 1, and all of the Ray cluster has 0; choose other --cpus"
    ):
        on_ray.run_ray(tasks, Resources(gpus=1), None, ignored, lambda *_: None)
