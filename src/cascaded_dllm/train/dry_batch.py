"""A trial batch in the first minute of a run: what would fail at the first or the largest step fails at once."""

import contextlib
from collections.abc import Iterator

import torch

from cascaded_dllm.errors import DryBatchError
from cascaded_dllm.memory import is_short_of_memory
from cascaded_dllm.train.trainer import Trainer


def try_one_batch(trainer: Trainer) -> None:
    """Computes the largest part of a batch with its gradient, and leaves the trainer as it was.

    Raises:
        DryBatchError: memory is short, or data and network do not fit; the message names the remedy.
    """
    try:
        trainer.rehearse()
    except (RuntimeError, IndexError, MemoryError) as error:
        reason = _first_line(error)
        if is_short_of_memory(error):
            raise DryBatchError(_short_of_memory(trainer, reason)) from error
        raise DryBatchError(
            f"a first batch cannot be computed ({reason}): the data and the network do not fit; check that the "
            "settings of model and data belong together, and show the traceback with --debug"
        ) from error
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def room_for_network(device: torch.device) -> Iterator[None]:
    """Names the remedy if the memory of `device` runs out inside the block, in which a network is made or moved there.

    Raises:
        DryBatchError: memory is short.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_short_of_memory(error):
            raise
        raise DryBatchError(
            f"there is no room for the network and what belongs to it in the memory of {device} "
            f"({_first_line(error)}); give a smaller model (model=tiny, model.hidden_size, model.num_blocks), or a "
            "device with more free memory"
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _short_of_memory(trainer: Trainer, reason: str) -> str:
    loop, kinds = trainer.loop, trainer.dataset.parts
    # The last of several kinds is the longest: whole windows.
    kind, own = kinds[-1], loop.batch_size // (trainer.group.size * len(kinds))
    size, in_front = own // loop.accum, 0 if kind.is_placed else kind.prefix_length
    finer = next((n for n in range(loop.accum + 1, own + 1) if own % n == 0), None)
    remedies = [] if finer is None else [f"training.accum={finer}, which changes no number"]
    if trainer.model.compute_dtype is None:
        remedies.append("dtype=bfloat16")
    remedies.append("a smaller training.batch_size" if loop.batch_size > 1 else "a smaller model")
    return (
        f"there is no room for {size} x ({in_front} + {kind.target_length}) tokens in the memory of "
        f"{trainer.device}, beside the network and its optimizer ({reason}); give {', or '.join(remedies)}"
    )
