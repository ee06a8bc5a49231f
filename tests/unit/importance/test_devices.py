"""Which GPU a process takes; there need be none here."""

import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.importance.devices import device_of, require_device


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_processes_are_dealt_to_the_gpus_in_turn(device):
    taken = [device_of(device, worker=worker, num_gpus=3) for worker in range(7)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1", "cuda:2", "cuda:0"]


@pytest.mark.parametrize("worker", [0, 5])
def test_device_that_is_the_same_for_all(worker):
    assert device_of("cuda:1", worker=worker, num_gpus=2) == "cuda:1"
    assert device_of("cuda:01", worker=worker, num_gpus=2) == "cuda:1"
    assert device_of("cpu", worker=worker, num_gpus=2) == "cpu"
    assert device_of("auto", worker=worker, num_gpus=0) == "cpu"


@pytest.mark.parametrize(
    ("device", "num_gpus", "message"),
    [
        (
            "cuda:2",
            2,
            "the device is 'cuda:2', and GPUs here are numbered from cuda:0 to cuda:1; choose one of them, or",
        ),
        ("cuda", 0, "the device is 'cuda', but there is no GPU that torch can use; choose auto or cpu"),
        ("cuda:0", 0, "the device is 'cuda:0', but there is no GPU that torch can use; choose auto or cpu"),
    ],
)
def test_gpu_that_is_not_there(device, num_gpus, message):
    with pytest.raises(ConfigError, match=message):
        device_of(device, worker=0, num_gpus=num_gpus)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:1.5", "cpu:0", "mps"])
def test_device_that_is_none(device):
    with pytest.raises(ConfigError, match=f"the device is '{device}'; it must be one of auto, cpu, cuda, cuda:0, "):
        require_device(device)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:17"])
def test_device_that_may_be_somewhere(device):
    require_device(device)
