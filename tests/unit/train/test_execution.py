"""How a step is carried out: choices hold inside, all is as before outside, and compiling changes nothing."""

import os
import shutil
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from cascaded_dllm.diffusion.fused_loss import LossExecution
from cascaded_dllm.train import execution
from cascaded_dllm.train.execution import Execution, for_changing_shapes, prepare_execution
from tests.unit.train import in_processes
from tests.unit.train.forked import together

CPU = torch.device("cpu")


def flags():
    cuda = torch.backends.cuda
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        cuda.flash_sdp_enabled(),
        cuda.math_sdp_enabled(),
    )


def test_nothing_is_changed_by_default():
    before = flags()
    with Execution().computing():
        assert flags() == before
    assert Execution().description() == "attention kernel: torch's choice"


def test_choices_hold_inside_only():
    before = flags()
    chosen = Execution(attention=SDPBackend.MATH, is_deterministic=True)
    with chosen.computing():
        assert flags()[:2] == (True, False)
    assert flags() == before
    with pytest.raises(ZeroDivisionError), chosen.evaluating():
        raise ZeroDivisionError
    assert flags() == before
    assert chosen.description() == "attention kernel: math, deterministic"


def test_other_networks_are_not_bound_to_the_kernel():
    """A judge has a mask, earlier stages another precision: here a call with dropout, for which flash is not made."""
    query = torch.ones(1, 2, 8, 4)

    def attend():
        return F.scaled_dot_product_attention(query, query, query, dropout_p=0.5)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(RuntimeError):
        attend()
    with Execution(attention=SDPBackend.FLASH_ATTENTION).computing():
        assert attend().shape == query.shape


def test_numbers_are_read_every_step_of_a_cpu(make_model):
    assert prepare_execution(make_model(), CPU, compiles=False, deterministic=False, log_every=50) == Execution()


def test_determinism_is_asked_of_cublas_before_it_starts(make_model, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    chosen = prepare_execution(make_model(), CPU, compiles=False, deterministic=True, log_every=50)
    assert chosen == Execution(is_deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_execution(make_model(), CPU, compiles=False, deterministic=True, log_every=50)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize(
    ("usable", "capability", "deterministic", "kernel"),
    [
        ({"cudnn", "flash", "efficient"}, (9, 0), False, "cudnn"),
        ({"cudnn", "flash", "efficient"}, (9, 0), True, "flash"),
        ({"cudnn", "flash", "efficient"}, (8, 0), False, "flash"),
        ({"cudnn", "flash", "efficient"}, (10, 0), False, "flash"),
        ({"flash", "efficient"}, (9, 0), False, "flash"),
        ({"efficient"}, (9, 0), False, "efficient"),
        (set(), (9, 0), False, "math"),
    ],
)
def test_fastest_kernel_that_takes_the_heads(make_model, monkeypatch, usable, capability, deterministic, kernel):
    """On a CUDA device numbers are read when they are logged; which kernels it has is only known there."""
    asked = []
    monkeypatch.setattr(execution, "can_use_flash_attention", lambda call: asked.append(call) or "flash" in usable)
    monkeypatch.setattr(execution, "can_use_cudnn_attention", lambda call: "cudnn" in usable)
    monkeypatch.setattr(execution, "can_use_efficient_attention", lambda call: "efficient" in usable)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model = make_model()
    model.compute_dtype = torch.bfloat16
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device, dtype: empty(*shape, dtype=dtype))
    chosen = prepare_execution(model, torch.device("cuda"), compiles=False, deterministic=deterministic, log_every=50)
    assert chosen.read_every == 50
    assert chosen.loss == LossExecution(torch.bfloat16)
    sure = ", deterministic" if deterministic else ""
    assert chosen.description() == f"attention kernel: {kernel}{sure}, float32 products rounded"
    assert asked[0].query.shape[1::2] == (2, 8)
    assert asked[0].query.dtype == torch.bfloat16


def test_kernels_for_one_shape_are_for_steps_alone(monkeypatch):
    """cuDNN prepares a plan for every shape it meets, and bounds and samples have ever others."""
    orders = []
    monkeypatch.setattr(execution, "sdpa_kernel", lambda order, **options: orders.append(order[0]) or nullcontext())
    for chosen in (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        with Execution(attention=chosen).computing(), Execution(attention=chosen).evaluating():
            pass
    with for_changing_shapes():
        pass
    cudnn, flash, efficient = SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION
    assert orders == [cudnn, flash, efficient, efficient, flash]


@pytest.mark.parametrize("has_amx", [False, True])
@pytest.mark.parametrize(("dtype", "precision"), [(None, "highest"), (torch.bfloat16, "medium")])
def test_products_of_a_cpu_are_rounded_beside_a_rounded_trunk(make_model, dtype, precision, has_amx, monkeypatch):
    """By torch, which does so where there are instructions for it; gradients in bfloat16 only where that is faster."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    model = make_model()
    model.compute_dtype = dtype
    chosen = prepare_execution(model, CPU, compiles=False, deterministic=False, log_every=50)
    assert chosen == Execution(precision=precision, loss=LossExecution(dtype if has_amx else None))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_rounded_in_steps_alone(precision):
    before = torch.get_float32_matmul_precision()
    rounding = Execution(precision=precision)
    with rounding.computing():
        assert torch.get_float32_matmul_precision() == precision
    with rounding.evaluating():
        assert torch.get_float32_matmul_precision() == before
    with Execution().computing():
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before == "highest"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_lose_the_same(tmp_path):
    """In a process of its own, since torch cannot look through the run-time type checks of the tests."""
    ((plain, compiled),) = together(in_processes.losses_with_and_without_compilation, str(tmp_path), number=1)
    assert compiled["losses"] == pytest.approx(plain["losses"], abs=1e-5)
    assert compiled["bound"] == pytest.approx(plain["bound"], abs=1e-4)
    assert compiled["names"] == plain["names"]
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
