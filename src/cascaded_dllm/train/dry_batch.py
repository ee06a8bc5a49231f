"""A trial batch in the first minute of a run: what would fail at the first or the largest step fails at once."""

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
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if is_short_of_memory(error):
            raise DryBatchError(_short_of_memory(trainer, reason)) from error
        raise DryBatchError(
            f"a first batch cannot be computed ({reason}): the data and the network do not fit; check that the "
            "settings of model and data belong together, and show the traceback with --debug"
        ) from error
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)


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
