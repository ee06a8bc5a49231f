"""Which process of a run this one is: told by torchrun or Slurm through the environment, and read here alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cascaded_dllm.errors import ConfigError

_FIRST_PORT, _NUM_PORTS = 20_000, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 for the first, which writes and reports.
        size: how many there are, on all machines.
        local_rank: its number on its machine.
        local_size: how many there are on its machine.
        address: where the first one can be reached.
        port: there.
        has_store: a launcher keeps the place at which the processes meet; otherwise the first process does.
        num_restarts: how often the launcher has started all of them again.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    has_store: bool = False
    num_restarts: int = 0


def joined_world(environment: Mapping[str, str], *, ngpus: int | None) -> World | None:
    """The world that torchrun or srun has started this process in; None where it is alone.

    A Slurm step of one task is no world: inside it, as anywhere else, a program may start processes of its own.

    Args:
        environment: of this process.
        ngpus: the number of processes that the configuration asks for, or None.

    Raises:
        ConfigError: a variable is missing or no number, or `ngpus` is another number than that of the processes.
    """
    if environment.keys() & {"RANK", "WORLD_SIZE"}:
        world, launcher = _of_torchrun(environment), "torchrun"
    elif "SLURM_STEP_NUM_TASKS" in environment and _number(environment, "SLURM_STEP_NUM_TASKS") > 1:
        world, launcher = _of_slurm(environment), "srun"
    else:
        return None
    if ngpus is not None and ngpus != world.size:
        raise ConfigError(
            f"ngpus is {ngpus} and {launcher} has started {world.size} processes; leave ngpus out (ngpus=null for a "
            f"run that is taken up with its settings), or start {ngpus}"
        )
    return world


def _of_torchrun(environment: Mapping[str, str]) -> World:
    return World(
        rank=_number(environment, "RANK"),
        size=_number(environment, "WORLD_SIZE"),
        local_rank=_number(environment, "LOCAL_RANK"),
        local_size=_number(environment, "LOCAL_WORLD_SIZE"),
        address=_value(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT"),
        has_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        num_restarts=_number(environment, "TORCHELASTIC_RESTART_COUNT")
        if "TORCHELASTIC_RESTART_COUNT" in environment
        else 0,
    )


def _of_slurm(environment: Mapping[str, str]) -> World:
    """The tasks of this step; they meet at the first host of its list, at a port that follows from the step's number.

    MASTER_ADDR and MASTER_PORT win, for networks in which that host has another name or the port is taken.
    """
    tasks = _value(environment, "SLURM_STEP_TASKS_PER_NODE")
    # Steps of one job may run beside one another, and jobs on one machine.
    step = 7 * _number(environment, "SLURM_JOB_ID") + _number(environment, "SLURM_STEP_ID")
    return World(
        rank=_number(environment, "SLURM_PROCID"),
        size=_number(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        local_size=tasks_of_node(tasks, _number(environment, "SLURM_NODEID")),
        address=environment.get("MASTER_ADDR") or first_host(_value(environment, "SLURM_STEP_NODELIST")),
        port=_number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else _FIRST_PORT + step % _NUM_PORTS,
    )


def first_host(hosts: str) -> str:
    """The first host of Slurm's compressed list: "gpu-003" of "gpu-[003-005,009],login1"."""
    # A comma inside brackets separates numbers, not hosts.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    assert first is not None
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def tasks_of_node(counts: str, node: int) -> int:
    """The tasks on node `node` of Slurm's compressed counts: 2 on nodes 0 to 2 and 1 on node 3 of "2(x3),1"."""
    expanded: list[int] = []
    for part in counts.split(","):
        number, _, repeated = part.partition("(x")
        expanded += [int(number)] * int(repeated.rstrip(")") or 1)
    return expanded[node]


def _value(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise ConfigError(
            f"{name} is not set, though other variables say that this process is one of several; start it with "
            "torchrun or srun, or with ngpus=N"
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    value = _value(environment, name)
    if not value.isdecimal():
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, as torchrun and srun set it")
    return int(value)
