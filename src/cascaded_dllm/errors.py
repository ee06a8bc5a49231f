"""Typed errors: every one that a user, a configuration or a file can cause derives from `CascadeError`.

A message names the offending value, the limit it breaks and the remedy. `assert` is kept for internal invariants.
"""

from functools import partial

EXIT_AGAIN = 75
"""Exit code of a program that has kept its work unfinished because it was told to make room, by SIGTERM or SIGUSR1: the
same command goes on with it. `sysexits.h` calls the number a temporary failure; batch scripts requeue the job on it."""


class CascadeError(Exception):
    """Base of every error this package raises on purpose; the command line shows it as one line."""


class ConfigError(CascadeError, ValueError):
    """A setting is unknown, out of range or contradicts another one."""


class DataError(CascadeError):
    """A corpus, a tokenizer or a preprocessed file is missing, broken or does not fit."""


class CheckpointError(CascadeError):
    """A checkpoint is missing, truncated, foreign or does not fit the model."""


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint of a run is damaged, and one before it is taken."""


class OutputExistsError(CascadeError):
    """An output folder already holds something that would be overwritten, or cannot be written."""


class FolderInUseError(OutputExistsError):
    """An output folder belongs to another process, which is at work on it."""


class HubError(CascadeError):
    """The Hugging Face hub does not answer, or refuses what it is asked to keep."""


class NonFiniteError(CascadeError, ArithmeticError):
    """The loss or the gradient is NaN or infinite; the run stops before the optimizer step."""


class NoLawError(CascadeError, ArithmeticError):
    """A network that is to write text answers with NaN or infinity, and no token can be drawn from that."""


class DryBatchError(CascadeError):
    """The first batch of a run cannot be computed: memory is short, or data and network do not fit."""


class BatchTooLargeError(CascadeError):
    """A batch of texts does not fit into memory; the message says which size does, as far as it can be known."""


class WorkerDiedError(CascadeError):
    """A process of ours was killed from outside, by the system for want of memory or by somebody."""


class StoppedError(CascadeError):
    """Processes of ours were told to stop, as somebody wished, and have ended before they could keep anything."""


class MissingExtraError(CascadeError, ImportError):
    """An optional library is not installed.

    Args:
        package: the import name that failed.
        extra: the extra of this package that installs it.
        purpose: what needs it, as the subject of a sentence.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed; run: pip install 'cascaded-dllm[{extra}]' "
            f"(in a clone: pip install '.[{extra}]')"
        )
        self._package, self._options = package, {"extra": extra, "purpose": purpose}

    def __reduce__(self) -> tuple[partial["MissingExtraError"], tuple[str]]:
        """How the error comes back from another process: made anew from its arguments."""
        return partial(MissingExtraError, **self._options), (self._package,)
