import pytest
import torch

from cascaded_dllm.cli.options import parse_lengths
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import choose_device, choose_dtype
from tests.unit.model.unchecked import without_type_checks


@pytest.mark.parametrize(
    ("text", "lengths"), [("128", (128,)), ("32,64,128", (32, 64, 128)), (" 8, 16 ,40", (8, 16, 40)), ("0", (0,))]
)
def test_lengths(text, lengths):
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "8,", "8;16", "8,x", "[8,16]", "8.5", "-8", "8 16"])
def test_lengths_that_are_none(text):
    with pytest.raises(
        ConfigError, match=r"--lengths is '.*'; it must be whole numbers with commas, for example 32,64,128"
    ):
        parse_lengths(text)


def test_dtypes():
    assert (choose_dtype("float32"), choose_dtype("bfloat16")) == (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="dtype is 'float16'; it must be one of float32, bfloat16"):
        choose_dtype("float16")
    assert choose_dtype(torch.float16) == torch.float16
    with pytest.raises(ConfigError, match=r"dtype is 'float64'; it must be one of float32, bfloat16"):
        choose_dtype(torch.float64)


@without_type_checks()
def test_no_device():
    with pytest.raises(ConfigError, match=r"device 'None' cannot be used \(torch knows no such device\)"):
        choose_device(None)
