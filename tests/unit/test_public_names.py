import subprocess
import sys

import pytest

import cascaded_dllm


@pytest.mark.parametrize("name", cascaded_dllm.__all__)
def test_public_name_is_what_its_home_defines(name: str) -> None:
    value = getattr(cascaded_dllm, name)
    assert isinstance(value, str) or value.__name__ == name


def test_every_home_is_public() -> None:
    assert {*cascaded_dllm._HOMES, "__version__"} == set(cascaded_dllm.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Cascades'"):
        _ = cascaded_dllm.Cascades


def test_root_and_text_do_not_load_torch() -> None:
    code = "import sys, cascaded_dllm; cascaded_dllm.Tokenizer; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
