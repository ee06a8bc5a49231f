"""The tasks of a job on a Ray cluster.

datatrove's own executor for Ray hides what a task raises and waits forever if the system kills one. Here every task is
one remote call of Ray, and datatrove does what it does elsewhere: log, statistics, marker.
"""

import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from cascaded_dllm.errors import CascadeError, ConfigError, DataError, WorkerDiedError
from cascaded_dllm.preprocess.executors import POLL_SECONDS, OnProgress, Resources, Tasks, local_executor, run_rank
from cascaded_dllm.preprocess.progress import heartbeats, records_in_progress

_ANSWER_SECONDS = 10.0
_TRIES = 3
"""For each shard: a task that loses its process this often has not had bad luck."""


def run_ray(
    tasks: Tasks,
    resources: Resources,
    address: str | None,
    on_progress: OnProgress,
    on_lost: Callable[[int, str], None],
) -> None:
    """Runs the missing tasks on Ray, and returns when all are done.

    A task whose process or node was lost is started again, with three tries in all; one that raises an error is not.

    Args:
        tasks: see `Tasks`; all nodes must see their folder.
        resources: for every task.
        address: of the cluster; None to start one here.
        on_progress: see `OnProgress`.
        on_lost: called with the shard whose task is started again, and the name of the error that ended it.

    Raises:
        CascadeError: a task raised it.
        ConfigError: the cluster has no room for a task.
        DataError: the cluster cannot be reached.
        WorkerDiedError: a process was killed too often, or nodes were lost. Complete shards are kept.
    """
    import ray

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
    """`run_ray` on a connected cluster, with the executor of datatrove.

    Raises:
        ConfigError: the cluster has no room for a task.
        WorkerDiedError: a process was killed too often, or nodes were lost.
    """
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory_gb * resources.cpus << 30}
    if short := _short_of(ray.cluster_resources(), wanted):
        raise ConfigError(f"{short}; choose other --cpus, --gpus or --memory-gb")
    # If memory is short, Ray itself would start a task again without end.
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
        # A task that no remaining node has room for would wait forever.
        if (waiting or running) and (short := _short_of(ray.cluster_resources(), wanted)):
            raise _died(tasks, f"the Ray cluster has lost nodes: {short}")


def _why_lost(ray: Any, reference: Any) -> Exception | None:
    """The error that says how the process or node of a task was lost; None if the task is done.

    Any other error of the task is raised.
    """
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
    """The error for processes or nodes that were lost for good."""
    return WorkerDiedError(
        f"{what}; complete shards are kept, logs are in {tasks.logs}: run the same command again, with more "
        "--memory-gb if memory was short, or once the nodes are back"
    )


def _short_of(there: Mapping[str, float], wanted: Mapping[str, int]) -> str | None:
    """What the cluster lacks to run even one task, for which Ray would wait forever; None if it lacks nothing."""
    for what, number in wanted.items():
        if number > there.get(what, 0.0):
            return f"a task asks for {what} {number:,}, and all of the Ray cluster has {there.get(what, 0.0):,.0f}"
    return None


def _check_address(address: str) -> None:
    """Checks that a Ray cluster answers; Ray itself would try for minutes.

    Raises:
        ConfigError: `address` is not an address.
        DataError: nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not (host and port.isdecimal()):
        raise ConfigError(f"--ray-address {address!r} is not an address; write host:port, ray://host:port or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"no Ray cluster answers at {address} ({error}); start one with ray start --head, or leave --ray-address "
            "out for one on this machine"
        ) from error
