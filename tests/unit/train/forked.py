"""Groups of processes that train together, forked as `tests.processes` does it."""

import signal
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

from cascaded_dllm.train.world import World
from tests.processes import context


def processes_of(function: Callable[..., Any], *arguments: Any, number: int) -> tuple[list[ForkServerProcess], Any]:
    """`number` processes that have been started, each with its world before the other arguments, and their results."""
    results = context().SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(number):
        world = World(rank=rank, size=number, local_rank=rank, local_size=number, address="127.0.0.1", port=port)
        process = context().Process(target=_put, args=(results, function, world, *arguments), daemon=True)
        process.start()
        processes.append(process)
    return processes, results


def _put(results: Any, function: Callable[..., Any], world: World, *arguments: Any) -> None:
    results.put((world.rank, function(world, *arguments)))


def together(function: Callable[..., Any], *arguments: Any, number: int) -> list[Any]:
    """What the function returns in each of `number` processes."""
    processes, results = processes_of(function, *arguments, number=number)
    found = {}
    while len(found) < number:
        dead = [process.exitcode for process in processes if process.exitcode not in (None, 0)]
        assert not dead, f"processes ended with {dead}"
        if not results.empty():
            rank, value = results.get()
            found[rank] = value
        else:
            processes[0].join(0.01)
    for process in processes:
        process.join()
    return [found[rank] for rank in range(number)]


def until_killed(function: Callable[..., Any], *arguments: Any, number: int) -> bool:
    """Whether the processes have finished; when one has killed itself, the others are killed as well."""
    processes, _ = processes_of(function, *arguments, number=number)
    while any(process.is_alive() for process in processes):
        if any(process.exitcode == -signal.SIGKILL for process in processes):
            for process in processes:
                process.kill()
        processes[0].join(0.01)
    codes = {process.exitcode for process in processes}
    assert codes <= {0, -signal.SIGKILL, 1}, codes
    return codes == {0}
