"""What torch has as its defaults in a program does not reach the networks."""

import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import host_by_default, require_precise_default
from cascaded_dllm.model.placed import new_model
from tests.unit.model.tiny import tiny_model

CONFIG = tiny_model().config


@pytest.fixture
def default_dtype(request: pytest.FixtureRequest):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_host_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    # As it answers before torch 2.8, whatever device is entered.
    monkeypatch.setattr(torch, "get_default_device", lambda: torch.device("cpu"))

    @host_by_default()
    def made() -> torch.Tensor:
        return torch.zeros(1)

    with torch.device("meta"):
        assert made().device.type == "cpu"
        assert torch.zeros(1).device.type == "meta"
        assert new_model(CONFIG, None).device.type == "cpu"
    assert made().device.type == "cpu"


@pytest.mark.parametrize("default_dtype", [torch.float64], indirect=True)
def test_networks_are_in_float32(default_dtype: torch.dtype) -> None:
    require_precise_default()
    assert {parameter.dtype for parameter in new_model(CONFIG, None).parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("default_dtype", [torch.bfloat16, torch.float16], indirect=True)
def test_half_precision_by_default(default_dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=rf"torch's default dtype is {default_dtype}, which is too coarse for times "):
        new_model(CONFIG, None)
