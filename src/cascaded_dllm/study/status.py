"""How far a study is, wherever it runs, by the files that its parts write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from cascaded_dllm.file_names import DIVERGED, DONE, FAILED
from cascaded_dllm.study.attendant import Attendant
from cascaded_dllm.study.data import DATA, data_is_there, open_data
from cascaded_dllm.study.place import Place
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
        what: it is, for people.
        state: one of STATES: DONE; AT_WORK while a process has it; BEGUN where one has left a training; WAITING; FAILED
            until the next attempt; DIVERGED; or LOST where a run that it needs has diverged.
        after: names of parts that must be done before.
        step: of a training that is still to be done, where it is or will go on; None for other parts.
        num_steps: of that training; None for other parts.
        seconds_left: of that training, at the pace of its last steps or, before it has told of any, at what a position
            costs in the others; None where nothing is known.
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
        """Whether steps of training are still to be done."""
        return self.step is not None


@final
@dataclass(frozen=True, slots=True)
class ArmStatus:
    """What an arm with one seed consists of; arms may share trainings.

    Attributes:
        arm: its name.
        seed: of its runs and texts.
        trainings: how far they are, the first one first.
        bound: how far its bound is.
        texts: how far its drawings of texts are.
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
        data: how far its data is: DONE, AT_WORK, WAITING, or STALE where there is some of other settings.
        parts: all others once, in the order in which they are best done; None while the data is not there.
        arms: the same, by arm and seed; what is of no arm is in `parts` alone.
    """

    data: str
    parts: tuple[PartStatus, ...] | None = None
    arms: tuple[ArmStatus, ...] = ()

    def number(self, state: str) -> int:
        """So many parts are in a state."""
        return sum(part.state == state for part in self.parts or ())

    @property
    def trainings_left(self) -> tuple[PartStatus, ...]:
        """The trainings of which steps are still to be done."""
        return tuple(part for part in self.parts or () if part.is_training_left)

    def training_seconds_left(self, processes: int = 1) -> float | None:
        """About how long the trainings still take, if so many of them go on side by side at the pace of now.

        Not less than those take that must wait for each other. None where one of them cannot be told.
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
        """For scripts; arms name their parts."""
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


def study_status(study: StudySettings, place: Place, compose: Compose) -> StudyStatus:
    """How far a study is; nothing is made or changed.

    Args:
        study: what was asked for.
        place: its folder.
        compose: configurations, see `arm_configs`.

    Raises:
        ConfigError: a setting of an arm is unknown or out of range, or the file of a user's function is gone.
        DataError: a record or the data is damaged.
        CheckpointError: the metrics of a run are damaged.
    """
    if not data_is_there(study, place):
        if place.is_at_work(DATA):
            return StudyStatus(AT_WORK)
        return StudyStatus(WAITING if place.record(DATA) is None else STALE)
    data = open_data(study, place)
    arms = plan_study(study, arm_configs(study, compose), data, place)
    work = Work(study, arms, data, place, Attendant(), attempt="")
    runs = {work.run_part(run).name: run for arm in arms for run in arm.runs}
    found = statuses(place, work.parts(arms), runs)
    return StudyStatus(DONE, tuple(found.values()), tuple(_arm_status(work, arm, found) for arm in arms))


def _arm_status(work: Work, arm: PlannedArm, found: Mapping[str, PartStatus]) -> ArmStatus:
    return ArmStatus(
        arm.settings.name,
        arm.seed,
        tuple(found[work.run_part(run).name] for run in arm.runs),
        found[work.bound_part(arm).name],
        tuple(found[part.name] for part in work.sample_parts(arm)),
    )


def statuses(place: Place, parts: Sequence[Part], runs: Mapping[str, PlannedRun]) -> dict[str, PartStatus]:
    """How far every part is, by its name.

    Args:
        place: the folder of the study.
        parts: in an order in which each comes behind those that it waits for.
        runs: by the names of their parts, those that are trainings.
    """
    paces = {name: read_pace(run) for name, run in runs.items()}
    position = _seconds_a_position(runs, paces)
    found: dict[str, PartStatus] = {}
    for part in parts:
        lost = any(found[name].state in (DIVERGED, LOST) for name in part.after)
        state, reason = _state(place, part, is_lost=lost)
        if part.name not in runs or state in (DONE, DIVERGED, LOST):
            found[part.name] = PartStatus(part.name, part.what, state, part.after, reason=reason)
            continue
        run, pace = runs[part.name], paces[part.name]
        # Who left a training goes on at its last checkpoint.
        step = pace.told if state == AT_WORK else pace.kept
        if state == WAITING and step > 0:
            state = BEGUN
        left = _seconds_left(run, pace, step, position)
        num_steps = run.config.training.num_steps
        found[part.name] = PartStatus(part.name, part.what, state, part.after, step, num_steps, left, reason)
    return found


def _state(place: Place, part: Part, *, is_lost: bool) -> tuple[str, str | None]:
    """The state of a part, steps of trainings left aside, and the reason of one that has broken down."""
    record = place.record(part.name)
    is_settled = record is not None and record["of"] == part.of
    if record is not None and is_settled and record["status"] != FAILED:
        return record["status"], record.get("reason")
    if place.is_at_work(part.name):
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
    """What a position costs in the trainings that have told of steps, those that are finished included."""
    known = [
        (pace.seconds_a_step, runs[name].cost.token_forwards)
        for name, pace in paces.items()
        if pace.seconds_a_step is not None
    ]
    return sum(seconds for seconds, _ in known) / sum(cost for _, cost in known) if known else None
