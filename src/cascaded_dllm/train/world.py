"""The place of this process in a run; only this module reads it from the environment that torchrun or Slurm sets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cascaded_dllm.errors import ConfigError

_FIRST_PORT, _NUM_PORTS = 20_000, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 is the first process, which writes and reports.
        size: number of processes on all machines.
        local_rank: its number on its machine.
        local_size: number of processes on its machine.
        address: host at which the first process can be reached.
        port: port at that host.
        has_store: whether a launcher serves the store at which the processes meet; otherwise the first process does.
        num_restarts: how often the launcher has restarted all processes.
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
    """The world in which torchrun or srun started this process; None if it is alone.

    A Slurm step with a single task does not count as a world: a program in it may start processes of its own.

    Args:
        environment: environment variables of this process.
        ngpus: number of processes in the configuration, or None.

    Raises:
        ConfigError: a variable is missing or not a number, or `ngpus` is not the number of processes.
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
    """The tasks of this Slurm step; they meet at its first host, at a port derived from the numbers of job and step.

    MASTER_ADDR and MASTER_PORT override these, for networks in which the host has another name or the port is taken.
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
    """The first host of a compressed list of Slurm: "gpu-003" for "gpu-[003-005,009],login1"."""
    # A comma inside brackets separates numbers, not hosts.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    assert first is not None
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def tasks_of_node(counts: str, node: int) -> int:
    """The tasks on node `node`, from compressed counts of Slurm: for "2(x3),1", 2 on nodes 0 to 2 and 1 on node 3."""
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
