"""How far a study is, wherever it runs, by the files that its parts write."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from cascaded_dllm.run_lock import LOCK_FILE, SECONDS_OF_SILENCE
from cascaded_dllm.study.attendant import Attendant
from cascaded_dllm.study.data import data_is_there, open_data
from cascaded_dllm.study.place import DONE, Place
from cascaded_dllm.study.plan import Compose, PlannedArm, PlannedRun, arm_configs, plan_study
from cascaded_dllm.study.training import Pace, read_pace
from cascaded_dllm.study.work import Part, Work
from cascaded_dllm.study_config import StudySettings

AT_WORK: Final = "at work"
BEGUN: Final = "begun"
WAITING: Final = "waiting"
HOPELESS: Final = "not to be had"


@final
@dataclass(frozen=True, slots=True)
class PartStatus:
    """How far a part is.

    Attributes:
        name: of the part.
        what: it is, for people.
        state: of DONE, DIVERGED or FAILED once it is settled; AT_WORK while a process has it; BEGUN where one has left
            a training; WAITING; or HOPELESS where a run that it needs has broken down.
        step: of a training that is not settled, the last one that it has told; None for other parts.
        num_steps: of that training; None for other parts.
        seconds_left: of that training, at the pace of its last steps or, before it has begun, at the mean cost of a
            position in the others; None where nothing is known.
        reason: why it has broken down.
    """

    name: str
    what: str
    state: str
    step: int | None = None
    num_steps: int | None = None
    seconds_left: float | None = None
    reason: str | None = None


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
        parts: all of them once, in the order in which they are best done; None while the data is not there.
        arms: the same, by arm and seed; what is of no arm is in `parts` alone.
    """

    parts: tuple[PartStatus, ...] | None
    arms: tuple[ArmStatus, ...] = ()

    def number(self, *states: str) -> int:
        """So many parts are in one of `states`."""
        return sum(part.state in states for part in self.parts or ())

    @property
    def training_seconds_left(self) -> float | None:
        """Of all trainings together, on one process; None where one of them cannot be told."""
        left = [part.seconds_left for part in self.parts or () if part.step is not None and part.state != HOPELESS]
        return None if None in left else sum(seconds for seconds in left if seconds is not None)

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        parts = None if self.parts is None else [asdict(part) for part in self.parts]
        return {"training_seconds_left": self.training_seconds_left, "parts": parts}


def study_status(study: StudySettings, place: Place, compose: Compose) -> StudyStatus:
    """How far a study is; nothing is made or changed.

    Args:
        study: what was asked for.
        place: its folder.
        compose: configurations, see `arm_configs`.

    Raises:
        ConfigError: a setting of an arm is unknown or out of range, as a file of a function of the user's own that is
            gone.
        DataError: a record or the data is damaged.
    """
    if not data_is_there(study, place):
        return StudyStatus(None)
    data = open_data(study, place)
    arms = plan_study(study, arm_configs(study, compose), data, place)
    work = Work(study, arms, data, place, Attendant(), attempt="")
    runs = {work.run_part(run).name: run for arm in arms for run in arm.runs}
    found = _statuses(place, work.parts(arms), runs)
    return StudyStatus(tuple(found.values()), tuple(_arm_status(work, arm, found) for arm in arms))


def _arm_status(work: Work, arm: PlannedArm, found: Mapping[str, PartStatus]) -> ArmStatus:
    return ArmStatus(
        arm.settings.name,
        arm.seed,
        tuple(found[work.run_part(run).name] for run in arm.runs),
        found[work.bound_part(arm).name],
        tuple(found[part.name] for part in work.sample_parts(arm)),
    )


def _statuses(place: Place, parts: Sequence[Part], runs: Mapping[str, PlannedRun]) -> dict[str, PartStatus]:
    """How far every part is, by its name."""
    paces = {name: read_pace(run) for name, run in runs.items()}
    position = _seconds_a_position(runs, paces)
    found: dict[str, PartStatus] = {}
    for part in parts:
        found[part.name] = _status(place, part, runs.get(part.name), paces.get(part.name), position, found)
    return found


def _status(
    place: Place,
    part: Part,
    run: PlannedRun | None,
    pace: Pace | None,
    position: float | None,
    found: Mapping[str, PartStatus],
) -> PartStatus:
    """How far one part is, given those that it comes after."""
    record = place.record(part.name)
    if record is not None and record["of"] == part.of:
        return PartStatus(part.name, part.what, record["status"], reason=record.get("reason"))
    if any(found[name].state not in (DONE, AT_WORK, BEGUN, WAITING) for name in part.after):
        return PartStatus(part.name, part.what, HOPELESS)
    state = AT_WORK if _is_held(place.out / "locks" / part.name) else WAITING
    if run is None or pace is None:
        return PartStatus(part.name, part.what, state)
    num_steps = run.config.training.num_steps
    a_step = pace.seconds_a_step
    if a_step is None and position is not None:
        a_step = position * run.cost.token_forwards
    left = None if a_step is None else (num_steps - pace.step) * a_step
    if state == WAITING and pace.step > 0:
        state = BEGUN
    return PartStatus(part.name, part.what, state, pace.step, num_steps, left)


def _seconds_a_position(runs: Mapping[str, PlannedRun], paces: Mapping[str, Pace]) -> float | None:
    """What a position costs in the trainings that have begun, those that are finished included, on average."""
    known = [
        (pace.seconds_a_step, runs[name].cost.token_forwards)
        for name, pace in paces.items()
        if pace.seconds_a_step is not None
    ]
    return sum(seconds for seconds, _ in known) / sum(cost for _, cost in known) if known else None


def _is_held(folder: Path) -> bool:
    """Whether a process that gives signs of life has the lock of a part."""
    try:
        silence = time.time() - (folder / LOCK_FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return silence < SECONDS_OF_SILENCE
