import pytest
import torch

from cascaded_dllm.cli.options import parse_lengths, require_output_file, tell
from cascaded_dllm.errors import ConfigError, OutputError
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


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_measured_is_printed_though_its_file_cannot_be_written(tmp_path, capsys, as_json):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"x\.json cannot be written \(File exists\)"):
        tell(
            {"bound": 1.5}, lambda: print('"bound": 1.5 in a table'), out=tmp_path / "file" / "x.json", as_json=as_json
        )
    assert '"bound": 1.5' in capsys.readouterr().out


def test_file_that_cannot_be_written_is_known_before_the_work(tmp_path):
    require_output_file(None)
    require_output_file(tmp_path / "x.json")
    with pytest.raises(OutputError, match=r"cannot be written \(File name too long\); choose a shorter name"):
        require_output_file(tmp_path / f"{'n' * 240}.json")
    assert list(tmp_path.iterdir()) == []
