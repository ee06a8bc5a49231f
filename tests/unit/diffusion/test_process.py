"""What the exact and statistical tests of the processes leave: names, sizes and dtypes."""

import pytest
import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess, process_from_name
from cascaded_dllm.errors import ConfigError


def test_names() -> None:
    assert process_from_name("absorbing", 7) == AbsorbingProcess(7)
    assert process_from_name("uniform", 7) == UniformProcess(7)
    with pytest.raises(ConfigError, match="the process is 'absorb'; it must be one of absorbing, uniform"):
        process_from_name("absorb", 7)


def test_mask_is_the_last_state() -> None:
    assert (AbsorbingProcess(7).num_states, AbsorbingProcess(7).mask_id) == (8, 7)
    assert UniformProcess(7).num_states == 7


@pytest.mark.parametrize("process", [AbsorbingProcess(4), UniformProcess(4)])
def test_dtype_follows_the_noise(process: AbsorbingProcess | UniformProcess) -> None:
    x = torch.tensor([[0, 3], [1, 2]])
    for dtype in (torch.float32, torch.float64):
        sigma = torch.tensor([0.1, 2.0], dtype=dtype)
        for probs in (process.transition_probs(x, sigma), process.transposed_transition_probs(x, sigma)):
            assert (probs.shape, probs.dtype) == ((2, 2, process.num_states), dtype)


def test_mask_stays_mask() -> None:
    u = (torch.full((1, 2), 0.999), torch.full((1, 2), 0.5))
    x = torch.tensor([[4, 1]])
    assert AbsorbingProcess(4).sample_xt(x, torch.tensor([0.01]), u).tolist() == [[4, 1]]
