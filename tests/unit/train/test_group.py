"""A group of one, and what is said when others are lost; two processes are in test_processes.py."""

import socket
from dataclasses import replace
from datetime import timedelta

import pytest
import torch

from cascaded_dllm.errors import DataError, WorkerDiedError
from cascaded_dllm.train import group as group_module
from cascaded_dllm.train.group import open_group
from cascaded_dllm.train.world import World

CPU = torch.device("cpu")


@pytest.fixture
def world():
    """Of one process, with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return World(rank=0, size=1, local_rank=0, local_size=1, address="127.0.0.1", port=port)


def raise_error():
    raise DataError("no data")


def test_alone():
    with open_group(None, CPU) as group:
        assert (group.rank, group.size, group.is_first) == (0, 1, True)
        value = torch.tensor([1.0, 2.0])
        group.sum(value)
        group.broadcast(value)
        assert value.tolist() == [1.0, 2.0]
        assert [group.any(answer) for answer in (True, False)] == [True, False]
        assert group.gather("here") == ["here"]
        for call in (group.from_first, group.together, group.after_first):
            assert call(lambda: "done") == "done"
            with pytest.raises(DataError, match="no data"):
                call(raise_error)


def test_a_world_of_one_has_real_connections(world):
    with open_group(world, CPU) as group:
        value = torch.tensor([1.0, 2.0])
        group.begin_sum(value)()
        assert value.tolist() == [1.0, 2.0]
        assert group.after_first(lambda: "prepared") == "prepared"


def test_an_error_inside_ends_the_group(world):
    """The next one can be opened at once, in the same process."""
    with pytest.raises(DataError, match="no data"), open_group(world, CPU):
        raise_error()
    with open_group(world, CPU):
        pass


def test_a_failure_between_processes_is_one_of_the_others(world, monkeypatch):
    """Whatever torch says of a connection that is gone, it is told what that means."""

    def closed(*arguments, **options):
        raise RuntimeError("Connection closed by peer [10.0.0.1]:4711\nException raised from ...")

    with open_group(world, CPU) as group:
        monkeypatch.setattr(torch.distributed, "all_reduce", closed)
        with pytest.raises(
            WorkerDiedError, match=r"process 0 of 1 has lost the others \(Connection closed by peer \[.*\]:4711\): one"
        ):
            group.begin_sum(torch.zeros(1))


def test_nobody_to_meet(world, monkeypatch):
    monkeypatch.setattr(group_module, "_TO_MEET", timedelta(seconds=1))
    second = World(rank=1, size=2, local_rank=1, local_size=2, address="127.0.0.1", port=world.port)
    message = rf"process 1 of 2 cannot meet the others at 127\.0\.0\.1:{world.port} \(.*MASTER_ADDR and MASTER_PORT"
    with pytest.raises(WorkerDiedError, match=message), open_group(second, CPU):
        pass


def test_what_was_said_before_a_restart_is_not_heard(world, monkeypatch):
    """The launcher keeps one store for all its attempts; the second process does not go before the first."""
    launcher = torch.distributed.TCPStore("127.0.0.1", world.port, is_master=True, wait_for_workers=False)
    joined = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, store, **__: joined.append(store))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(group_module, "_TO_PREPARE", timedelta(seconds=0.2))

    def after_first(rank, num_restarts):
        place = replace(world, rank=rank, size=2, has_store=True, num_restarts=num_restarts)
        with open_group(place, CPU) as group:
            return group.after_first(lambda: f"{rank} after {num_restarts} restarts")

    assert after_first(0, 0) == "0 after 0 restarts"
    assert after_first(1, 0) == "1 after 0 restarts"
    with pytest.raises(WorkerDiedError, match="process 1 of 2 has lost the others"):
        after_first(1, 1)
    assert after_first(0, 1) == "0 after 1 restarts"
    assert after_first(1, 1) == "1 after 1 restarts"
    joined[0].set("address of 0", "old")
    assert joined[1].check(["address of 0"])
    assert not joined[2].check(["address of 0"])
    del launcher
