"""The logs of a run: metrics.jsonl always, TensorBoard and Weights & Biases on request.

All use the same names. Viewers only show copies: a run can be read and resumed from its folder alone.
"""

import contextlib
import importlib.util
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from cascaded_dllm.atomic import write_text
from cascaded_dllm.errors import ConfigError, MissingExtraError
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.train.metrics_file import METRICS_FILE

WANDB_ID_FILE = "wandb_id.txt"
"""Holds the run's id on Weights & Biases, so that a resumed run is the same one there."""

TENSORBOARD_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"

_WITHOUT = "make room, or go on without the viewer (logging.{}), and give the same command again"
_WITHOUT_TENSORBOARD, _WITHOUT_WANDB = _WITHOUT.format("tensorboard=false"), _WITHOUT.format("wandb=disabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChoice:
    """Which viewers a run has besides metrics.jsonl.

    Attributes:
        wandb: disabled, offline (files in <run>/wandb, for `wandb sync`) or online.
        project: project of Weights & Biases.
        name: name of the run there.
        tensorboard: whether event files are written into <run>/tensorboard.
    """

    wandb: str = "disabled"
    project: str = ""
    name: str = ""
    tensorboard: bool = False


@runtime_checkable
class _Viewer(Protocol):
    """Something that shows the numbers and texts of a step."""

    def metrics(self, entry: Mapping[str, Any]) -> None: ...

    def texts(self, step: int, name: str, texts: Sequence[str]) -> None: ...


@final
class _TensorBoard:
    """Numbers and texts in event files below `folder`."""

    def __init__(self, writer: Any, folder: Path) -> None:
        self._writer, self._folder = writer, folder

    def metrics(self, entry: Mapping[str, Any]) -> None:
        with write_errors(f"{self._folder} cannot be written", _WITHOUT_TENSORBOARD):
            for name, value in entry.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, entry["step"])
            self._writer.flush()

    def texts(self, step: int, name: str, texts: Sequence[str]) -> None:
        with write_errors(f"{self._folder} cannot be written", _WITHOUT_TENSORBOARD):
            for number, text in enumerate(texts):
                self._writer.add_text(f"{name}/{number}", text, step)
            self._writer.flush()


@final
class _Wandb:
    """Numbers and texts in a run of Weights & Biases, which stores them in `folder`."""

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._folder = run, folder
        # The step of the run, since the default one never goes back: a run resumes at its last checkpoint.
        run.define_metric("*", step_metric="step")

    def metrics(self, entry: Mapping[str, Any]) -> None:
        with write_errors(f"{self._folder} cannot be written", _WITHOUT_WANDB):
            self._run.log({name: value for name, value in entry.items() if value is not None})

    def texts(self, step: int, name: str, texts: Sequence[str]) -> None:
        import wandb

        rows = [[number, text] for number, text in enumerate(texts)]
        with write_errors(f"{self._folder} cannot be written", _WITHOUT_WANDB):
            self._run.log({"step": step, name: wandb.Table(columns=["sample", "text"], data=rows)})


@final
class RunLog:
    """The open logs of a run.

    Args:
        file: metrics.jsonl, open for appending, unbuffered, since a buffer could fail to be written at the end; None
            for processes that write nothing.
        viewers: viewers that show the same numbers.
    """

    def __init__(self, file: FileIO | None, viewers: Sequence[_Viewer] = ()) -> None:
        self._file, self._viewers = file, tuple(viewers)

    def metrics(self, entry: Mapping[str, Any]) -> None:
        """Write one line; `entry` holds `step` and numbers whose names say their unit, or None for unknown ones.

        Raises:
            OutputError: the disk is full or gone.
        """
        if self._file is None:
            return
        line = (json.dumps(entry) + "\n").encode()
        with write_errors(f"{self._file.name} cannot be written", "make room, and give the same command again"):
            while line:
                line = line[self._file.write(line) :]
        for viewer in self._viewers:
            viewer.metrics(entry)

    def texts(self, step: int, name: str, texts: Sequence[str]) -> None:
        """Show texts in the viewers; they are already in the run folder.

        Raises:
            OutputError: the disk is full or gone.
        """
        for viewer in self._viewers:
            viewer.texts(step, name, texts)


