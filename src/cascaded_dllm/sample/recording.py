"""Writing on a CUDA device with CUDA graphs: a call is recorded once and then replayed.

A call of `small` starts some 460 kernels, and for a few dozen texts the host takes four times as long to start them as
the device to compute them. With first hitting, all calls of a batch have the same shapes, except the last ones if some
texts began with fewer masked positions. So one recording serves them all, with the same kernels on the same numbers.
"""

import contextlib
import functools
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.model.rows import Rows
from cascaded_dllm.sample.writing import TokenWriter, Writing


def can_be_recorded(writer: TokenWriter, xt: Int[Tensor, "B L"]) -> bool:
    """Whether calls start the same kernels on a CUDA device whatever the texts say.

    They do not with required words, nor for a network that is split over processes (`fully_shard`), which exchange
    weights during a call.
    """
    is_split = hasattr(writer.model, "unshard")
    return xt.is_cuda and writer.required is None and not is_split


@dataclass(frozen=True, slots=True)
class _Recording:
    """A recorded call, and the tensors that it reads its arguments from."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]

    def play(self, *values: Tensor) -> None:
        """Replays the call with other arguments of the same shapes."""
        for kept, value in zip(self.inputs, values, strict=True):
            kept.copy_(value)
        self.graph.replay()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which calls are recorded; a single one, since libraries keep memory for every stream they used."""
    return torch.cuda.Stream(device)


class Recorder:
    """Writes tokens into the texts of one batch as its writer does.

    Args:
        writer: writes tokens; `can_be_recorded` must hold for it.
        xt: the texts, which are written in place and must stay at the same address.
    """

    def __init__(self, writer: TokenWriter, xt: Int[Tensor, "B L"]) -> None:
        self._writer, self._xt = writer, xt
        # One pool for all recordings: a call leaves no result in it, since tokens go into the texts.
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[int, int], _Recording | None] = {}

    def write(self, writing: Writing) -> None:
        """See `TokenWriter.write`.

        The first call of a shape is not recorded, so that libraries choose their kernels and allocate their memory; the
        second is recorded. Shapes that never come again, as on a time grid, therefore cost nothing extra.
        """
        texts, rows, sigma, step, u = writing
        shape, values = (len(texts), len(rows.batch)), (texts, *rows, sigma, step, *u)
        if shape not in self._recordings:
            self._recordings[shape] = None
            self._write(*values)
            return
        recording = self._recordings[shape]
        # Kernels start on the current device, which may not be that of the texts.
        with torch.cuda.device(self._xt.device):
            if recording is None:
                recording = self._recordings[shape] = self._record(*values)
            recording.play(*values)

    def _write(self, *values: Tensor) -> None:
        texts, batch, position, sigma, step, *u = values
        self._writer.write(self._xt, Writing(texts, Rows(batch, position), sigma, step, (u[0], u[1])))

    def _record(self, *values: Tensor) -> _Recording:
        if not any(self._recordings.values()):
            # Frees the memory of recordings that were deleted, which is impossible while another one is made.
            torch.cuda.empty_cache()
        graph, inputs = torch.cuda.CUDAGraph(), tuple(value.clone() for value in values)
        current, aside = torch.cuda.current_stream(), _side_stream(self._xt.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            # Only this thread is recorded: others may continue to use the device.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                self._write(*inputs)
            except BaseException:
                # The caller must see this error, not the one about the broken recording.
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(aside)
        return _Recording(graph, inputs)
