"""Drawing what a run still lacks, each batch on the disk before the next one begins."""

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
"""How the allocator of the CPU says what it had no room for."""

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
    """How far the run is once its missing texts are drawn, or the drawing was stopped.

    Args:
        run: whose lock this process holds.
        cascade: the one of the run.
        batch_size: texts drawn together; none of them depends on it.
        on_progress: told after every step the texts done, counted once a stage, and their number in all stages.
        on_state: told of every state; the time that it takes is no time of sampling.
        should_stop: asked after every step; if so, the unfinished batch is lost.

    Raises:
        BatchTooLargeError: memory is short; what was finished is kept.
        OutputExistsError: a batch cannot be written; what was there before is kept.
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
            # Its traceback holds what did not fit.
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
    """The first sentence of an error of a device; of the CPU's, in which it is about the source of PyTorch, another."""
    if (found := _ASKED_FOR.search(str(error))) is not None:
        return f"{int(found[1]):,} bytes more were asked for"
    return " ".join(str(error).split(". ")[0].split()) or type(error).__name__


def _remedy(cascade: Cascade, drawing: Drawing, size: int, error: BaseException) -> str:
    """What to do about a batch of `size` texts that did not fit."""
    if isinstance(error, torch.OutOfMemoryError):
        fits = _fitting_size(cascade, drawing, size // 2)
        return f"--batch-size {fits} fits, go on" if fits > 0 else _NOT_ONE
    if size == 1:
        return _NOT_ONE
    # Trying would be dangerous on a CPU, where the system kills processes for want of memory. What one array of the
    # batch took is a lower bound of what a text needs.
    found, most = _ASKED_FOR.search(str(error)), size // 2
    if found is not None and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = min(most, free * size // int(found[1]))
    return f"{size} texts do not fit, try --batch-size {max(1, most)} or less"


def _fitting_size(cascade: Cascade, drawing: Drawing, size: int) -> int:
    """The first of `size`, its half, the half of that and so on with which every stage can make a step; 0 if none."""
    while size > 0 and not _fits(cascade, drawing, size):
        size //= 2
    return size


def _fits(cascade: Cascade, drawing: Drawing, size: int) -> bool:
    """Whether the first step of every stage has room for `size` texts, and for its prefix what a stage could write."""
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