def require_viewers(choice: LogChoice) -> None:
    """Checks that the packages of the viewers are installed, before any long work.

    Raises:
        MissingExtraError: one is not installed.
    """
    wanted = {"wandb": choice.wandb != "disabled", "tensorboard": choice.tensorboard}
    for package, is_wanted in wanted.items():
        if is_wanted and importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra="logging", purpose=f"logging.{package}")


@contextlib.contextmanager
def open_log(folder: Path, choice: LogChoice, *, config: Mapping[str, Any], step: int) -> Iterator[RunLog]:
    """The logs of the run in `folder`, open inside the block.

    Args:
        folder: run folder.
        choice: viewers of the run.
        config: resolved settings, shown beside the numbers.
        step: steps done; later steps that TensorBoard shows are removed, since they are done again.

    Raises:
        ConfigError: Weights & Biases cannot be reached, or does not know the user.
        OutputError: the disk is full or gone, now or when the viewers are closed. It never replaces an error that
            ends the block.
    """
    with contextlib.ExitStack() as stack:
        viewers: list[_Viewer] = []
        if choice.tensorboard:
            viewers.append(stack.enter_context(_tensorboard(folder / TENSORBOARD_FOLDER, step)))
        if choice.wandb != "disabled":
            viewers.append(stack.enter_context(_wandb(folder, choice, config)))
        yield RunLog(stack.enter_context((folder / METRICS_FILE).open("ab", buffering=0)), viewers)


@contextlib.contextmanager
def _tensorboard(folder: Path, step: int) -> Iterator[_TensorBoard]:
    from torch.utils.tensorboard import SummaryWriter

    with _quiet_thread():
        with write_errors(f"{folder} cannot be written", _WITHOUT_TENSORBOARD):
            # A run that begins again logs its step 0 again: the bound before the first step.
            writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0)
        try:
            yield _TensorBoard(writer, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                writer.close()
            raise
        with write_errors(f"{folder} cannot be written", _WITHOUT_TENSORBOARD):
            writer.close()


@contextlib.contextmanager
def _quiet_thread() -> Iterator[None]:
    """Keeps disk errors of TensorBoard's thread from being printed, since the next write or close raises them."""
    before = threading.excepthook

    def tell_others(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            before(failed)

    threading.excepthook = tell_others
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _wandb(folder: Path, choice: LogChoice, config: Mapping[str, Any]) -> Iterator[_Wandb]:
    import wandb

    is_online, own = choice.wandb == "online", folder / WANDB_FOLDER
    try:
        with write_errors(f"{own} cannot be written", _WITHOUT_WANDB):
            run = wandb.init(
                project=choice.project,
                name=choice.name,
                id=_wandb_id(folder),
                # Offline there is no server to resume from; `wandb sync` joins the parts of a run by their id.
                resume="allow" if is_online else None,
                mode="online" if is_online else "offline",
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
    except wandb.Error as error:
        raise ConfigError(
            f"Weights & Biases cannot be used ({' '.join(str(error).split())}); run `wandb login`, or give "
            "logging.wandb=offline and `wandb sync` later"
        ) from error
    try:
        yield _Wandb(run, own)
    except BaseException:
        with contextlib.suppress(OSError, wandb.Error):
            run.finish(exit_code=1)
        raise
    with write_errors(f"{own} cannot be written", _WITHOUT_WANDB):
        run.finish()


def _wandb_id(folder: Path) -> str:
    """The id of the run in `folder`, created at the first call."""
    path = folder / WANDB_ID_FILE
    if not path.exists():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()
