"""The tasks of a job on a Ray cluster.

datatrove's own executor for Ray hides what a task raises and waits for ever when the system kills one; here Ray is
asked for one remote call a task, and datatrove's part is what it is elsewhere: log, statistics, marker.
"""

import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from cascaded_dllm.errors import CascadeError, ConfigError, DataError, MissingExtraError, WorkerDiedError
from cascaded_dllm.preprocess.executors import POLL_SECONDS, OnProgress, Resources, Tasks, local_executor, run_rank
from cascaded_dllm.preprocess.progress import heartbeats, records_in_progress

_ANSWER_SECONDS = 10.0
_TRIES = 3
"""Of a shard: more than a few lost processes are no accident."""


def run_ray(
    tasks: Tasks,
    resources: Resources,
    address: str | None,
    on_progress: OnProgress,
    on_lost: Callable[[int, str], None],
) -> None:
    """Runs the missing tasks on Ray, and returns when all are done.

    A task whose process or node was lost is begun again, a few times; one that raises something is not.

    Args:
        tasks: see `Tasks`; their folder must be seen by the nodes.
        resources: for every task.
        address: of the cluster; None for one that is started here.
        on_progress: see `OnProgress`.
        on_lost: told the shard whose task is begun again, and what became of it.

    Raises:
        CascadeError: what a task raised.
        ConfigError: the cluster has no room for a task.
        DataError: the cluster cannot be reached.
        MissingExtraError: datatrove or Ray is not installed.
        WorkerDiedError: a process was killed too often, or nodes were lost. What is complete is kept.
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
    try:
        _make_all(ray, tasks, resources, executor, on_progress, on_lost)
    except ray.exceptions.LocalRayletDiedError as error:
        raise _died(tasks, "the Ray of this machine was killed") from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, CascadeError) else error from error
    finally:
        ray.shutdown()


def _make_all(
    ray: Any,
    tasks: Tasks,
    resources: Resources,
    executor: Any,
    on_progress: OnProgress,
    on_lost: Callable[[int, str], None],
) -> None:
    """`run_ray` on a cluster that has been found; `executor` is datatrove's.

    Raises:
        ConfigError: the cluster has no room for a task.
        WorkerDiedError: a process was killed too often, or nodes were lost.
    """
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory_gb * resources.cpus << 30}
    if short := _short_of(ray.cluster_resources(), wanted):
        raise ConfigError(f"{short}; choose other --cpus, --gpus or --memory-gb")
    # Ray itself would begin a task again without end where memory is short.
    remote = ray.remote(run_rank).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, memory=wanted["memory"], max_retries=0
    )
    before = heartbeats(tasks.folder, missing := frozenset(tasks.missing))
    waiting, lost = deque(tasks.missing), Counter[int]()
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and (resources.workers < 0 or len(running) < resources.workers):
            index = waiting.popleft()
            running[remote.remote(executor, index)] = index
        done, _ = ray.wait([*running], timeout=POLL_SECONDS)
        ended = {running.pop(reference): _why_lost(ray, reference) for reference in done}
        made = [index for index, why in ended.items() if why is None]
        on_progress(made, records_in_progress(tasks.folder, missing, before))
        for index, why in ended.items():
            if why is None:
                continue
            lost[index] += 1
            if lost[index] == _TRIES:
                raise _died(tasks, f"a process that makes shard {index} was lost {_TRIES} times") from why
            on_lost(index, type(why).__name__)
            waiting.append(index)
        # A task for which there is no node left would wait for one without end.
        if (waiting or running) and (short := _short_of(ray.cluster_resources(), wanted)):
            raise _died(tasks, f"the Ray cluster has lost nodes: {short}")


def _why_lost(ray: Any, reference: Any) -> Exception | None:
    """What became of the process or node of a task; None for one that is done. What else it raised comes out."""
    exceptions = ray.exceptions
    lost = (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
    )
    try:
        ray.get(reference)
    except lost as error:
        return cast("Exception", error)
    except exceptions.RayTaskError as error:
        # The system killed one of the processes that score documents for the task.
        if isinstance(error.cause, WorkerDiedError):
            return error.cause
        raise
    return None


def _died(tasks: Tasks, what: str) -> WorkerDiedError:
    """What is said when Ray has lost what it cannot do without."""
    return WorkerDiedError(
        f"{what}; complete shards are kept, logs are in {tasks.logs}: run the same command again, with more "
        "--memory-gb if memory was short, or once the nodes are back"
    )


def _short_of(there: Mapping[str, float], wanted: Mapping[str, int]) -> str | None:
    """What the cluster lacks to run even one task: Ray would wait for a node that has what is asked for."""
    for what, number in wanted.items():
        if number > there.get(what, 0.0):
            return f"a task asks for {what} {number:,}, and all of the Ray cluster has {there.get(what, 0.0):,.0f}"
    return None


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
