"""The runs that a study trains for every arm and seed; arms share runs that would have the same weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cascaded_dllm.assemble.run import require_sound
from cascaded_dllm.assemble.start import plain
from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.config_groups import FREE_IN_TRAINING
from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.importance.custom import read_scorer, split_scorer
from cascaded_dllm.preprocess.job import CUSTOM
from cascaded_dllm.study.budget import cost_of_step, shared_first, steps_of_runs, with_first
from cascaded_dllm.study.data import MethodData
from cascaded_dllm.study.drafts import Draft, drafts_of
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study_config import PER_WORD, ArmSettings, StudySettings, is_custom, preprocessing_method
from cascaded_dllm.text.tokenizer import NUM_BYTES
from cascaded_dllm.train.meter import StepCost

Compose = Callable[[Sequence[str]], TrainConfig]
"""Makes a configuration from overrides key=value."""

_FREE = ("run_dir", "device", "ngpus", "logging", "sampling", "evaluation", "earlier_stages")
"""Settings that do not affect the weights of a run; those of the group `training` are in `FREE_IN_TRAINING`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One training run.

    Attributes:
        key: equal for runs that would have the same weights.
        stage: 1..K, 0 for a flat model.
        config: its settings, run folder included.
        cost: of an optimizer step.
        after: keys of the runs that it starts from.
    """

    key: str
    stage: int
    config: TrainConfig
    cost: StepCost
    after: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(str(self.config.run_dir))

    @property
    def name(self) -> str:
        """Name for folders and log lines."""
        return f"{'flat' if self.stage == 0 else f'stage{self.stage}'}-{self.key}"

    @property
    def description(self) -> str:
        """Name for messages."""
        return "the flat model" if self.stage == 0 else f"stage {self.stage}"


class PlannedArm(NamedTuple):
    """An arm with one seed.

    Attributes:
        settings: the arm in the study file.
        seed: of its runs and texts.
        runs: all runs that it trains, each after those that it starts from.
        stages: the runs among them that write texts, first stage first.
        config: the settings that its runs share.
    """

    settings: ArmSettings
    seed: int
    runs: tuple[PlannedRun, ...]
    stages: tuple[PlannedRun, ...]
    config: TrainConfig

    @property
    def name(self) -> str:
        """Name for log lines."""
        return f"{self.settings.name}, seed {self.seed}"

    @property
    def folders(self) -> list[Path]:
        """Run folders of its stages."""
        return [run.folder for run in self.stages]


def arm_configs(study: StudySettings, compose: Compose) -> dict[str, TrainConfig]:
    """The settings that the runs of every arm share, by arm; checks all that can be checked without the data.

    Raises:
        ConfigError: a setting of an arm is unknown or out of range, or contradicts another.
    """
    return {arm.name: _arm_config(study, arm, compose) for arm in study.arms}


def _arm_config(study: StudySettings, arm: ArmSettings, compose: Compose) -> TrainConfig:
    named = [*(method for method in SELECTION_METHODS if method not in CUSTOM), PER_WORD]
    if not is_custom(arm.method):
        own = "or FILE.py:FUNCTION for a function of yours"
        one_of(f"the method of arm {arm.name}", arm.method, named, hint=own)
    decided = [f"stage_lengths={list(study.lengths)}", "data.valid=null", "data.path=null", "data.train=null"]
    decided += [
        f"data.dataloader={preprocessing_method(arm.method)}",
        f"conditioning={'placed' if arm.kind == 'placed' else 'prefix'}",
    ]
    # The overrides of an arm apply to its flat network, if it has one.
    decided += [f"baseline={'true' if arm.kind in ('flat', 'from_flat') else 'false'}"]
    try:
        if is_custom(arm.method):
            # Existing data may have been copied here without the file of the function.
            (split_scorer if study.corpus.folders else read_scorer)(arm.method)
        config = compose([*study.base, *arm.overrides, *decided])
        for run in drafts_of(arm, config, study.lengths):
            # The paths of earlier stages are set later, so this check leaves generated prefixes out.
            off = replace(run.config.training.generated_prefix, prob=0.0)
            require_sound(replace(run.config, training=replace(run.config.training, generated_prefix=off)))
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from error
    return config


def require_budget(study: StudySettings, configs: Mapping[str, TrainConfig]) -> None:
    """Checks, without the data, that the budget pays for a step of every run of every arm with the fewest tokens.

    Raises:
        ConfigError: it does not.
    """
    for arm in study.arms:
        drafts = drafts_of(arm, configs[arm.name], study.lengths)
        steps_of_runs(study.budget, [cost_of_step(draft.config, NUM_BYTES + 1) for draft in drafts], arm.name)


def plan_study(
    study: StudySettings, configs: Mapping[str, TrainConfig], data: Mapping[str, MethodData], folder: StudyFolder
) -> list[PlannedArm]:
    """Every arm with every seed, the arms of a seed one after another.

    Args:
        study: the study file.
        configs: the settings that the runs of every arm share, see `arm_configs`.
        data: by method.
        folder: the folder of the study.

    Raises:
        ConfigError: the budget does not pay for a step of every run of an arm.
    """
    drafts = {arm.name: drafts_of(arm, configs[arm.name], study.lengths) for arm in study.arms}
    steps = _steps(study, drafts, data)
    return [
        _plan_arm(study, arm, drafts[arm.name], steps[arm.name], configs[arm.name], data[arm.method], folder, seed)
        for seed in study.seeds
        for arm in study.arms
    ]


def _steps(
    study: StudySettings, drafts: Mapping[str, Sequence[Draft]], data: Mapping[str, MethodData]
) -> dict[str, list[int]]:
    """The number of steps of every run, by arm; with the split `windows`, cascades may share their first stage.

    Prefixes and gaps cost differently, so the first stage of one arm would have a few steps more than that of another.
    If the numbers are close, all take the smallest, and the other arms spend the rest on their later stages.
    """
    costs = {name: _costs(runs, data) for name, runs in drafts.items()}
    steps = {name: steps_of_runs(study.budget, costs[name], name) for name in drafts}
    if study.budget.split != "windows":
        return steps
    cascades: dict[str, list[str]] = {}
    for arm in study.arms:
        if arm.kind in ("prefix", "placed"):
            alike = _with_run_settings(drafts[arm.name][0].config, data[arm.method], seed=0, num_steps=1, period=1)
            cascades.setdefault(_run_key(alike, data[arm.method], ()), []).append(arm.name)
    for names in cascades.values():
        if (first := shared_first([steps[name][0] for name in names])) is not None:
            steps |= {name: with_first(study.budget, costs[name], first) for name in names}
    return steps


def _costs(drafts: Sequence[Draft], data: Mapping[str, MethodData]) -> list[StepCost]:
    """The cost of a step of each run; all data has the same tokenizer."""
    vocab_size = next(iter(data.values())).train_identity.settings.vocab_size
    return [cost_of_step(draft.config, vocab_size) for draft in drafts]


def _plan_arm(
    study: StudySettings,
    arm: ArmSettings,
    drafts: Sequence[Draft],
    steps: Sequence[int],
    config: TrainConfig,
    data: MethodData,
    folder: StudyFolder,
    seed: int,
) -> PlannedArm:
    costs = _costs(drafts, {arm.method: data})
    runs: list[PlannedRun] = []
    for draft, cost, num_steps in zip(drafts, costs, steps, strict=True):
        sources = [runs[number] for number in draft.starts_from]
        period = -(-num_steps // study.evaluate.points)
        whole = _with_run_settings(draft.config, data, seed=seed, num_steps=num_steps, period=period)
        whole = _started_from(whole, sources)
        key = _run_key(whole, data, [source.key for source in sources])
        run = PlannedRun(key=key, stage=draft.stage, config=whole, cost=cost, after=tuple(s.key for s in sources))
        runs.append(replace(run, config=replace(whole, run_dir=str(folder.run(run.name)))))
    stages = tuple(run for run in runs if arm.kind == "flat" or run.stage > 0)
    return PlannedArm(arm, seed, tuple(runs), stages, config)


def _with_run_settings(config: TrainConfig, data: MethodData, *, seed: int, num_steps: int, period: int) -> TrainConfig:
    """The settings of a run with its data, seed and length; a bound and a checkpoint come every `period` steps."""
    training = replace(
        config.training, seed=seed, num_steps=num_steps, eval_every=period, snapshot_every=period, keep_every=None
    )
    folders = replace(config.data, path=str(data.train.absolute()), valid=str(data.valid.absolute()))
    return replace(config, data=folders, training=training)


def _started_from(config: TrainConfig, sources: Sequence[PlannedRun]) -> TrainConfig:
    """The settings of a run with the folders of the runs that it starts from."""
    folders = tuple(str(source.folder) for source in sources)
    if config.pretrained.use_pretrained:
        return replace(config, pretrained=replace(config.pretrained, model_path=folders[0]))
    generated = replace(config.training.generated_prefix, stage_paths=folders)
    return replace(config, training=replace(config.training, generated_prefix=generated))


def _run_key(config: TrainConfig, data: MethodData, sources: Sequence[str]) -> str:
    """Fingerprint of all that decides the weights of a run: settings, content of the data, runs that it starts from."""
    settings: dict[str, Any] = plain(config.to_dict())
    for name in _FREE:
        settings.pop(name)
    for name in FREE_IN_TRAINING:
        settings["training"].pop(name)
    settings["training"]["generated_prefix"].pop("stage_paths")
    settings["model"].pop("name")
    settings.pop("pretrained")
    settings["data"] = {
        "train": data.train_identity.fingerprint,
        "packing": config.data.packing,
        "unique": config.data.unique,
    }
    return fingerprint({**settings, "sources": list(sources)})


def described(arm: PlannedArm) -> str:
    """One line about an arm."""
    lengths = ", ".join(map(str, arm.config.stage_lengths))
    match arm.settings.kind:
        case "flat":
            return f"flat model of {arm.config.stage_lengths[-1]} tokens, {arm.settings.method}"
        case "from_flat":
            return f"cascade {lengths} around a flat model, {arm.settings.method}"
    own = f", {' '.join(arm.settings.overrides)}" if arm.settings.overrides else ""
    return f"{arm.settings.kind} cascade {lengths}, {arm.settings.method}{own}"


def settings_of(arm: PlannedArm) -> dict[str, Any]:
    """The settings of an arm, for its results."""
    return {**asdict(arm.settings), "seed": arm.seed, "overrides": list(arm.settings.overrides)}
