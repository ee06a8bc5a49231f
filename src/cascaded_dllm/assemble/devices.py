"""The device of every process of a run, and how the processes hold the network."""

import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.parallel import Parallel, Replicated, Single
from cascaded_dllm.train.world import World


def process_device(name: str, world: World | None) -> torch.device:
    """The device on which this process of a run computes; several processes have a GPU each, or all use the CPU.

    The GPU of one of several processes becomes its current device, on which `fully_shard` puts the parts.

    Raises:
        ConfigError: this machine has no such device, or not one for every process.
    """
    if world is None or world.size == 1:
        return choose_device(name)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if kind not in ("cuda", "cpu"):
        raise ConfigError(
            f"device is {name} and {world.size} processes train; give device=cuda or device=cpu, or ngpus=1"
        )
    if kind == "cpu":
        return choose_device("cpu")
    count = torch.cuda.device_count()
    # Slurm may show every task only its own GPU.
    if count != 1 or world.has_store:
        require_gpus(count, world.local_size)
    device = choose_device(f"cuda:{world.local_rank % max(1, count)}")
    torch.cuda.set_device(device)
    return device


def require_gpus(count: int, num_processes: int) -> None:
    """Checks that there is a GPU for every process of this machine.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if count < num_processes:
        raise ConfigError(
            f"{num_processes} processes are to compute on the GPUs of this machine, and it shows {count}; start as "
            "many processes as there are GPUs, or give device=cpu"
        )


def place(model: ScoreModel, strategy: str, group: Group, device: torch.device) -> Parallel:
    """Moves the network to the device, whole or split, and returns how the processes share the work."""
    if group.size == 1:
        model.to(device)
        return Single()
    match strategy:
        case "fsdp":
            # Imported here because the modules of torch that it needs take seconds to import.
            from cascaded_dllm.train.sharded import FullySharded

            return FullySharded(model, group, device)
        case _:
            model.to(device)
            return Replicated(model, group)
