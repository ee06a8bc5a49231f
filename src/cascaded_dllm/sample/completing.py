"""Drawing the texts that a run still lacks, with each batch on the disk before the next one begins."""

import itertools
import os
import re
import time
from collections.abc import Callable

import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import BatchTooLargeError
from cascaded_dllm.memory import is_short_of_memory
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.progress import Progress
from cascaded_dllm.sample.samples import CascadeState

_ASKED_FOR = re.compile(r"tried to allocate (\d+) bytes")
"""In the message of PyTorch's CPU allocator: the size that it had no room for."""

_NOT_ONE = "not even one text fits, go on with a --device that has more memory"


def draw_missing(
    run: SampleRun,
    cascade: Cascade,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    on_state: Callable[[CascadeState], None],
    should_stop: Callable[[], bool],
) -> Progress:
    """Draws the missing texts of a run and returns its progress, also if it was stopped before the end.

    Args:
        run: the run, whose lock the caller holds.
        cascade: the cascade of the run.
        batch_size: texts drawn together; no text depends on it.
        on_progress: gets, after every step, the texts done and the texts to do, both counted once for each stage.
        on_state: gets every state; its time does not count as time of sampling.
        should_stop: called after every step; if it returns True, the unfinished batch is lost.

    Raises:
        BatchTooLargeError: memory is short; finished batches are kept.
        OutputError: a batch cannot be written; the batches before it are kept.
    """
    done, total, device = Progress.take_up(run.folder).num_finished, run.settings.num_samples, str(cascade.device)
    drawing = run.settings.texts.drawing
    before = done * (len(cascade.stages) + 1 - run.settings.texts.first_stage)
    looking = 0.0

    def look(state: CascadeState) -> None:
        nonlocal looking
        began = time.perf_counter()
        on_state(state)
        looking += time.perf_counter() - began

    batches = cascade.batches(
        range(done, total),
        drawing,
        batch_size=batch_size,
        on_progress=lambda now, missing: on_progress(before + now, before + missing),
        on_state=look,
        should_stop=should_stop,
    )
    while True:
        started, looking = time.perf_counter(), 0.0
        try:
            batch = next(batches, None)
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            # The frames of the traceback would keep the batch in memory.
            short = error.with_traceback(None)
            break
        if batch is None:
            return run.progress()
        seconds = time.perf_counter() - started - looking
        run.append(batch.numbers[0], batch.samples, seconds=seconds, device=device)
        done += len(batch.numbers)
    raise BatchTooLargeError(
        f"there is no room for the batch in the memory of {device} ({_reason(short)}); {done} of {total} texts are kept"
        f": {_remedy(cascade, drawing, min(batch_size, total - done), short)}, with cdllm sample --resume "
        f"{run.folder}"
    ) from short


def _reason(error: BaseException) -> str:
    """Why memory was short: the bytes that the CPU's allocator asked for, or the first sentence of another error.

    The first sentence of the CPU's error is about the source of PyTorch.
    """
    if (found := _ASKED_FOR.search(str(error))) is not None:
        return f"{int(found[1]):,} bytes more were asked for"
    return " ".join(str(error).split(". ")[0].split()) or type(error).__name__


def _remedy(cascade: Cascade, drawing: Drawing, size: int, error: BaseException) -> str:
    """The remedy for a batch of `size` texts that did not fit, for the message."""
    if isinstance(error, torch.OutOfMemoryError):
        fits = _fitting_size(cascade, drawing, size // 2)
        return f"--batch-size {fits} fits, go on" if fits > 0 else _NOT_ONE
    if size == 1:
        return _NOT_ONE
    # Trying out sizes would be dangerous on a CPU, where the system kills processes that need too much memory. The
    # array that did not fit gives a lower bound on the memory of a text.
    found, most = _ASKED_FOR.search(str(error)), size // 2
    if found is not None and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = min(most, free * size // int(found[1]))
    return f"{size} texts do not fit, try --batch-size {max(1, most)} or less"


def _fitting_size(cascade: Cascade, drawing: Drawing, size: int) -> int:
    """The first of `size`, `size` / 2, `size` / 4 and so on with which every stage can make a step; 0 if none fits."""
    while size > 0 and not _fits(cascade, drawing, size):
        size //= 2
    return size


def _fits(cascade: Cascade, drawing: Drawing, size: int) -> bool:
    """Whether memory has room for the first step of every stage with `size` texts and a prefix of its full length."""
    index = torch.arange(size, device=cascade.device)
    plans = drawing.plans(len(cascade.stages))
    for stage, plan, prefix_length in zip(cascade.stages, plans, (0, *cascade.stage_lengths), strict=False):
        prefix = torch.zeros(size, prefix_length, dtype=torch.int64, device=cascade.device) if prefix_length else None
        states = stage.states(
            prefix,
            predictor=plan.predictor,
            num_steps=plan.num_steps or 1,
            draws=Draws(drawing.seed, "memory"),
            sample_index=index,
            guidance=drawing.guidance if prefix_length else 0.0,
        )
        try:
            list(itertools.islice(states, 2))
        except torch.OutOfMemoryError:
            return False
    return True
