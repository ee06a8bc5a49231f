"""A judge on disk: settings, checkpoints while it is trained, and the finished judge in the folder itself."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import complete_folder, require_creatable, write_json
from cascaded_dllm.errors import CheckpointError, OutputError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.judge.checkpoint import restore_newest, save_judge_checkpoint
from cascaded_dllm.judge.network import WEIGHTS_FILE, as_judge, save_network
from cascaded_dllm.judge.trainer import JudgeStep, JudgeTrainer
from cascaded_dllm.model.disk_errors import disk_errors
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.run_lock import run_lock, until_told
from cascaded_dllm.train.course import changed_settings
from cascaded_dllm.train.run_events import Resumed
from cascaded_dllm.train.run_folder import is_foreign

JUDGE_FILE = "judge.json"
"""Describes the judge and its quality; written last, so a folder that has it holds a finished judge."""

SETTINGS_FILE = "judge_run.json"
"""Holds the settings that decide the judge; written first, and the mark of a judge's folder."""

_CHECKPOINTS, _STAGING = "checkpoints", "finished"
_CURVE_POINTS = 200
_REMEDY = "name a folder that you may write to"


@dataclass(frozen=True, slots=True)
class JudgeKept:
    """A checkpoint was written."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class JudgeFinished:
    """The judge is finished. `summary` is the content of judge.json; `is_new` is false if it existed before."""

    summary: dict[str, Any]
    is_new: bool


Event = Resumed | JudgeStep | JudgeKept | JudgeFinished
Progress = Callable[[int, int], None]
"""Receives how much is done, and the total."""

Measure = Callable[[Judge, Progress | None], dict[str, float | int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRun:
    """The folder of a judge, and the trainer that fills it.

    Attributes:
        folder: of the judge.
        trainer: the loop.
        tokenizer_file: of the corpus.
        course: all that decides the judge and its figures; a run that continues must have the same.
        described: further content of judge.json.
        checkpoint_every: steps between checkpoints.
        measure: computes the validation figures of a judge; None for no figures.
    """

    folder: Path
    trainer: JudgeTrainer
    tokenizer_file: Path
    course: Mapping[str, Any]
    described: Mapping[str, Any]
    checkpoint_every: int
    measure: Measure | None

    def events(
        self, *, should_stop: Callable[[], bool] = lambda: False, on_measured: Progress | None = None
    ) -> Iterator[Event]:
        """Train to the end, from the newest complete checkpoint if there is one.

        Args:
            should_stop: called after every step; if true, the step is kept in a checkpoint and training ends.
            on_measured: receives the number of validation texts done, and their total.

        Raises:
            OutputError: the folder holds something else, belongs to a running process, or cannot be written.
            CheckpointError: it holds another judge, or its checkpoints are damaged.
            DryBatchError: there is no room for a batch.
            NonFiniteError: training broke down.
            StoppedError: `should_stop` was true while waiting to see whether the folder's owner, on another machine, is
                alive.
        """
        require_judge_folder(self.folder)
        with write_errors(f"--out is {self.folder}, which cannot be written", _REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
        go_on = until_told(should_stop, self.folder)
        with run_lock(self.folder, other="give this one another folder with --out", go_on=go_on):
            self._require_same_course()
            if (self.folder / JUDGE_FILE).exists():
                self._forget_checkpoints()  # left by a process that was killed at its very end
                yield JudgeFinished(_read(self.folder / JUDGE_FILE), is_new=False)
                return
            checkpoints = self.folder / _CHECKPOINTS
            faults = restore_newest(checkpoints, self.trainer)
            if self.trainer.step > 0:
                yield Resumed(self.trainer.step, faults)
            for result in self.trainer.steps():
                yield result
                is_last, is_stopped = result.step == self.trainer.settings.num_steps, should_stop()
                if is_last or is_stopped or result.step % self.checkpoint_every == 0:
                    yield JudgeKept(result.step, save_judge_checkpoint(checkpoints, self.trainer, self.tokenizer_file))
                if is_stopped and not is_last:
                    return
            yield JudgeFinished(self._finish(on_measured), is_new=True)

    def _require_same_course(self) -> None:
        """Writes the settings that decide the judge, or checks that those in the folder are the same.

        Raises:
            CheckpointError: the folder is another judge's.
        """
        path, course = self.folder / SETTINGS_FILE, dict(self.course)
        if not path.exists():
            write_json(path, course)
            return
        if changed := changed_settings(_read(path), course):
            raise CheckpointError(
                f"{self.folder} holds a judge of other settings: {'; '.join(changed)}; give those again, or another "
                "--out"
            )

    def _finish(self, on_measured: Progress | None) -> dict[str, Any]:
        """Measures and writes the judge and judge.json, removes the checkpoints, and returns what judge.json says."""
        judge = as_judge(self.trainer.network, self.tokenizer_file)
        figures = None if self.measure is None else self.measure(judge, on_measured)
        summary = {
            **self.described,
            "parameters": sum(parameter.numel() for parameter in self.trainer.network.parameters()),
            "settings": dict(self.course),
            "loss_curve": loss_curve(self.trainer.losses),
            "validation": figures,
        }
        staging = self.folder / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        with complete_folder(staging) as temporary, disk_errors():
            save_network(self.trainer.network, self.tokenizer_file, temporary)
        # Weights first, config.json last: until it is there, the library does not take the folder for a model.
        for path in sorted(staging.iterdir(), key=lambda path: (path.name == "config.json", path.name != WEIGHTS_FILE)):
            path.replace(self.folder / path.name)
        staging.rmdir()
        write_json(self.folder / JUDGE_FILE, summary)
        self._forget_checkpoints()
        return summary

    def _forget_checkpoints(self) -> None:
        """Removes the checkpoints, which a finished judge does not need."""
        shutil.rmtree(self.folder / _CHECKPOINTS, ignore_errors=True)


def loss_curve(losses: list[float]) -> list[dict[str, float | int]]:
    """The loss over the steps, at most 200 points, each the mean over the steps since the point before."""
    per_point = -(-len(losses) // _CURVE_POINTS)
    curve: list[dict[str, float | int]] = []
    for start in range(0, len(losses), max(per_point, 1)):
        part = losses[start : start + per_point]
        curve.append({"step": start + len(part), "loss_nats_per_token": sum(part) / len(part)})
    return curve


def require_judge_folder(folder: Path) -> None:
    """Checks that the folder is empty, absent, or a judge's, and can be made or written; changes nothing.

    Raises:
        OutputError: it holds something else, or cannot be written.
    """
    if is_foreign(folder, SETTINGS_FILE):
        raise OutputError(f"--out is {folder}, which holds something other than a judge; name a new folder")
    require_creatable(folder, f"--out is {folder}, which cannot be written", _REMEDY)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); remove {path.parent}, or give another --out"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object; remove {path.parent}, or give another --out")
    return found
