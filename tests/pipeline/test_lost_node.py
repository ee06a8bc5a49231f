"""A node of a real Ray cluster that is lost while a shard is made on it."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascaded_dllm.errors import DataError, WorkerDiedError
from cascaded_dllm.preprocess.executors import Resources, Tasks
from cascaded_dllm.preprocess.on_ray import run_ray
from tests.pipeline.test_executors import wait_until

pytestmark = pytest.mark.slow


class WaitingTask:
    """Says that it has begun, and is done as soon as it may be; a shard that must not be is an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        from cascaded_dllm.errors import DataError
        from tests.pipeline.test_executors import wait_until

        with (self.folder / f"begun_{rank}").open("a") as file:
            file.write("x")
        if (self.folder / "fail").exists():
            raise DataError(f"shard {rank} is bad")
        wait_until((self.folder / "go").exists)
        (self.folder / f"done_{rank}").touch()


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from tests.repo.source_tree import CHECKOUT

    # Workers unpickle the task by its name.
    monkeypatch.setenv("PYTHONPATH", f"{CHECKOUT}:{CHECKOUT / 'src'}")
    handler = signal.getsignal(signal.SIGTERM)
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 1 << 30})
    yield there
    there.shutdown()
    # Ray has put its own in the place, and leaves it there.
    signal.signal(signal.SIGTERM, handler)


def add_node(cluster):
    return cluster.add_node(num_cpus=1, memory=1 << 30)


@pytest.fixture
def background():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def start(background, folder, cluster, num_shards=2):
    """Runs the tasks in a thread; returns what they raise, and what is lost."""
    lost = []
    tasks = Tasks(WaitingTask(folder), folder / "data", num_shards, list(range(num_shards)), [])
    resources = Resources(memory_gb=1)
    callbacks = (lambda *_: None, lambda *what: lost.append(what))
    running = background.submit(run_ray, tasks, resources, cluster.address, *callbacks)
    return running, lost


def test_a_lost_shard_is_made_on_another_node(cluster, background, tmp_path):
    node = add_node(cluster)
    running, lost = start(background, tmp_path, cluster)
    wait_until((tmp_path / "begun_0").exists)
    add_node(cluster)
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: lost or running.done())
    (tmp_path / "go").touch()
    running.result(120)
    assert lost[0][0] == 0
    assert (tmp_path / "begun_0").read_text() == "xx"
    assert (tmp_path / "done_0").exists()
    assert (tmp_path / "done_1").exists()


def test_the_only_node_is_lost(cluster, background, tmp_path):
    node = add_node(cluster)
    running, _ = start(background, tmp_path, cluster)
    wait_until((tmp_path / "begun_0").exists)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(WorkerDiedError, match="the Ray cluster has lost nodes: a task asks for CPU 1"):
        running.result(120)


def test_what_a_task_raises_is_not_tried_again(cluster, background, tmp_path):
    (tmp_path / "fail").touch()
    add_node(cluster)
    running, lost = start(background, tmp_path, cluster, 1)
    with pytest.raises(DataError, match="shard 0 is bad"):
        running.result(120)
    assert not lost
    assert (tmp_path / "begun_0").read_text() == "x"
