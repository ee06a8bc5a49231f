"""The tasks of a job on a Ray cluster.

datatrove's own executor for Ray hides what a task raises and waits for ever when the system kills one; here Ray is
asked for one remote call a task, and datatrove's part is what it is elsewhere: log, statistics, marker.
"""

import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

from cascaded_dllm.errors import CascadeError, ConfigError, DataError, MissingExtraError, WorkerDiedError
from cascaded_dllm.preprocess.executors import Resources, Tasks, local_executor, run_rank

_ANSWER_SECONDS = 10.0


def run_ray(tasks: Tasks, resources: Resources, address: str | None) -> None:
    """Runs the missing tasks on Ray, and returns when all are done.

    Args:
        tasks: see `Tasks`; their folder must be seen by the nodes.
        resources: for every task.
        address: of the cluster; None for one that is started here.

    Raises:
        CascadeError: what a task raised.
        ConfigError: the cluster has no room for a task.
        DataError: the cluster cannot be reached.
        MissingExtraError: datatrove or Ray is not installed.
        WorkerDiedError: a process was killed. What is complete is kept.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", extra="ray", purpose="--executor ray") from error
    executor = local_executor(tasks)
    if address is not None:
        _check_address(address)
    tasks.mark()
    ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    memory = resources.memory_gb * resources.cpus << 30
    try:
        _check_room(ray.cluster_resources(), {"CPU": resources.cpus, "GPU": resources.gpus, "memory": memory})
        remote = ray.remote(run_rank).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, memory=memory, max_retries=0
        )
        waiting = deque(tasks.missing)
        running: list[Any] = []
        while waiting or running:
            while waiting and (resources.workers < 0 or len(running) < resources.workers):
                running.append(remote.remote(executor, waiting.popleft()))
            done, running = ray.wait(running)
            ray.get(done)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise WorkerDiedError(
            "a process that makes a shard was killed, often by the system for want of memory; complete shards are "
            f"kept, logs are in {tasks.logs}: run the same command again, with more --memory-gb if memory was short"
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, CascadeError) else error from error
    finally:
        ray.shutdown()


def _check_room(there: Mapping[str, float], wanted: Mapping[str, int]) -> None:
    """Whether the cluster could ever run one task: Ray would wait for a node that has what is asked for.

    Raises:
        ConfigError: it could not.
    """
    for what, number in wanted.items():
        if number > there.get(what, 0.0):
            raise ConfigError(
                f"a task asks for {what} {number:,}, and all of the Ray cluster has {there.get(what, 0.0):,.0f}; "
                "choose other --cpus, --gpus or --memory-gb"
            )


def _check_address(address: str) -> None:
    """Knocks at a Ray cluster, because Ray itself would try for minutes.

    Raises:
        ConfigError: this is no address.
        DataError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not (host and port.isdecimal()):
        raise ConfigError(f"--ray-address {address!r} is no address; write host:port, ray://host:port or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"no Ray cluster answers at {address} ({error}); start one with ray start --head, or leave --ray-address "
            "out for one on this machine"
        ) from error
