"""Where the tasks of a job run: on processes of this machine, on Slurm or on Ray, by datatrove's executors.

A task makes one shard. The shards alone decide what is done; datatrove's own markers are made to agree with them.
"""

import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, final, runtime_checkable

from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.errors import ConfigError, MissingExtraError, OutputError, WorkerDiedError
from cascaded_dllm.os_errors import remedy_for
from cascaded_dllm.preprocess.progress import forget_progress, heartbeats, logs_folder, records_in_progress
from cascaded_dllm.processes import process_pool, workers_from

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor

EXECUTORS = ("local", "slurm", "ray")
_READERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("cpus", "memory_gb", "gpus"), ("slurm", "ray")),
    **dict.fromkeys(("time", "partition", "account", "setup", "submit_anyway"), ("slurm",)),
    "ray_address": ("ray",),
}
"""The executors that read each option."""
POLL_SECONDS = 0.5
"""Time between two looks of an executor at its tasks."""
OnProgress: TypeAlias = Callable[[Collection[int], int], None]
"""Called about twice a second with the shards made since the last call and the records done in unfinished shards."""

Task: TypeAlias = Callable[[object, int, int], None]
"""Makes a shard, in the form of a step of datatrove: called with the output of the step before (None), the number of
the shard, and the number of shards. It is picklable, so that it can run anywhere."""


@runtime_checkable
class SharedTask(Protocol):
    """A task that can use several processes."""

    def on_processes(self, number: int) -> Task:
        """The same task on `number` processes."""


class Share(NamedTuple):
    """The number of processes of one shard, and of those of all shards before it."""

    processes: int
    first_worker: int


@final
@dataclass(frozen=True, slots=True)
class SharedOut:
    """A task that gives every shard a number of processes of its own; itself a `Task`.

    Attributes:
        task: the task on any number of processes.
        shares: by shard; all of these shards are made at the same time.
    """

    task: SharedTask
    shares: Mapping[int, Share]

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Makes shard `rank`; see `Task`."""
        share = self.shares[rank]
        # GPUs are assigned by number, so no two processes may have the same number.
        with workers_from(share.first_worker):
            self.task.on_processes(share.processes)(data, rank, world_size)


def shared_out(workers: int, shards: Sequence[int]) -> dict[int, Share]:
    """The share of each shard in all `workers`, which are at least as many as the shards."""
    each, over = divmod(workers, len(shards))
    return {
        index: Share(each + (number < over), number * each + min(number, over)) for number, index in enumerate(shards)
    }


@final
@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of one dataset.

    Attributes:
        task: makes the shard whose number it is called with.
        folder: of the dataset; logs go to `folder`/logs.
        num_shards: of the dataset.
        missing: shards that are to be made now.
        complete: shards that are complete; other tasks may be at work on the rest.
    """

    task: Task
    folder: Path
    num_shards: int
    missing: Sequence[int]
    complete: Sequence[int]

    @property
    def logs(self) -> Path:
        """Where datatrove keeps its logs, statistics and markers."""
        return logs_folder(self.folder)

    def mark(self) -> None:
        """Makes datatrove's markers agree with the shards, either of which may have been removed since."""
        markers = self.logs / "completions"
        markers.mkdir(parents=True, exist_ok=True)
        for index in self.missing:
            (markers / f"{index:05d}").unlink(missing_ok=True)
        for index in self.complete:
            (markers / f"{index:05d}").touch()
        forget_progress(self.folder, self.complete)


