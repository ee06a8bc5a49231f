"""Training on a CUDA device: without waiting, alone or in a group, compiled, in half precision, in its memory."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from cascaded_dllm.diffusion.categorical import sample_tokens
from cascaded_dllm.diffusion.fused_loss import PLAIN_EXECUTION, LossExecution, fused_absorbing_score_entropy
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.execution import Execution, prepare_execution
from cascaded_dllm.train.group import Group, open_group
from cascaded_dllm.train.host_copy import copy_to_host
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.parallel import Parallel, Replicated, Single
from cascaded_dllm.train.trainer import Trainer
from cascaded_dllm.train.world import World
from tests.unit.train.conftest import VOCAB_SIZE, _model, _stage_dataset

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda:0")
CHECKOUT = Path(__file__).parents[2]


def trainer_on(
    device: torch.device,
    *,
    group: Group | None = None,
    strategy: str = "single",
    execution: Execution | None = None,
    dtype: torch.dtype | None = None,
    num_steps: int = 8,
    **network: Any,
) -> Trainer:
    model = _model(**({"num_blocks": 2} | network))
    model.compute_dtype = dtype
    return Trainer(
        model,
        Objective(AbsorbingProcess(VOCAB_SIZE), LogLinearSchedule(), 1e-2),
        _stage_dataset(2),
        optim=OptimConfig(lr=1e-2, warmup=2, eps=1e-4),
        loop=LoopConfig(batch_size=12, accum=2, num_steps=num_steps, ema_decay=0.9, seed=1),
        course={},
        parallel=placed(model, device, group, strategy),
        execution=execution,
    )


def placed(model: ScoreModel, device: torch.device, group: Group | None, strategy: str) -> Parallel:
    if strategy == "fsdp":
        from cascaded_dllm.train.sharded import FullySharded

        assert group is not None
        return FullySharded(model, group, device)
    model.to(device)
    return Single() if group is None else Replicated(model, group)


def losses(trainer: Trainer) -> list[float | None]:
    return [result.loss_nats_per_token for result in trainer.steps()]


@pytest.fixture
def nccl_group():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = World(rank=0, size=1, local_rank=0, local_size=1, address="127.0.0.1", port=port)
    with open_group(world, DEVICE) as group:
        yield group


def test_losses_are_those_of_the_cpu() -> None:
    """Noise is drawn in the memory of the host, so that it is the same; dropout would not be."""
    assert losses(trainer_on(DEVICE)) == pytest.approx(losses(trainer_on(torch.device("cpu"))), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize(
    "network", [{"dropout": 0.1}, {"prefix_attention": "one_way", "parameterization": "normalized"}]
)
def test_host_never_waits_between_readings(network: dict[str, Any]) -> None:
    """torch raises an error where it would make the host wait for the device."""
    trainer = trainer_on(DEVICE, execution=Execution(read_every=8), **network)
    steps = trainer.steps()
    list(itertools.islice(steps, 2))  # what is set up once may wait
    try:
        torch.cuda.set_sync_debug_mode("error")
        results = list(itertools.islice(steps, 4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [result.loss_nats_per_token for result in results] == [None] * 4
    assert [result.loss_nats_per_token is None for result in steps] == [True, False]


def test_reading_later_changes_nothing() -> None:
    """A step that is read is checked before the update, any other is masked on the device; the bits are the same."""
    fixed = {"is_deterministic": True}
    often, seldom = (trainer_on(DEVICE, execution=Execution(read_every=n, **fixed)) for n in (1, 4))
    assert losses(often)[3::4] == losses(seldom)[3::4]
    for one, other in zip(often.model.parameters(), seldom.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_broken_step_leaves_no_trace_though_nobody_has_looked() -> None:
    trainer = trainer_on(DEVICE, execution=Execution(read_every=8))
    steps = trainer.steps()
    list(itertools.islice(steps, 2))
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    averages = [value.clone() for value in trainer.ema.state_dict().values()]
    hook = trainer.model.vocab_embed.embedding.register_hook(lambda gradient: gradient * float("nan"))
    next(steps)
    hook.remove()
    list(itertools.islice(steps, 3))
    for before, now in zip(weights, trainer.model.parameters(), strict=True):
        assert torch.equal(before, now)
    for before, now in zip(averages, trainer.ema.state_dict().values(), strict=True):
        assert torch.equal(before, now)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_group_of_one_over_nccl(nccl_group: Group, strategy: str) -> None:
    trainer = trainer_on(DEVICE, group=nccl_group, strategy=strategy)
    assert losses(trainer) == pytest.approx(losses(trainer_on(DEVICE)), abs=1e-5)
    assert all(tensor.device.type == "cpu" for tensor in copy_to_host(trainer).model.values())
    with trainer.averaged_weights():
        weight = trainer.model.output_layer.linear.weight
        assert weight.shape == (VOCAB_SIZE + 1, 16)


def test_half_precision_keeps_weights_and_averages_whole() -> None:
    model = _model()
    model.compute_dtype = torch.bfloat16
    execution = prepare_execution(model, DEVICE, compiles=False, deterministic=False, log_every=4)
    has_cudnn = torch.cuda.get_device_capability(DEVICE) >= (9, 0)
    assert ("cudnn" if has_cudnn else "flash") in execution.description()
    trainer = trainer_on(DEVICE, execution=execution, dtype=torch.bfloat16)
    found, expected = losses(trainer), losses(trainer_on(DEVICE))
    assert [found[3], found[7]] == pytest.approx([expected[3], expected[7]], abs=0.1)
    tensors = [*trainer.model.parameters(), *trainer.ema.state_dict().values()]
    tensors += [value for entry in trainer.optimizer.state.values() for value in entry.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_the_same_bits_from_run_to_run() -> None:
    execution = prepare_execution(_model(), DEVICE, compiles=False, deterministic=True, log_every=1)
    ends = []
    for _ in range(2):
        trainer = trainer_on(DEVICE, execution=execution, dropout=0.1)
        list(trainer.steps())
        ends.append([parameter.detach().clone() for parameter in trainer.model.parameters()])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def test_samples_while_only_deterministic_algorithms_are_allowed() -> None:
    """Torch refuses to sum up in this mode; a draw does it row by row, where the order of sums is fixed."""
    logits = torch.randn(3, 700, device=DEVICE)
    u = (torch.rand(3, device=DEVICE, dtype=torch.float64), torch.rand(3, device=DEVICE, dtype=torch.float64))
    expected = sample_tokens(logits, u)
    with Execution(is_deterministic=True).evaluating():
        assert torch.equal(sample_tokens(logits, u), expected)
        assert torch.equal(sample_tokens(logits[:1], (u[0][:1], u[1][:1])), expected[:1])


def test_networks_in_another_precision_beside_the_kernel() -> None:
    """A judge and earlier stages are float32 beside a run in half precision, for which flash was chosen."""
    query = torch.randn(1, 2, 8, 16, device=DEVICE)
    with Execution(attention=SDPBackend.FLASH_ATTENTION).evaluating():
        assert F.scaled_dot_product_attention(query, query, query).shape == query.shape


needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)


def in_a_process(function: str, cache: Path) -> Any:
    """What a function of this module returns in a process without run-time type checks, which torch cannot compile."""
    script = f"import json; from tests.gpu import test_train_cuda as tests; print(json.dumps(tests.{function}))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=CHECKOUT,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(answer.stdout)


@pytest.mark.slow
@needs_compiler
def test_compiled_blocks_lose_the_same(tmp_path: Path) -> None:
    plain, compiled, rounded = in_a_process("losses_with_and_without_compilation()", tmp_path)
    assert compiled == pytest.approx(plain, abs=1e-4)
    assert rounded == pytest.approx(plain, abs=0.1)


def losses_with_and_without_compilation() -> list[list[float | None]]:
    found = [losses(trainer_on(DEVICE))]
    for dtype in (None, torch.bfloat16):
        trainer = trainer_on(DEVICE, dtype=dtype)
        trainer.execution = prepare_execution(trainer.model, DEVICE, compiles=True, deterministic=False, log_every=1)
        found.append(losses(trainer))
    return found


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=[pytest.mark.slow, needs_compiler])])
def test_gradients_of_the_loss_in_half_precision(compiles: bool, tmp_path: Path) -> None:
    """The same loss, and gradients that differ by eight bits of mantissa, over more than one chunk of rows."""
    of_rows, *of_gradients = (
        in_a_process("differences_of_half_precision(compiles=True)", tmp_path)
        if compiles
        else differences_of_half_precision(compiles=False)
    )
    assert of_rows < 1e-5
    assert all(0 < difference < 0.01 for difference in of_gradients)


def differences_of_half_precision(*, compiles: bool) -> list[float]:
    """Relative differences of the entropies of rows and of the three gradients."""
    torch.manual_seed(0)
    num_rows, width, num_tokens = 6000, 32, 50_257
    leaves = [
        (torch.randn(shape, device=DEVICE) * scale).requires_grad_()
        for shape, scale in (((num_rows, width), 1.0), ((num_tokens + 1, width), 0.3), ((num_tokens + 1,), 1.0))
    ]
    sigma, weight = torch.rand(num_rows, device=DEVICE) + 0.1, torch.rand(num_rows, device=DEVICE)
    x0 = torch.randint(num_tokens, (num_rows,), device=DEVICE)
    results = []
    for execution in (PLAIN_EXECUTION, LossExecution(torch.bfloat16, compiles=compiles)):
        total, rows = fused_absorbing_score_entropy(
            *leaves, x0, sigma, weight, parameterization="normalized", execution=execution
        )
        results.append((rows, *torch.autograd.grad(total, leaves)))
    return [float((found - plain).norm() / plain.norm()) for plain, found in zip(*results, strict=True)]


def test_memory_of_a_step() -> None:
    """6,400 targets of 7 tokens over 30,000 words: all logits would take 5.4 GB, those of the masked half 2.7 GB."""
    vocab_size, batch_size = 30_000, 6400
    sizes = {"hidden_size": 16, "num_heads": 2, "num_blocks": 1, "cond_dim": 8}
    model = ScoreModel(ScoreModelConfig(vocab_size=vocab_size, **sizes)).to(DEVICE)  # type: ignore[arg-type]
    trainer = Trainer(
        model,
        Objective(AbsorbingProcess(vocab_size), LogLinearSchedule(), 1e-2),
        _stage_dataset(2),
        optim=OptimConfig(lr=1e-3),
        loop=LoopConfig(batch_size=batch_size, accum=1, num_steps=4, ema_decay=0.9, seed=1),
        course={},
    )
    steps = trainer.steps()
    list(itertools.islice(steps, 2))
    resident = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    next(steps)
    assert torch.cuda.max_memory_allocated() - resident < batch_size * 7 * vocab_size * 4 / 4
