"""How a step is computed on its device: kernels, compilation, determinism. None of this changes what is trained."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import nullcontext as nothing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

from cascaded_dllm.diffusion.fused_loss import PLAIN_EXECUTION, LossExecution
from cascaded_dllm.model.compilation import compile_blocks
from cascaded_dllm.model.score_model import ScoreModel

_KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Attention kernels that come with torch and prepare nothing for a length of text, the fastest first."""
_HOPPER = (9, 0)
"""Compute capability of the devices on which cuDNN's attention was measured to be faster than flash."""
_PRECISION = {"cuda": "high", "cpu": "medium"}
"""By device, torch's name of the precision of float32 products beside a trunk in bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Choices that are made once, before the first step.

    Attributes:
        attention: preferred kernel of scaled dot-product attention, taken wherever it can be used; None leaves the
            choice to torch in every call.
        is_compiled: whether the blocks go through torch.compile.
        is_deterministic: whether torch must take algorithms that give the same bits from run to run.
        loss: how the loss is computed.
        precision: precision of float32 products, as torch names it. Only their factors may be rounded, never their
            sums: with `high` to TF32, whose ten bits of mantissa are more than those of bfloat16; with `medium` to
            bfloat16, on a CPU that has instructions for it. Both have the exponents of float32.
        read_every: steps between readings of loss and gradient norm, in each of which the host waits for the device.
    """

    attention: SDPBackend | None = None
    is_compiled: bool = False
    is_deterministic: bool = False
    loss: LossExecution = PLAIN_EXECUTION
    precision: str = "highest"
    read_every: int = 1

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Applies the choices inside the block."""
        with contextlib.ExitStack() as stack:
            if self.attention is not None:
                # The others serve other networks, which may have another dtype or an attention mask.
                others = [kernel for kernel in _KERNELS if kernel != self.attention]
                stack.enter_context(sdpa_kernel([self.attention, *others], set_priority=True))
            if self.is_deterministic:
                stack.enter_context(_deterministic_algorithms())
            if self.precision != "highest":
                stack.enter_context(_products_in(self.precision))
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Like `computing`, for bounds and samples, whose calls have ever new shapes.

        So neither compiled blocks nor cuDNN's attention is used, which are prepared for every shape. Products of
        float32 are not rounded, since the judge of the samples may compute in float32.
        """
        stance = torch.compiler.set_stance("force_eager") if self.is_compiled else nothing()
        is_for_one_shape = self.attention == SDPBackend.CUDNN_ATTENTION
        attention = SDPBackend.FLASH_ATTENTION if is_for_one_shape else self.attention
        with replace(self, precision="highest", attention=attention).computing(), stance:
            yield

    def description(self) -> str:
        """A line that describes the choices to the user."""
        kernel = "torch's choice" if self.attention is None else self.attention.name.lower().removesuffix("_attention")
        parts = [f"attention kernel: {kernel}"]
        parts += ["blocks compiled"] if self.is_compiled else []
        parts += ["deterministic"] if self.is_deterministic else []
        parts += ["float32 products rounded"] if self.precision != "highest" else []
        return ", ".join(parts)


def prepare_execution(
    model: ScoreModel, device: torch.device, *, compiles: bool, deterministic: bool, log_every: int
) -> Execution:
    """The execution of a model's steps on `device`.

    On CUDA, loss and gradient norm are read every `log_every` steps, so that the host need not wait for the device in
    between. Elsewhere they are read in every step: on a CPU this costs nothing, and on MPS an unread step could not be
    undone. If the trunk computes in bfloat16, products of float32 round their factors, because those of the output
    layer would otherwise take longer than the trunk. On CUDA, and on a CPU with AMX, the gradients of the output layer
    are then products of bfloat16, like all gradients of the trunk. Other CPUs are slower at those than at float32.

    Args:
        model: its blocks are compiled in place, when they are first called, if `compiles`.
        device: where it computes.
        compiles: whether the blocks go through torch.compile.
        deterministic: whether the same bits must come out from run to run.
        log_every: steps between lines of metrics.

    Raises:
        ConfigError: there is no compiler for the device.
    """
    if deterministic:
        # cuBLAS reads this when it starts. Without it, the available memory decides its workspace, and so its sums.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiles:
        compile_blocks(model, device)
    on_cuda, is_rounded = device.type == "cuda", model.compute_dtype == torch.bfloat16
    has_amx = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return Execution(
        attention=_attention_kernel(model, device, deterministic=deterministic) if on_cuda else None,
        is_compiled=compiles,
        is_deterministic=deterministic,
        loss=LossExecution(model.compute_dtype if on_cuda or has_amx else None, compiles=compiles),
        precision=_PRECISION.get(device.type, "highest") if is_rounded else "highest",
        read_every=log_every if on_cuda else 1,
    )


def _attention_kernel(model: ScoreModel, device: torch.device, *, deterministic: bool) -> SDPBackend:
    """The fastest kernel that supports this model's heads: cuDNN's, flash, memory-efficient, or plain products.

    All of them come with torch, so there is nothing to install or to compile. On an H200, forward and backward of 192
    positions take 0.6 times as long with cuDNN's kernel as with flash, but its gradients are not deterministic.
    """
    config = model.config
    shape = (1, config.num_heads, 8, config.hidden_size // config.num_heads)
    query = torch.empty(shape, device=device, dtype=model.compute_dtype or torch.float32)
    call = SDPAParams(query, query, query, None, 0.0, False, False)
    if can_use_flash_attention(call):
        is_faster = torch.cuda.get_device_capability(device) == _HOPPER and can_use_cudnn_attention(call)
        return SDPBackend.CUDNN_ATTENTION if is_faster and not deterministic else SDPBackend.FLASH_ATTENTION
    return SDPBackend.EFFICIENT_ATTENTION if can_use_efficient_attention(call) else SDPBackend.MATH


@contextlib.contextmanager
def for_changing_shapes() -> Iterator[None]:
    """Attention by kernels that prepare nothing for a shape, for the texts that are drawn inside a training step.

    cuDNN would prepare and keep a plan for every number of texts.
    """
    with sdpa_kernel(list(_KERNELS), set_priority=True):
        yield


@contextlib.contextmanager
def _products_in(precision: str) -> Iterator[None]:
    """Sets the precision of float32 products for the whole process; restored after the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """Requires deterministic algorithms in the whole process; restored after the block."""
    memory: Any = torch.utils.deterministic
    before, filled_before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Filling new memory only helps to find mistakes, and costs a pass over it.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled_before
