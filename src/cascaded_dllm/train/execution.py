"""How a step is carried out on its device: kernels, compilation, determinism. None of it changes what is trained."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import nullcontext as nothing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention
from torch.nn.attention import SDPBackend, sdpa_kernel

from cascaded_dllm.model.compilation import compile_blocks
from cascaded_dllm.model.score_model import ScoreModel

_KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Those that come with torch, the fastest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Choices that are made once, before the first step.

    Attributes:
        attention: kernel of scaled dot-product attention wherever it can be used; None leaves the choice to torch, call
            by call.
        is_compiled: whether the blocks go through torch.compile.
        is_deterministic: whether torch must take algorithms that give the same bits from run to run.
        rounds_products: whether matrix products of float32 may round their factors to TF32, which has ten bits of
            mantissa: more than the bfloat16 beside them, and an exponent as wide as that of float32.
        read_every: steps between readings of loss and gradient norm, for each of which the host waits for the device.
    """

    attention: SDPBackend | None = None
    is_compiled: bool = False
    is_deterministic: bool = False
    rounds_products: bool = False
    read_every: int = 1

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The choices hold inside the block."""
        with contextlib.ExitStack() as stack:
            if self.attention is not None:
                # The others are for calls of other networks, in another precision or with a mask of their own.
                others = [kernel for kernel in _KERNELS if kernel != self.attention]
                stack.enter_context(sdpa_kernel([self.attention, *others], set_priority=True))
            if self.is_deterministic:
                stack.enter_context(_deterministic_algorithms())
            if self.rounds_products:
                stack.enter_context(_products_in_tf32())
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The same, without compilation: bounds and samples call the blocks with ever other shapes.

        Nor are products of float32 rounded: a judge of the samples is such a network.
        """
        stance = torch.compiler.set_stance("force_eager") if self.is_compiled else nothing()
        with replace(self, rounds_products=False).computing(), stance:
            yield

    def description(self) -> str:
        """For people, in a line."""
        kernel = "torch's choice" if self.attention is None else self.attention.name.lower().removesuffix("_attention")
        parts = [f"attention kernel: {kernel}"]
        parts += ["blocks compiled"] if self.is_compiled else []
        parts += ["deterministic"] if self.is_deterministic else []
        parts += ["float32 products in TF32"] if self.rounds_products else []
        return ", ".join(parts)


def prepare_execution(
    model: ScoreModel, device: torch.device, *, compiles: bool, deterministic: bool, log_every: int
) -> Execution:
    """The execution of a model's steps on `device`.

    On a CUDA device numbers are read every `log_every` steps, so that the host need not wait for it in between;
    elsewhere reading costs nothing, or, on MPS, a step could not be undone. Where its trunk computes in bfloat16, what
    stays in float32 is multiplied in TF32: the output layer, which would otherwise take longer than the trunk.

    Args:
        model: its blocks are compiled in place if wanted, when they are first called.
        device: where it computes.
        compiles: whether the blocks go through torch.compile.
        deterministic: whether the same bits must come out from run to run.
        log_every: steps between readings that somebody needs.

    Raises:
        ConfigError: there is no compiler for the device.
    """
    if deterministic:
        # Read when cuBLAS starts; without it, cuBLAS takes what memory there is for its sums.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiles:
        compile_blocks(model, device)
    on_cuda = device.type == "cuda"
    return Execution(
        attention=_attention_kernel(model, device) if on_cuda else None,
        is_compiled=compiles,
        is_deterministic=deterministic,
        rounds_products=on_cuda and model.compute_dtype == torch.bfloat16,
        read_every=log_every if on_cuda else 1,
    )


def _attention_kernel(model: ScoreModel, device: torch.device) -> SDPBackend:
    """The fastest kernel that takes this model's heads: flash (half precision), memory-efficient, or plain products.

    All three come with torch, so that there is nothing to install or to compile.
    """
    config = model.config
    shape = (1, config.num_heads, 8, config.hidden_size // config.num_heads)
    query = torch.empty(shape, device=device, dtype=model.compute_dtype or torch.float32)
    call = SDPAParams(query, query, query, None, 0.0, False, False)
    if can_use_flash_attention(call):
        return SDPBackend.FLASH_ATTENTION
    return SDPBackend.EFFICIENT_ATTENTION if can_use_efficient_attention(call) else SDPBackend.MATH


@contextlib.contextmanager
def _products_in_tf32() -> Iterator[None]:
    """A setting of the whole process, as it was before once the block ends."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """Switches of the whole process, as they were before once the block ends."""
    memory: Any = torch.utils.deterministic
    before, filled_before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Only finds mistakes, and writes all new memory once more.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled_before