@final
@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that every task requests from a cluster.

    Attributes:
        workers: tasks that run at the same time; -1 for no limit.
        cpus: cores.
        memory_gb: memory per core, in GB.
        gpus: number of GPUs.
        time: limit, in Slurm's notation.
        partition: of Slurm.
        account: of Slurm; None for the user's default.
        setup: shell command that prepares the environment on a node; None for the environment of this process.
    """

    workers: int = -1
    cpus: int = 1
    memory_gb: int = 4
    gpus: int = 0
    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    setup: str | None = None

    @property
    def prepare(self) -> str:
        """The shell command that prepares the environment on a node: `setup`, or one for this environment."""
        return self.setup or f'export PATH="{Path(sys.executable).parent}:$PATH"'

    def check(self, executor: str) -> None:
        """Checks, before any work, that these resources suit an executor.

        Raises:
            ConfigError: the executor is unknown or does not read one of them, Slurm has no partition, or a number is
                too small.
        """
        require_read(executor, {"partition": self.partition, "account": self.account, "setup": self.setup})
        if executor == "slurm" and self.partition is None:
            raise ConfigError("Slurm has to know where to run, and no partition is given; give --partition")
        for option, least in (("cpus", 1), ("memory_gb", 1), ("gpus", 0)):
            require_at_least(f"--{option.replace('_', '-')}", getattr(self, option), least)


def require_read(executor: str, options: Mapping[str, object]) -> None:
    """Checks that an executor reads all options that are given.

    Args:
        executor: one of EXECUTORS.
        options: values by name; None for one that is not given.

    Raises:
        ConfigError: the executor is unknown, or would ignore an option.
    """
    one_of("the executor", executor, EXECUTORS)
    for option, value in options.items():
        if value is not None and executor not in _READERS[option]:
            instead = " (here --workers says how many processes there are)" if option == "cpus" else ""
            raise ConfigError(
                f"--executor {executor} has no use for --{option.replace('_', '-')} {value!r}{instead}; leave it out, "
                f"or choose --executor {' or '.join(_READERS[option])}"
            )


def require_libraries(executor: str) -> None:
    """Checks, before a corpus is read, that what an executor needs is installed, without importing it.

    Args:
        executor: one of EXECUTORS.

    Raises:
        MissingExtraError: datatrove, or for "ray" Ray, is not installed.
    """
    if importlib.util.find_spec("datatrove") is None:
        raise MissingExtraError("datatrove", extra="preprocess", purpose="cdllm preprocess")
    if executor == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", extra="ray", purpose="--executor ray")


def run_local(tasks: Tasks, workers: int, on_progress: OnProgress = lambda *_: None) -> None:
    """Runs the missing tasks on processes of this machine, and returns when all are done.

    Args:
        tasks: see `Tasks`.
        workers: number of processes.
        on_progress: see `OnProgress`.

    Raises:
        WorkerDiedError: a process was killed. Complete shards are kept.
        OutputError: the logs cannot be written.
        CascadeError: a task raised it; the other tasks are terminated.
    """
    executor = local_executor(tasks)
    num_processes = min(workers, len(tasks.missing))
    with process_pool(num_processes, error_log=tasks.logs / f"errors_{tasks.missing[0]:05d}.log") as pool:
        try:
            tasks.mark()
            before = heartbeats(tasks.folder, missing := frozenset(tasks.missing))
            running = {pool.submit(run_rank, executor, index): index for index in tasks.missing}
            while running:
                done, _ = wait(running, timeout=POLL_SECONDS)
                for future in done:
                    future.result()
                on_progress(
                    [running.pop(future) for future in done], records_in_progress(tasks.folder, missing, before)
                )
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a process that makes a shard was killed, often by the system for want of memory; complete shards are "
                f"kept, logs are in {tasks.logs}: run the same command again, with fewer --workers if memory was short"
            ) from error
        except OSError as error:
            # Writing a shard turns such errors into typed ones; this one is about datatrove's logs or markers.
            remedy = remedy_for(error, "choose an output folder that you may write to and that has room")
            raise OutputError(f"{tasks.logs} cannot be written ({error}); {remedy}") from error


def local_executor(tasks: Tasks) -> "PipelineExecutor":
    """datatrove's executor, of which every process runs one rank at a time.

    Its own `run` gives the ranks to a pool that waits forever if the system kills one of its processes.
    """
    from datatrove.executor.local import LocalPipelineExecutor

    return LocalPipelineExecutor(pipeline=[tasks.task], tasks=tasks.num_shards, logging_dir=str(tasks.logs.resolve()))


def run_rank(executor: "PipelineExecutor", rank: int) -> None:
    """Runs one task in this process, with datatrove's log, statistics and marker."""
    # Local rank 0 would also log to the terminal; rank 1 logs to its file only.
    executor._run_for_rank(rank, local_rank=1)
