"""A trial batch in the first minute of a run: what would fail at the first or the largest step fails at once."""

import contextlib
from collections.abc import Iterator

import torch

from cascaded_dllm.errors import DryBatchError
from cascaded_dllm.memory import is_short_of_memory, memory_limit
from cascaded_dllm.train.trainer import Trainer

_STATE_COPIES = 5
"""Weights, average, gradients and two moments."""

_KEPT_WIDTHS = 10
"""What every block keeps of a position for the gradients of its products, in widths of the network: what goes into the
first product, queries, keys and values, the mixed values, and what goes into the two layers of the perceptron."""


def try_one_batch(trainer: Trainer) -> None:
    """Computes the largest part of a batch with its gradient, and leaves the trainer as it was.

    Raises:
        DryBatchError: memory is short, or data and network do not fit; the message names the remedy.
    """
    # A system gives out more memory than it has and then kills the process, which could not say why.
    if trainer.device.type == "cpu":
        _require_least_memory(trainer)
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
        raise DryBatchError(_no_room_for_network(device, _first_line(error))) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _largest_part(trainer: Trainer) -> tuple[int, int, int]:
    """The sequences of the largest part of a batch, and the tokens in front of the target and of the target of each."""
    # The last of several kinds is the longest: whole windows.
    kind = trainer.dataset.parts[-1]
    return (
        _own_sequences(trainer) // trainer.loop.accum,
        0 if kind.is_placed else kind.prefix_length,
        kind.target_length,
    )


def _own_sequences(trainer: Trainer) -> int:
    """The sequences of one kind that this process has of a batch."""
    return trainer.loop.batch_size // (trainer.group.size * len(trainer.dataset.parts))


def _require_least_memory(trainer: Trainer) -> None:
    """Checks that there is as much memory as a step of this process needs at the least.

    Raises:
        DryBatchError: there is less.
    """
    state, kept, most = _state_bytes(trainer), _kept_bytes(trainer), memory_limit()
    reason = f"together {(state + kept) / 1e9:.1f} GB at least, of {most / 1e9:.1f}"
    if state > most:
        raise DryBatchError(_no_room_for_network(trainer.device, reason))
    if state + kept > most:
        # Parts as small as the memory asks for, at the least.
        accum = -(-trainer.loop.accum * kept // max(1, most - state))
        raise DryBatchError(_short_of_memory(trainer, reason, accum))


def _state_bytes(trainer: Trainer) -> int:
    """The bytes of the network and what belongs to it, whatever the batch."""
    trained = sum(parameter.nbytes for parameter in trainer.model.parameters() if parameter.requires_grad)
    return _STATE_COPIES * trained // (trainer.group.size if trainer.parallel.storage.is_split else 1)


def _kept_bytes(trainer: Trainer) -> int:
    """The bytes that the largest part of a batch keeps for its gradients at the least."""
    if trainer.objective.halves == "layout":
        return 0
    model, config = trainer.model, trainer.model.config
    size, in_front, length = _largest_part(trainer)
    # The last block goes on with the masked positions only.
    numbers = size * (in_front + length) * _KEPT_WIDTHS * config.hidden_size * (config.num_blocks - 1)
    return numbers * (model.compute_dtype or torch.float32).itemsize


def _no_room_for_network(device: torch.device, reason: str) -> str:
    return (
        f"there is no room for the network and what belongs to it in the memory of {device} ({reason}); give a smaller "
        "model (model=tiny, model.hidden_size, model.num_blocks), or a device with more free memory"
    )


def _short_of_memory(trainer: Trainer, reason: str, accum: int = 1) -> str:
    """The message about a batch that is too large; more parts are advised than now, and at least `accum`."""
    loop, own = trainer.loop, _own_sequences(trainer)
    size, in_front, length = _largest_part(trainer)
    finer = next((n for n in range(max(loop.accum + 1, accum), own + 1) if own % n == 0), None)
    remedies = [] if finer is None else [f"training.accum={finer}, which changes no number"]
    if trainer.model.compute_dtype is None:
        remedies.append("dtype=bfloat16")
    remedies.append("a smaller training.batch_size" if loop.batch_size > 1 else "a smaller model")
    return (
        f"there is no room for {size} x ({in_front} + {length}) tokens in the memory of "
        f"{trainer.device}, beside the network and its optimizer ({reason}); give {', or '.join(remedies)}"
    )
