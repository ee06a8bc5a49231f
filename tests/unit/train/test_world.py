"""Which process this one is, from the variables of torchrun and Slurm as their own programs set them."""

import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.train.world import World, first_host, joined_world, tasks_of_node

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}
# Of task 3 of `srun --nodes=2 --ntasks=5` in job 40, as Slurm 22 and later set them.
SRUN = {
    "SLURM_JOB_ID": "40",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "3,2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}
# Of a batch script, outside of srun: the number of tasks is that of the job, but there is one process.
BATCH = {"SLURM_JOB_ID": "40", "SLURM_NTASKS": "5", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def test_alone():
    assert joined_world({}, ngpus=None) is None
    assert joined_world({"MASTER_ADDR": "node7"}, ngpus=4) is None


def test_torchrun():
    world = World(rank=5, size=8, local_rank=1, local_size=4, address="node7", port=29500)
    assert joined_world(TORCHRUN, ngpus=None) == world
    assert joined_world(TORCHRUN, ngpus=8) == world
    assert joined_world(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"}, ngpus=8).has_store
    assert joined_world(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "3"}, ngpus=8) == replace(world, num_restarts=3)


def test_srun():
    world = joined_world(SRUN, ngpus=None)
    assert world == World(rank=3, size=5, local_rank=0, local_size=2, address="gpu07", port=20_000 + 7 * 40 + 2)
    assert not world.has_store


def test_steps_of_a_job_meet_at_different_ports():
    assert joined_world(SRUN | {"SLURM_STEP_ID": "3"}, ngpus=None).port != joined_world(SRUN, ngpus=None).port


def test_place_to_meet_can_be_named():
    named = joined_world(SRUN | {"MASTER_ADDR": "ib-gpu07", "MASTER_PORT": "1234"}, ngpus=5)
    assert (named.address, named.port) == ("ib-gpu07", 1234)


def test_torchrun_inside_of_a_step():
    assert joined_world(SRUN | TORCHRUN, ngpus=None).size == 8


@pytest.mark.parametrize("environment", [BATCH, SRUN | {"SLURM_STEP_NUM_TASKS": "1"}])
def test_one_task_is_no_world(environment):
    """In a batch script and in a step of one task a program may start processes of its own."""
    assert joined_world(environment, ngpus=4) is None


@pytest.mark.parametrize(("environment", "launcher", "size"), [(TORCHRUN, "torchrun", 8), (SRUN, "srun", 5)])
def test_contradiction(environment, launcher, size):
    message = f"ngpus is 4 and {launcher} has started {size} processes; leave ngpus out (ngpus=null for a run"
    with pytest.raises(ConfigError, match=re.escape(message)):
        joined_world(environment, ngpus=4)


@pytest.mark.parametrize("name", TORCHRUN)
def test_variable_that_is_missing(name):
    with pytest.raises(ConfigError, match=rf"^{name} is not set, though other variables .*; start it with torchrun or"):
        joined_world({key: value for key, value in TORCHRUN.items() if key != name}, ngpus=None)


def test_variable_that_is_no_number():
    with pytest.raises(ConfigError, match="SLURM_STEP_NUM_TASKS is 'two'; it must be a whole number, as torchrun"):
        joined_world(SRUN | {"SLURM_STEP_NUM_TASKS": "two"}, ngpus=None)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node7", "node7"),
        ("node7,node9", "node7"),
        ("gpu-[003-005,009],login1", "gpu-003"),
        ("gpu-[003,009]", "gpu-003"),
        ("rack[2-3]node[11-12]", "rack2node11"),
        ("a[1-2]-ib,b", "a1-ib"),
    ],
)
def test_first_host(hosts, first):
    assert first_host(hosts) == first


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_tasks_of_a_node(counts, data):
    """Slurm writes equal neighbours as 4(x3); whatever it puts together comes apart again."""
    parts, start = [], 0
    while start < len(counts):
        most = next((i for i in range(start, len(counts)) if counts[i] != counts[start]), len(counts)) - start
        length = data.draw(st.integers(1, most))
        parts.append(f"{counts[start]}(x{length})" if length > 1 else str(counts[start]))
        start += length
    assert [tasks_of_node(",".join(parts), node) for node in range(len(counts))] == counts


@given(st.text(string.ascii_letters + string.digits + "-", min_size=1), st.integers(0, 9998), st.integers(1, 5))
def test_first_host_of_a_range(prefix, first, width):
    assert first_host(f"{prefix}[{first:0{width}}-9999],other") == f"{prefix}{first:0{width}}"
