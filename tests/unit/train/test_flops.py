"""The formula of the arithmetic of a step against what torch counts while it computes one."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.train import flops
from cascaded_dllm.train.flops import (
    forward_flops,
    known_peak_flops,
    layout_flops,
    mean_masked_share,
    training_flops,
)
from cascaded_dllm.train.objective import Batch
from tests.unit.model.tiny import tiny_placed

COPYING = {"parameterization": "normalized", "copy_head": True}
NETWORKS = {
    "joint": {"num_blocks": 2},
    "one_way": {"num_blocks": 3, "prefix_attention": "one_way", "parameterization": "normalized"},
    "without time": {"num_blocks": 2, "time_conditioning": False, "prefix_attention": "one_way"},
    "copy head": {"num_blocks": 2, **COPYING},
    "copy head one_way": {"num_blocks": 2, **COPYING, "prefix_attention": "one_way"},
    "uniform": {"process": "uniform", "num_blocks": 2},
    "uniform one_way": {"process": "uniform", "num_blocks": 2, "prefix_attention": "one_way"},
}


def counted(make_model, make_objective, make_dataset, settings, stage):
    """The network's configuration, masked positions, and FLOPs of a batch of 8, as torch counts: forward, and both.

    The plain kernel of attention is made of counted products; the others recompute in the backward.
    """
    model, objective = make_model(**settings).train(), make_objective(settings.get("process", "absorbing"))
    prefix, target = make_dataset(stage).batch(torch.arange(8).numpy())
    batch = Batch(torch.from_numpy(target), None if prefix is None else torch.from_numpy(prefix), torch.arange(8))
    masked = []

    class Spy(type(objective.process)):
        def sample_xt(self, x0, sigma, u):
            xt = super().sample_xt(x0, sigma, u)
            masked.append(int((xt == self.vocab_size).sum()))
            return xt

    spied = type(objective)(Spy(objective.process.vocab_size), objective.schedule, objective.t_min)
    counts = []
    for with_gradient in (False, True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as count:
            with torch.set_grad_enabled(with_gradient):
                loss = spied.loss(model, batch, draws=Draws(3, "train-noise"), step=1, global_batch_size=8)
            if with_gradient:
                loss.backward()
        counts.append(count.get_total_flops())
    return model.config, masked[0], *counts


@pytest.mark.parametrize("stage", [2, 0], ids=["stage 2", "flat"])
@pytest.mark.parametrize("network", NETWORKS)
def test_forward_is_what_torch_counts(make_model, make_objective, make_dataset, network, stage):
    """To the last operation."""
    config, masked, forward, _ = counted(make_model, make_objective, make_dataset, NETWORKS[network], stage)
    sizes = {"prefix_length": 3 if stage else 0, "target_length": 7}
    assert forward == forward_flops(config, batch_size=8, num_rows=masked, **sizes)
    assert masked > 0 or config.process == "uniform"


@pytest.mark.parametrize("network", NETWORKS)
def test_backward_has_two_products_for_each_of_the_forward(make_model, make_objective, make_dataset, network):
    """But for one: the sinusoids of sigma are given, and take none. The loss makes its own gradients, and as many."""
    config, masked, forward, both = counted(make_model, make_objective, make_dataset, NETWORKS[network], 2)
    found = training_flops(
        config, batch_size=8, prefix_length=3, target_length=7, masked_share=masked / 56 if masked else 1.0
    )
    assert found == pytest.approx(3 * forward, rel=1e-12)
    vectors = 8 if config.time_conditioning else 1
    if config.prefix_attention == "one_way":
        vectors += 1
    assert both == round(found) - 2 * vectors * 256 * config.cond_dim


def test_layout_network():
    """To the last operation as well."""
    layout = tiny_placed(3, 4, num_blocks=2).layout
    z, gaps = torch.zeros(8, 3, dtype=torch.long), torch.full((8, 4), layout.hidden_label)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as count, torch.no_grad():
        layout(z, gaps)
    assert count.get_total_flops() == layout_flops(layout.config, batch_size=8)


def test_by_hand():
    """One block of width 2 and one head, 3 positions and 3 tokens, one row read, one vector of noise of width 1."""
    config = ScoreModelConfig(vocab_size=3, hidden_size=2, num_heads=1, num_blocks=1, cond_dim=1)
    query_key_value = 3 * 2 * 6
    attention = 2 * 3 * 3 * 2
    rest = 2 * 2 + 2 * 8 + 8 * 2
    head = 2 * 3
    conditioning = 256 + 1 + 12 + 4
    products = query_key_value + attention + rest + head + conditioning
    assert forward_flops(config, batch_size=1, prefix_length=0, target_length=3, num_rows=1) == 2 * products


def test_share_that_is_masked():
    """Log-linear: (1 - eps) t, whose mean over (t_min, 1] is (1 - eps) (1 + t_min) / 2."""
    assert mean_masked_share(LogLinearSchedule(1e-3), 0.1) == pytest.approx(0.999 * 1.1 / 2, rel=1e-6)
    # Geometric, from 1e-4 to 20: 1 - exp(-sigma) integrates to (E1(1e-4) - E1(20)) / log(2e5) less than one.
    euler = 0.57721566490153
    exponential_integral = -euler - math.log(1e-4) + 1e-4
    expected = 1 - exponential_integral / math.log(2e5)
    assert mean_masked_share(GeometricSchedule(1e-4, 20.0), 0.0) == pytest.approx(expected, rel=1e-4)


def test_peak_of_known_devices_only(monkeypatch):
    names = {"cuda": "NVIDIA H100 80GB HBM3"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.type])
    device = torch.device("cuda")
    assert known_peak_flops(device, torch.bfloat16) == 989.4e12
    assert known_peak_flops(device, None) is None, "float32 has another peak"
    assert known_peak_flops(torch.device("cpu"), torch.bfloat16) is None
    for unknown in ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA B200", "nvidia h100 80gb hbm3"):
        names["cuda"] = unknown
        assert known_peak_flops(device, torch.bfloat16) is None


def test_peaks_are_of_dense_products():
    """Twice as much is what the makers print first, for matrices half of which is zero."""
    assert all(1.6e14 < peak < 1e15 for peak in flops.PEAK_BF16_FLOPS.values())
