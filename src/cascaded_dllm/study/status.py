"""How far a study is, wherever it runs, as its files show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from cascaded_dllm.file_names import DIVERGED, DONE, FAILED
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import DATA, data_is_there, open_data
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.plan import Compose, PlannedArm, PlannedRun, arm_configs, plan_study
from cascaded_dllm.study.training import Pace, read_pace
from cascaded_dllm.study.work import Part, Work
from cascaded_dllm.study_config import StudySettings

AT_WORK: Final = "at work"
BEGUN: Final = "begun"
WAITING: Final = "waiting"
LOST: Final = "lost"
STALE: Final = "of other settings"
STATES: Final = (DONE, AT_WORK, BEGUN, WAITING, FAILED, DIVERGED, LOST)


@final
@dataclass(frozen=True, slots=True)
class PartStatus:
    """How far a part is.

    Attributes:
        name: of the part.
        what: its description for messages.
        state: one of STATES: DONE; AT_WORK while a process has it; BEGUN if a process has left a training unfinished;
            WAITING; FAILED until the next attempt; DIVERGED; LOST if a run that it needs has diverged.
        after: names of the parts that must be done before.
        step: the step where an unfinished training is or will continue; None for other parts.
        num_steps: of that training; None for other parts.
        seconds_left: of that training, at the pace of its last steps or, before it has logged any, at the seconds a
            position of the other trainings; None where neither is known.
        reason: why it has failed or diverged.
    """

    name: str
    what: str
    state: str
    after: tuple[str, ...] = ()
    step: int | None = None
    num_steps: int | None = None
    seconds_left: float | None = None
    reason: str | None = None

    @property
    def is_training_left(self) -> bool:
        """Whether it is a training with steps left."""
        return self.step is not None


@final
@dataclass(frozen=True, slots=True)
class ArmStatus:
    """How far the parts of an arm with one seed are; arms may share trainings.

    Attributes:
        arm: its name.
        seed: of its runs and texts.
        trainings: its training runs, in order.
        bound: its bound.
        texts: its drawings of texts.
    """

    arm: str
    seed: int
    trainings: tuple[PartStatus, ...]
    bound: PartStatus
    texts: tuple[PartStatus, ...]


@final
@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        data: state of its data: DONE, AT_WORK, WAITING, or STALE if the folder has data of other settings.
        parts: all other parts, each once, in the order in which they are best done; None without data.
        arms: the same parts by arm and seed; parts of no arm are in `parts` only.
    """

    data: str
    parts: tuple[PartStatus, ...] | None = None
    arms: tuple[ArmStatus, ...] = ()

    def count(self, state: str) -> int:
        """The number of parts in a state."""
        return sum(part.state == state for part in self.parts or ())

    @property
    def trainings_left(self) -> tuple[PartStatus, ...]:
        """The trainings that have steps left."""
        return tuple(part for part in self.parts or () if part.is_training_left)

    def training_seconds_left(self, processes: int = 1) -> float | None:
        """An estimate of the time that the trainings still take at their present pace, `processes` at a time.

        At least the time of the longest chain of trainings that wait for each other; None if that of any is unknown.
        """
        left = {part.name: part.seconds_left for part in self.trainings_left}
        if self.parts is None or None in left.values():
            return None
        seconds = {name: found for name, found in left.items() if found is not None}
        until: dict[str, float] = {}
        for part in self.trainings_left:
            until[part.name] = seconds[part.name] + max((until.get(name, 0.0) for name in part.after), default=0.0)
        return max(sum(seconds.values()) / processes, *until.values(), 0.0)

    def as_json(self) -> dict[str, Any]:
        """The status as JSON values, for scripts; arms refer to their parts by name."""
        parts = None if self.parts is None else [asdict(part) for part in self.parts]
        arms = [
            {
                "arm": arm.arm,
                "seed": arm.seed,
                "trainings": [part.name for part in arm.trainings],
                "bound": arm.bound.name,
                "texts": [part.name for part in arm.texts],
            }
            for arm in self.arms
        ]
        left = self.training_seconds_left()
        return {"data": self.data, "training_seconds_left": left, "parts": parts, "arms": arms}


