"""The parts of a study, which any number of processes take one after another.

A process leaves a part to the process that has it, and a settled part is never done again. There is no coordinator: the
state lies in the folder of the study, so processes on one machine, jobs of a cluster and a repeated command all work
alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from cascaded_dllm.errors import (
    CascadeError,
    CheckpointError,
    FolderInUseError,
    NonFiniteError,
    OutputError,
    OutputStreamError,
    StoppedError,
)
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.file_names import DIVERGED, DONE, FAILED
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import MethodData
from cascaded_dllm.study.drawing import draw, drawing_key, reference_figures
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.judging import load_judge
from cascaded_dllm.study.measuring import SharedWindows, bound_key, bound_part_name, measure
from cascaded_dllm.study.plan import PlannedArm, PlannedRun
from cascaded_dllm.study.training import train
from cascaded_dllm.study_config import StudySettings

REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work that is done once.

    Attributes:
        name: of its record and its lock.
        identity: all that decides its result; a record with another value does not count.
        what: its description for messages.
        after: names of the parts that must be done before.
        do: does it, and returns the content of its record.
    """

    name: str
    identity: str
    what: str
    after: tuple[str, ...]
    do: Callable[[], Mapping[str, Any]]


@final
class Work:
    """The parts of a study, and their processing.

    Args:
        study: the study file.
        arms: all arms of the study, planned.
        data: by method.
        folder: the folder of the study.
        callbacks: receive progress, and say when to stop.
        attempt: identifies this command: parts that failed in it are not tried again, parts that failed in others are.
    """

    def __init__(
        self,
        study: StudySettings,
        arms: list[PlannedArm],
        data: Mapping[str, MethodData],
        folder: StudyFolder,
        callbacks: StudyCallbacks,
        attempt: str,
    ) -> None:
        self.study, self.arms, self.data, self.folder = study, arms, data, folder
        self._callbacks, self._attempt = callbacks, attempt
        self.windows = SharedWindows(study, arms, data, callbacks)
        self._judge: Judge | None = None

    def parts(self, arms: Sequence[PlannedArm]) -> list[Part]:
        """The parts of some arms, in the order in which they are best done; a part that arms share is there once."""
        found: dict[str, Part] = {}
        for arm in arms:
            for part in self._parts_of(arm):
                found.setdefault(part.name, part)
        reference = self.reference_part()
        return [*found.values(), reference] if self.study.sampling else list(found.values())

    def settle_all(self, parts: Sequence[Part]) -> None:
        """Does parts until all that can be settled are, by this process or another one.

        Raises:
            StoppedError: it is time to stop; finished parts are kept.
            OutputError: the folder cannot be written.
        """
        while self._left(parts):
            if not any(self._take(part) for part in self._ready(parts)):
                self._callbacks.wait()

    def record(self, part: Part) -> dict[str, Any] | None:
        """The record of a part; None while it is not settled, or if it failed in another attempt."""
        record = self.folder.record(part.name)
        if record is None or record["of"] != part.identity:
            return None
        return None if record["status"] == FAILED and record["attempt"] != self._attempt else record

    def reference_part(self) -> Part:
        """The figures of real texts."""
        windows = bound_key(self.study, self.arms[0], self.arms, self.data)
        device = self.arms[0].config.device

        def do() -> Mapping[str, Any]:
            return reference_figures(self.study, self.windows, self._loaded_judge(), device)

        sizes = "-".join(str(settings.num_samples) for settings in self.study.sampling)
        figures = ",".join(self.study.figures or ())
        # The last words distinguish this record from older ones without such errors, so that figures are measured anew.
        identity = f"{windows} {self.study.judge} {sizes} {figures} errors over texts, of 0 and 1 too"
        return Part(REFERENCE, identity, "figures of real texts", (), do)

    def run_part(self, run: PlannedRun) -> Part:
        """The training of a run."""
        after = tuple(f"runs/{key}" for key in run.after)
        return Part(f"runs/{run.key}", run.key, run.description, after, partial(train, run, self._callbacks))

    def bound_part(self, arm: PlannedArm) -> Part:
        """The bound of an arm."""
        do = partial(measure, self.study, arm, self.windows, self.folder, self._callbacks)
        name = bound_part_name(arm.settings.name, arm.seed)
        identity = bound_key(self.study, arm, self.arms, self.data)
        return Part(name, identity, f"the bound of {arm.name}", tuple(f"runs/{run.key}" for run in arm.stages), do)

    def sample_parts(self, arm: PlannedArm) -> list[Part]:
        """The texts of an arm, one part for every drawing."""
        after = tuple(f"runs/{run.key}" for run in arm.stages)
        found = []
        for settings in self.study.sampling:

            def do(settings: Any = settings) -> Mapping[str, Any]:
                judge = self._loaded_judge()
                return draw(self.study, arm, settings, self.windows, judge, self.folder, self._callbacks)

            name = f"samples/{arm.settings.name}/seed{arm.seed}/{settings.name}"
            identity = drawing_key(self.study, arm, settings, self.reference_part().identity)
            found.append(Part(name, identity, f"the texts of {arm.name}, {settings.name}", after, do))
        return found

    def _parts_of(self, arm: PlannedArm) -> list[Part]:
        return [*map(self.run_part, arm.runs), self.bound_part(arm), *self.sample_parts(arm)]

    def _left(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that are not settled and still can be, unlike those that need a part that has broken down."""
        records = {part.name: self.record(part) for part in parts}
        broken = {name for name, record in records.items() if record is not None and record["status"] != DONE}
        left = []
        for part in parts:
            if broken.intersection(part.after):
                broken.add(part.name)
            elif records[part.name] is None:
                left.append(part)
        return left

    def _ready(self, parts: Sequence[Part]) -> list[Part]:
        """The parts left that do not wait for another part."""
        left = self._left(parts)
        names = {part.name for part in left}
        return [part for part in left if not names.intersection(part.after)]

    def _take(self, part: Part) -> bool:
        """Settles a part; returns False if another process has it."""
        self._callbacks.raise_if_stopping()
        try:
            with self.folder.lock(part.name, self._callbacks.raise_if_stopping):
                if self.record(part) is None:
                    self.folder.settle(part.name, {"of": part.identity, **self._settled(part)})
                return True
        except FolderInUseError:
            return False

    def _settled(self, part: Part) -> dict[str, Any]:
        """Does a part and returns its record; a part that breaks down does not end the study."""
        self._callbacks.say(f"{part.what} ({part.name}): begins")
        try:
            self._require_trained(part)
            return {"status": DONE, **part.do()}
        except (StoppedError, OutputError, OutputStreamError):
            raise
        except NonFiniteError as error:
            reason, status = f"{part.what}: {error}", DIVERGED
        except CascadeError as error:
            reason, status = f"{part.what}: {error}", FAILED
        self._callbacks.say(f"{part.name}: {status}: {reason}")
        return {"status": status, "reason": reason, "attempt": self._attempt}

    def _require_trained(self, part: Part) -> None:
        """Checks that the runs that a part needs are still there, since their records say that they are done.

        Raises:
            CheckpointError: the folder of one is gone.
        """
        for run in {run.key: run for arm in self.arms for run in arm.runs}.values():
            needed = self.run_part(run).name
            if needed in part.after and not run.folder.is_dir():
                raise CheckpointError(
                    f"{run.folder} is gone, and its record says that it is trained; put it back, or remove "
                    f"{self.folder.record_file(needed)} to train it again"
                )

    def _loaded_judge(self) -> Judge | None:
        if self._judge is None and self.study.judge is not None:
            self._judge = load_judge(self.folder, self.study.judge)
        return self._judge
