"""Writing on a CUDA device by playing back: what a call asks of the device is recorded once and then only repeated.

A call of `small` is some 460 kernels, and for a few dozen texts a host takes four times as long to start them as the
device to compute them. In the order of first hitting all calls of a batch have the same shapes but for the last ones of
texts that began with less to write, so that one recording (a CUDA graph) serves them all, with the same kernels on the
same numbers.
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
    """Whether calls ask the device for the same whatever the texts say.

    Required words take other paths, and a network that is split over processes (`fully_shard`) is put together by calls
    between them.
    """
    is_split = hasattr(writer.model, "unshard")
    return xt.is_cuda and writer.required is None and not is_split


@dataclass(frozen=True, slots=True)
class _Recording:
    """A recorded call, and the memory that it reads what is new in a call from."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]

    def play(self, *values: Tensor) -> None:
        """The call for other values of the same shapes."""
        for kept, value in zip(self.inputs, values, strict=True):
            kept.copy_(value)
        self.graph.replay()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where calls are recorded; one for all, since libraries keep memory for every stream that they have worked on."""
    return torch.cuda.Stream(device)


class Recorder:
    """Writes tokens into the texts of one batch as its writer does.

    Args:
        writer: of tokens; `can_be_recorded` must hold.
        xt: the texts, which are written in place and must not move.
    """

    def __init__(self, writer: TokenWriter, xt: Int[Tensor, "B L"]) -> None:
        self._writer, self._xt = writer, xt
        # One for all: no call leaves anything in it but what stands in the texts when it ends.
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[int, int], _Recording | None] = {}

    def write(self, writing: Writing) -> None:
        """See `TokenWriter.write`.

        The first call of a shape is made as it is, which lets libraries choose their kernels and take their memory; the
        second is recorded. Shapes that never come again, as on a time grid, so cost nothing more.
        """
        texts, rows, sigma, step, u = writing
        shape, values = (len(texts), len(rows.batch)), (texts, *rows, sigma, step, *u)
        if shape not in self._recordings:
            self._recordings[shape] = None
            self._write(*values)
            return
        recording = self._recordings[shape]
        # What is started goes to the current device, whichever the texts are on.
        with torch.cuda.device(self._xt.device):
            if recording is None:
                recording = self._recordings[shape] = self._record(*values)
            recording.play(*values)

    def _write(self, *values: Tensor) -> None:
        texts, batch, position, sigma, step, *u = values
        self._writer.write(self._xt, Writing(texts, Rows(batch, position), sigma, step, (u[0], u[1])))

    def _record(self, *values: Tensor) -> _Recording:
        if not any(self._recordings.values()):
            # The memory of recordings that are no more, which cannot be given back while another one is made.
            torch.cuda.empty_cache()
        graph, inputs = torch.cuda.CUDAGraph(), tuple(value.clone() for value in values)
        current, aside = torch.cuda.current_stream(), _side_stream(self._xt.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            # Only this thread is watched: others may go on using the device.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                self._write(*inputs)
            except BaseException:
                # What went wrong is to be told, not that the recording is broken.
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(aside)
        return _Recording(graph, inputs)