def study_status(study: StudySettings, folder: StudyFolder, compose: Compose) -> StudyStatus:
    """How far a study is; creates and changes nothing.

    Args:
        study: the study file.
        folder: its folder.
        compose: makes configurations, see `arm_configs`.

    Raises:
        ConfigError: a setting of an arm is unknown or out of range, or the file of a user's function is gone.
        DataError: a record or the data is damaged.
        CheckpointError: the metrics of a run are damaged.
    """
    if not data_is_there(study, folder):
        if folder.is_at_work(DATA):
            return StudyStatus(AT_WORK)
        return StudyStatus(WAITING if folder.record(DATA) is None else STALE)
    data = open_data(study, folder)
    arms = plan_study(study, arm_configs(study, compose), data, folder)
    work = Work(study, arms, data, folder, StudyCallbacks(), attempt="")
    runs = {work.run_part(run).name: run for arm in arms for run in arm.runs}
    found = statuses(folder, work.parts(arms), runs)
    return StudyStatus(DONE, tuple(found.values()), tuple(_arm_status(work, arm, found) for arm in arms))


def _arm_status(work: Work, arm: PlannedArm, found: Mapping[str, PartStatus]) -> ArmStatus:
    return ArmStatus(
        arm.settings.name,
        arm.seed,
        tuple(found[work.run_part(run).name] for run in arm.runs),
        found[work.bound_part(arm).name],
        tuple(found[part.name] for part in work.sample_parts(arm)),
    )


def statuses(folder: StudyFolder, parts: Sequence[Part], runs: Mapping[str, PlannedRun]) -> dict[str, PartStatus]:
    """How far every part is, by its name.

    Args:
        folder: the folder of the study.
        parts: each after the parts that it waits for.
        runs: the trainings among them, by the names of their parts.
    """
    paces = {name: read_pace(run) for name, run in runs.items()}
    position = _seconds_a_position(runs, paces)
    found: dict[str, PartStatus] = {}
    for part in parts:
        lost = any(found[name].state in (DIVERGED, LOST) for name in part.after)
        state, reason = _state(folder, part, is_lost=lost)
        if part.name not in runs or state in (DONE, DIVERGED, LOST):
            found[part.name] = PartStatus(part.name, part.what, state, part.after, reason=reason)
            continue
        run, pace = runs[part.name], paces[part.name]
        # A training that no process has continues at its last checkpoint.
        step = pace.last_step if state == AT_WORK else pace.checkpoint_step
        if state == WAITING and step > 0:
            state = BEGUN
        left = _seconds_left(run, pace, step, position)
        num_steps = run.config.training.num_steps
        found[part.name] = PartStatus(part.name, part.what, state, part.after, step, num_steps, left, reason)
    return found


def _state(folder: StudyFolder, part: Part, *, is_lost: bool) -> tuple[str, str | None]:
    """The state of a part, where BEGUN still counts as WAITING, and the reason if it has broken down."""
    record = folder.record(part.name)
    is_settled = record is not None and record["of"] == part.identity
    if record is not None and is_settled and record["status"] != FAILED:
        return record["status"], record.get("reason")
    if folder.is_at_work(part.name):
        return AT_WORK, None
    if record is not None and is_settled:
        return FAILED, record.get("reason")
    return (LOST if is_lost else WAITING), None


def _seconds_left(run: PlannedRun, pace: Pace, step: int, position: float | None) -> float | None:
    a_step = pace.seconds_a_step
    if a_step is None and position is not None:
        a_step = position * run.cost.token_forwards
    return None if a_step is None else (run.config.training.num_steps - step) * a_step


def _seconds_a_position(runs: Mapping[str, PlannedRun], paces: Mapping[str, Pace]) -> float | None:
    """Mean seconds a position over the trainings with logged steps, finished ones included; None without any."""
    known = [
        (pace.seconds_a_step, runs[name].cost.token_forwards)
        for name, pace in paces.items()
        if pace.seconds_a_step is not None
    ]
    return sum(seconds for seconds, _ in known) / sum(cost for _, cost in known) if known else None
