"""Communication between processes that train together, apart from gradients: sums, votes, errors."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from cascaded_dllm.errors import CascadeError, WorkerDiedError
from cascaded_dllm.train.world import World

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""A process that has waited this long for another one ends with an error. Nothing that one of them does alone, such as
writing the rest of the last checkpoint, takes nearly as long."""

_TO_MEET = timedelta(minutes=10)
_TO_PREPARE = timedelta(days=2)


@final
class Group:
    """The processes of a run, seen from one of them.

    Votes, values and errors are exchanged through the memory of the host, so they never wait for a device.

    Attributes:
        rank: the number of this process.
        size: the number of processes.
        is_first: whether this is the process that writes and reports.
    """

    def __init__(self, world: World | None = None, store: Store | None = None) -> None:
        self.rank, self.size = (0, 1) if world is None else (world.rank, world.size)
        self.is_first = self.rank == 0
        self._store, self._num_prepared = store, 0

    def sum(self, tensor: Tensor) -> None:
        """Overwrite `tensor` in every process with the sum over all of them."""
        if self.size > 1:
            with self._others():
                dist.all_reduce(tensor)

    def begin_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begin `sum` in the background; `tensor` holds the sum once the returned function has been called."""
        with self._others():
            work = dist.all_reduce(tensor, async_op=True)
        assert work is not None

        def end() -> None:
            with self._others():
                work.wait()

        return end

    def broadcast(self, tensor: Tensor) -> None:
        """Overwrite `tensor` in every process with the tensor of the first."""
        if self.size > 1:
            with self._others():
                dist.broadcast(tensor, src=0)

    def any(self, answer: bool) -> bool:
        """Whether `answer` is true in any process; every process gets the same result."""
        if self.size == 1:
            return answer
        votes = torch.tensor(int(answer))
        self.sum(votes)
        return bool(votes)

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, ordered by rank; every process gets the same list."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._others():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], T]) -> T:
        """The result of `function` in the first process, which alone calls it; every process gets it.

        Raises:
            CascadeError: `function` raised it; it is raised in every process, so that none waits for the others.
        """
        if self.size == 1:
            return function()
        (value, error), *_ = self.gather(_caught(function) if self.is_first else (None, None))
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def together(self, function: Callable[[], T]) -> T:
        """The result of `function` in this process, once it has returned in every process.

        Raises:
            CascadeError: `function` raised it in some process; every process raises the one of the lowest rank.
        """
        value, error = _caught(function)
        errors = self.gather(error)
        for other in errors:
            if other is not None:
                raise other
        return value  # type: ignore[return-value]

    def after_first(self, function: Callable[[], T]) -> T:
        """The result of `function` in this process; the first process calls it, and the others after it.

        For work whose result the first process leaves on the disk for all, and that may take longer than `TIMEOUT`.
        """
        self._num_prepared += 1
        key = f"prepared-{self._num_prepared}"
        if self.is_first:
            try:
                return function()
            finally:
                if self._store is not None:
                    self._store.set(key, "1")
        assert self._store is not None
        with self._others():
            self._store.wait([key], _TO_PREPARE)
        return function()

    @contextlib.contextmanager
    def _others(self) -> Iterator[None]:
        """Turns errors of communication into errors that say what they mean.

        Raises:
            WorkerDiedError: another process has ended, or did not answer in time.
        """
        try:
            yield
        except RuntimeError as error:
            raise WorkerDiedError(
                f"process {self.rank} of {self.size} has lost the others ({str(error).splitlines()[0]}): one of them "
                "has ended or did not answer; see its own error, and give the same command again: the run goes on from "
                "its last checkpoint"
            ) from error


def _caught(function: Callable[[], T]) -> tuple[T | None, CascadeError | None]:
    try:
        return function(), None
    except CascadeError as error:
        return None, error


@contextlib.contextmanager
def open_group(world: World | None, device: torch.device) -> Iterator[Group]:
    """The group of `world`, in which this process computes on `device`; a group of one if `world` is None.

    Args:
        world: this process among those of the run.
        device: device of this process; NCCL exchanges gradients between CUDA devices, Gloo between others.

    Raises:
        WorkerDiedError: the other processes cannot be reached.
    """
    if world is None:
        yield Group()
        return
    on_cuda = device.type == "cuda"
    try:
        server = TCPStore(
            world.address,
            world.port,
            world.size,
            is_master=world.rank == 0 and not world.has_store,
            timeout=_TO_MEET,
        )
        # A launcher's store may outlive the processes, and still hold the keys of those before a restart.
        store = PrefixStore(f"cascaded-dllm/{world.num_restarts}", server)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=PrefixStore("processes", store),
            rank=world.rank,
            world_size=world.size,
            timeout=TIMEOUT,
            device_id=device if on_cuda else None,
        )
    except RuntimeError as error:
        raise WorkerDiedError(
            f"process {world.rank} of {world.size} cannot meet the others at {world.address}:{world.port} "
            f"({str(error).splitlines()[0]}); see that all were started and that the port is free and reachable, or "
            "name another one with MASTER_ADDR and MASTER_PORT"
        ) from error
    try:
        yield Group(world, store)
    except BaseException:
        # NCCL would wait for messages that never come; its connections are closed when the process ends.
        if not on_cuda:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
