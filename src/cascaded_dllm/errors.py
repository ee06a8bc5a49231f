"""Typed errors: every error that a user, a configuration or a file can cause derives from `CascadeError`.

A message names the offending value, the limit it breaks and the remedy. `assert` is kept for internal invariants.
"""

from functools import partial

EXIT_AGAIN = 75
"""Exit code of a program that SIGTERM, SIGHUP or SIGUSR1 ended and that saved its unfinished work: the same command
continues it. `sysexits.h` calls the number a temporary failure; batch scripts requeue the job on it."""


class CascadeError(Exception):
    """Base of every error that this package raises on purpose; the command line shows it as one line."""


class ConfigError(CascadeError, ValueError):
    """A setting is unknown, is out of range or contradicts another one."""


class DataError(CascadeError):
    """A corpus, a tokenizer or a preprocessed file is missing, broken or does not fit."""


class CheckpointError(CascadeError):
    """A checkpoint is missing, truncated, foreign or does not fit the model."""


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint of a run is damaged, and an earlier one is used."""


class OutputError(CascadeError):
    """An output folder holds something that would be overwritten, or it cannot be written."""


class FolderInUseError(OutputError):
    """An output folder is in use by another process."""


class OutputStreamError(CascadeError):
    """What a command prints cannot be written."""


class HubError(CascadeError):
    """The Hugging Face hub does not answer, or refuses an upload."""


class NonFiniteError(CascadeError, ArithmeticError):
    """The loss or the gradient is NaN or infinite; the run stops before the optimizer step."""


class NonFiniteScoresError(CascadeError, ArithmeticError):
    """A network returns NaN or infinity while text is sampled, and no token can be drawn from that."""


class DryBatchError(CascadeError):
    """The first batch of a run cannot be computed: memory is short, or data and network do not fit together."""


class BatchTooLargeError(CascadeError):
    """A batch of texts does not fit into memory; the message says which size does, if that can be known."""


class WorkerDiedError(CascadeError):
    """A worker process was killed from outside, by a user or, for lack of memory, by the system."""


class StoppedError(CascadeError):
    """Processes of this package were told to stop and have ended before they could save anything."""


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
        """Lets the error return from another process: it is made anew from its arguments."""
        return partial(MissingExtraError, **self._options), (self._package,)
