"""What a line of metrics says besides the result of its step."""

from pathlib import Path

import pytest
import torch

from cascaded_dllm.train.flops import mean_masked_share, training_flops
from cascaded_dllm.train.meter import StepMeter, forget_peak_memory, peak_memory_bytes
from cascaded_dllm.train.trainer import StepResult


def result(step, seconds):
    return StepResult(step, 2.0, grad_norm=1.0, lr=0.1, tokens=56, seconds=seconds)


def meter_of(trainer, peak_flops=None):
    """Of a trainer that has read the loss of a step before."""
    trainer.losses.append(2.0)
    return StepMeter(trainer, peak_flops)


def test_rates_and_loss_are_those_since_the_last_line(make_trainer):
    trainer = make_trainer()
    meter = meter_of(trainer)
    for step, seconds in enumerate((0.5, 0.25, 0.25), start=1):
        meter.add(result(step, seconds))
    trainer.losses += [5.0, 2.0]
    line = meter.line(result(3, 0.25))
    # 3 steps of 8 sequences of 7 target tokens, in one second; 3 + 7 tokens of each went through the network.
    assert line["tokens_per_second"] == 168
    assert line["token_forwards"] == 3 * 8 * 10
    assert line["mfu"] is None
    assert (line["step"], line["loss_nats_per_token"], line["tokens"]) == (3, 3.0, 56)
    # On a CUDA device the host waits in the step of a line for all steps before it, so no step has a time of its own.
    assert line["seconds"] == pytest.approx(1 / 3)
    meter.add(result(4, 0.1))
    trainer.losses.append(1.5)
    line = meter.line(result(4, 0.1))
    assert line["loss_nats_per_token"] == 1.5
    assert line["tokens_per_second"] == pytest.approx(560)
    assert line["token_forwards"] == 4 * 8 * 10


def test_a_flat_model_has_no_prefix(make_trainer):
    meter = meter_of(make_trainer(stage=0))
    meter.add(result(2, 1.0))
    assert meter.line(result(2, 1.0))["token_forwards"] == 2 * 8 * 7


def test_share_of_the_peak(make_trainer):
    """Two steps in half a second, of a device whose peak is ten steps a second."""
    trainer = make_trainer()
    flops = training_flops(
        trainer.model.config,
        batch_size=8,
        prefix_length=3,
        target_length=7,
        masked_share=mean_masked_share(trainer.objective.schedule, trainer.objective.t_min),
    )
    meter = meter_of(trainer, peak_flops=10 * flops)
    for step in (1, 2):
        meter.add(result(step, 0.25))
    assert meter.line(result(2, 0.25))["mfu"] == pytest.approx(0.4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak in a file")
def test_memory_of_a_process():
    """The most that the system has seen it hold, in bytes."""
    torch.ones(25_000_000)
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    assert peak_memory_bytes(torch.device("cpu")) == pytest.approx(int(line.split()[1]) * 1024, rel=0.02)


def test_memory_of_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12345)
    assert peak_memory_bytes(torch.device("cuda")) == 12345
    assert peak_memory_bytes(torch.device("meta")) is None


def test_the_peak_of_a_run_is_not_that_of_the_run_before(monkeypatch):
    """Runs of a study follow each other in one process, whose CUDA peak never falls by itself."""
    begun = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", begun.append)
    for device in ("cpu", "cuda:1"):
        forget_peak_memory(torch.device(device))
    assert begun == [torch.device("cuda:1")]
