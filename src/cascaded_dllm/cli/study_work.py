"""Does the parts of a study, in this process or in several that share them."""

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from cascaded_dllm.cli.console import LogLine, console, counted, error_console, progress_bar, say
from cascaded_dllm.cli.interrupt import StopRequest, stop_request
from cascaded_dllm.cli.train_run import warn_of_long_warmup
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.errors import StoppedError
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import study_data
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.plan import PlannedArm, plan_study
from cascaded_dllm.study.work import Part, Work
from cascaded_dllm.study_config import StudySettings, require_known
from cascaded_dllm.train.launch import launch

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which arms of a study to do, and with how many processes.

    Attributes:
        arms: names of the chosen arms; empty for all.
        seeds: the chosen seeds; empty for all.
        workers: number of processes.
        attempt: an id of this command, unlike that of any other.
    """

    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    workers: int = 1
    attempt: str = field(default_factory=lambda: f"{os.getpid()}-{time.time_ns()}")

    def of(self, study: StudySettings, arms: Sequence[PlannedArm]) -> list[PlannedArm]:
        """The chosen ones among the planned arms of a study."""
        names = self.arms or tuple(arm.name for arm in study.arms)
        return [arm for arm in arms if arm.settings.name in names and arm.seed in (self.seeds or study.seeds)]

    def require_known(self, study: StudySettings) -> None:
        """Checks that the study has the chosen arms and seeds; a ConfigError if it has not."""
        require_known("arm", self.arms, [arm.name for arm in study.arms])
        require_known("seed", map(str, self.seeds), map(str, study.seeds))


def prepare_work(
    study: StudySettings,
    configs: Mapping[str, TrainConfig],
    folder: StudyFolder,
    callbacks: StudyCallbacks,
    attempt: str,
) -> Work:
    """The parts of a study; makes its data first if it is missing.

    Args:
        study: settings of the study.
        configs: configuration that the runs of an arm share, by arm; see `arm_configs`.
        folder: folder of the study.
        callbacks: get the progress, and say when to stop.
        attempt: see `Choice`.
    """
    data = study_data(study, folder, callbacks)
    return Work(study, plan_study(study, configs, data, folder), data, folder, callbacks, attempt)


def say_size(work: Work, choice: Choice) -> None:
    """Prints how much work the chosen arms are, and the command that shows the progress of the study.

    The budget decides how many steps a run has, so a warning may follow about the run whose warm-up is the longest in
    comparison.
    """
    arms = choice.of(work.study, work.arms)
    runs = {run.key: run for arm in arms for run in arm.runs}
    steps = sum(run.config.training.num_steps for run in runs.values())
    others = len(work.parts(arms)) - len(runs)
    say(
        f"{counted(len(runs), 'training')} of {counted(steps, 'step')} in all, and {counted(others, 'other part')}; "
        f"progress of the whole study: cdllm study status {shlex.quote(str(work.folder.out))}"
    )
    longest = max(runs.values(), key=lambda run: run.config.optim.warmup / run.config.training.num_steps)
    warn_of_long_warmup(longest.config, f"{longest.name}: ")


def work_here(work: Work, choice: Choice) -> None:
    """Does the chosen arms in this process."""
    work.settle_all(work.parts(choice.of(work.study, work.arms)))


def work_in_processes(work: Work, configs: Mapping[str, TrainConfig], choice: Choice, request: StopRequest) -> None:
    """Does the chosen arms in several processes, and prints a line for every part that is settled.

    Raises:
        StoppedError: the processes were asked to stop, and have kept what they had.
        WorkerDiedError: a process was killed; the others have been ended.
    """
    parts = work.parts(choice.of(work.study, work.arms))
    with progress_bar("parts of the study") as (_, move):
        watch = _Watch(work, parts, request, move)
        ended = launch(
            _worker, (work.study, configs, work.folder, choice), number=choice.workers, should_stop=watch.look_and_ask
        )
        watch.look()
    if not all(ended):
        raise StoppedError("the study was told to stop; what is finished is kept, and the same command goes on")


def _worker(study: StudySettings, configs: Mapping[str, TrainConfig], folder: StudyFolder, choice: Choice) -> bool:
    """Works in a process of its own; returns whether all parts are settled, False if it was asked to stop before."""
    console.quiet = error_console.quiet = True
    with stop_request() as request:
        try:
            callbacks = StudyCallbacks(request.is_made)
            work_here(prepare_work(study, configs, folder, callbacks, choice.attempt), choice)
        except StoppedError:
            return False
    return True


@final
class _Watch:
    """Watches the records of a study that other processes work on, and prints what is new."""

    def __init__(
        self, work: Work, parts: Sequence[Part], request: StopRequest, move: Callable[[int, int | None], None]
    ) -> None:
        self._work, self._parts, self._request, self._move = work, parts, request, move
        self._settled = {part.name for part in parts if work.record(part) is not None}
        self._looked = 0.0

    def look_and_ask(self) -> bool:
        """Looks at the records at intervals; returns whether it is time to stop."""
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self.look()
        return self._request.is_made_and_answered(
            "stopping after this step, with everything finished kept; a second signal stops at once"
        )

    def look(self) -> None:
        """Prints the parts that have been settled since the last look."""
        self._looked = time.monotonic()
        for part in self._parts:
            if part.name in self._settled or (record := self._work.record(part)) is None:
                continue
            self._settled.add(part.name)
            reason = f": {record['reason']}" if "reason" in record else ""
            say(f"{part.what} ({part.name}): {record['status']}{reason}; {len(self._settled)} of {len(self._parts)}")
        self._move(len(self._settled), len(self._parts))


@final
class ProgressDisplay:
    """Shows on the terminal what one process does: a bar, or lines at intervals without a terminal."""

    def __init__(self, show_bar: Callable[[str, int, int], None]) -> None:
        self._show_bar, self._line = show_bar, LogLine()

    def show(self, what: str, done: int, total: int) -> None:
        """Shows the progress of one activity."""
        self._show_bar(what, done, total)
        if self._line.is_due():
            say(f"{what}: {done} of {total}")
