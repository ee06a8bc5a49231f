"""A training run, assembled from its configuration."""

import gc
import typing
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from cascaded_dllm.assemble.data import require_known_method
from cascaded_dllm.assemble.devices import place, require_gpus
from cascaded_dllm.assemble.inputs import RunInputs, gather_inputs
from cascaded_dllm.assemble.prefixes import prefix_settings, prefix_training
from cascaded_dllm.assemble.resumable import course_of
from cascaded_dllm.assemble.snapshot import SnapshotSampler, snapshot_sampler
from cascaded_dllm.assemble.stage import model_config, new_stage, require_prefix_to_copy, schedule
from cascaded_dllm.assemble.start import log_choice, provenance, start_of_run, stored_config
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import StageDataset, StageMixture
from cascaded_dllm.data.manifest import choice_of
from cascaded_dllm.data.stages import BuildCallbacks, StageArrays
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.diffusion.bound import BOUND_SEED, MEASURED_FROM, BoundEstimate, omitted_nats
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import schedule_settings
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.likelihood import dataset_bound
from cascaded_dllm.model.devices import choose_device, host_by_default
from cascaded_dllm.model.placed import Halves, layout_of, train_only
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler, require_usable
from cascaded_dllm.train.checkpoint import Keeping
from cascaded_dllm.train.dry_batch import room_for_network, try_one_batch
from cascaded_dllm.train.execution import prepare_execution
from cascaded_dllm.train.flops import known_peak_flops
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.loop import LoopConfig, require_divisible
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.run import Progress, Run, RunPeriods
from cascaded_dllm.train.run_log import require_viewers
from cascaded_dllm.train.trainer import Trainer
from cascaded_dllm.train.valid_windows import ValidWindows


def require_sound(config: TrainConfig, num_processes: int = 1) -> None:
    """Checks every setting that can be checked without the data, so that a mistake costs no preprocessing.

    The device is checked only for a single process; each of several processes checks its own.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
    """
    if num_processes == 1:
        choose_device(config.device)
    require_known_method(config.data)
    spec = CascadeSpec(config.stage_lengths)
    if not config.baseline:
        spec.target_length(config.stage)
    require_prefix_to_copy(config)
    Layout(spec.window_length, config.data.packing, eos_id=0, background=0.0)
    schedule(config), _optim(config), prefix_settings(config)
    require_divisible(_loop(config), num_processes, spec.num_stages + 1 if config.training.fills else 1)
    process = process_from_name(model_config(config, vocab_size=1).process, 1)
    predictor = predictor_from_name(config.sampling.predictor, key="sampling.predictor")
    require_usable(predictor, process, config.sampling.num_steps, group="sampling.")


def require_launchable(config: TrainConfig, num_processes: int) -> None:
    """Checks that `num_processes` on this machine can train as configured, without initialising a device.

    Raises:
        ConfigError: a setting is out of range, or there are not enough devices.
    """
    require_sound(config, num_processes)
    if config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available()):
        require_gpus(torch.cuda.device_count(), num_processes)


@host_by_default()
@torch.inference_mode(False)
@torch.enable_grad()
def assemble_run(
    config: TrainConfig,
    group: Group | None = None,
    device: torch.device | None = None,
    *,
    building: BuildCallbacks | None = None,
) -> Run:
    """A training run, ready to start.

    Args:
        config: of the run.
        group: the processes that train, all of which assemble the run together; None for this process alone.
        device: of this process; None for the one that the configuration names.
        building: callbacks for the building of windows and stages that do not exist yet.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        DataError: the data is missing, broken or not what the configuration names, or the validation data was made in
            another way.
        CheckpointError: the weights to start from are missing or do not fit.
        MissingExtraError: a viewer of the metrics is not installed.
        OutputError: the folder of the run holds something else.
        DryBatchError: memory is short.
    """
    group = group or Group()
    if config.ngpus not in (None, group.size):
        raise ConfigError(
            f"ngpus is {config.ngpus} and {group.size} process assembles the run; `cdllm train` starts that many; "
            "elsewhere, leave ngpus out"
        )
    device = device or choose_device(config.device)
    require_sound(config, group.size)
    log = log_choice(config)
    require_viewers(log)
    # The first process writes or downloads files, and the others only open them.
    rehearse = _rehearsal(group, device)
    found = group.together(lambda: group.after_first(lambda: gather_inputs(config, rehearse, building)))
    config, arrays = found.config, found.arrays
    with room_for_network(torch.device("cpu")):
        stage = new_stage(config, arrays, found.dataset)
    start = group.together(lambda: group.after_first(lambda: start_of_run(config, stage.model, arrays, found.folder)))
    with room_for_network(device):
        trainer = _trainer(found, stage, group, device)
    return Run(
        folder=found.folder,
        trainer=trainer,
        config=stored_config(config),
        settings=_stage_settings(config, arrays, stage),
        tokenizer_file=found.tokenizer_file,
        periods=_periods(config),
        measure=_bound_measurer(config, trainer, found.valid),
        sample=_snapshot_sampler(found, stage, trainer),
        measures_start=start is not None,
        valid=_valid_windows(trainer, found.valid),
        log=replace(log, name=log.name or found.name),
        provenance=provenance(config, arrays, found.valid_arrays, trainer.device, start)
        | {"layout": trainer.execution_layout()},
        peak_flops=_peak_flops(config, trainer),
    )


def _rehearsal(group: Group, device: torch.device) -> Callable[[RunInputs], None]:
    """Returns a function that computes a first batch of a run and then discards it, to find out if memory suffices.

    The first process does it for all processes, with its own share of the batch. It is skipped if weights are split
    over processes, or if blocks are compiled, which takes a minute each time. Before its first step, the run itself
    computes such a batch in all cases, with the real data and with the models that draw and judge samples in memory.
    """

    def rehearse(found: RunInputs) -> None:
        training = found.config.training
        if training.compile or (training.strategy == "fsdp" and group.size > 1):
            return
        share = replace(training, batch_size=training.batch_size // group.size)
        found = replace(found, config=replace(found.config, training=share))
        with room_for_network(device):
            trainer = _trainer(found, new_stage(found.config, found.arrays, found.dataset), Group(), device)
        try_one_batch(trainer)
        del trainer
        # A network and its optimizer refer to each other, so only the collector frees them.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    return rehearse


def _trainer(found: RunInputs, stage: StageSampler, group: Group, device: torch.device) -> Trainer:
    """The trainer of a stage, whose network is moved from the memory of the host to `device`.

    Raises:
        CheckpointError: a stage that is to write prefixes cannot be read.
        ConfigError: blocks are to be compiled, and there is no compiler.
    """
    config, arrays = found.config, found.arrays
    execution = prepare_execution(
        stage.model,
        device,
        compiles=config.training.compile,
        deterministic=config.training.deterministic,
        log_every=config.training.log_every,
    )
    # A flat network has no layout network, and the tokens between which it fills in are already in place.
    halves = "fill" if config.training.fills else typing.cast(Halves, config.training.halves)
    train_only(stage.model, halves)
    parallel = place(stage.model, config.training.strategy, group, device)
    prefixes = group.together(lambda: prefix_training(config, arrays, stage, device))
    return Trainer(
        stage.model,
        Objective(stage.process, stage.schedule, config.training.t_min, prefixes, halves),
        StageMixture.of_fills(arrays) if config.training.fills else found.dataset,
        optim=_optim(config),
        loop=_loop(config),
        course=course_of(config, arrays, prefixes),
        parallel=parallel,
        execution=execution,
    )


def _snapshot_sampler(found: RunInputs, stage: StageSampler, trainer: Trainer) -> SnapshotSampler | None:
    """The object that draws the samples of snapshots; None if there are none, or if another process draws them.

    Raises:
        CheckpointError: an earlier stage cannot be read, or is of another cascade.
        ConfigError: the judge cannot be loaded.
    """
    # If weights are split, all processes are needed to draw samples; otherwise the first draws them alone.
    draws_samples = trainer.group.is_first or trainer.parallel.storage.is_split

    def sampler() -> SnapshotSampler | None:
        if not draws_samples:
            return None
        windows = found.valid or found.dataset
        return snapshot_sampler(found.config, stage, windows, found.texts, tokenizer_file=found.tokenizer_file)

    return trainer.group.together(sampler)


def _optim(config: TrainConfig) -> OptimConfig:
    return OptimConfig(**asdict(config.optim))


def _loop(config: TrainConfig) -> LoopConfig:
    settings = config.training
    return LoopConfig(
        batch_size=settings.batch_size,
        accum=settings.accum,
        num_steps=settings.num_steps,
        ema_decay=settings.ema,
        seed=settings.seed,
    )


def _stage_settings(config: TrainConfig, arrays: StageArrays, stage: StageSampler) -> StageSettings:
    """The settings of the stage that its checkpoints store."""
    return StageSettings(
        model=stage.model.config,
        noise=schedule_settings(stage.schedule),
        stage=0 if config.baseline else config.stage,
        stage_lengths=config.stage_lengths,
        tokenizer=arrays.tokenizer,
        packing=arrays.packing,
        unique=arrays.unique,
        method=arrays.method,
        prefix=prefix_settings(config),
        layout=None if (layout := layout_of(stage.model)) is None else layout.config,
        choice=choice_of(arrays.method, arrays.scorer),
    )


def _periods(config: TrainConfig) -> RunPeriods:
    settings = config.training
    return RunPeriods(
        log_every=settings.log_every,
        eval_every=settings.eval_every,
        snapshot_every=settings.snapshot_every,
        keeping=Keeping(newest=settings.keep, every=settings.keep_every),
    )


def _peak_flops(config: TrainConfig, trainer: Trainer) -> float | None:
    """The peak of all devices together in FLOP/s; None if it is unknown."""
    peak = config.training.peak_flops or known_peak_flops(trainer.device, trainer.model.compute_dtype)
    return None if peak is None else peak * trainer.group.size


def _bound_measurer(
    config: TrainConfig, trainer: Trainer, valid: StageDataset | None
) -> Callable[[Progress | None], BoundEstimate] | None:
    """A function that estimates the bound on the validation windows; None if there are none.

    It is the bound of `cdllm evaluate likelihood`: it depends neither on the times of training nor on the run's seed.
    """
    if valid is None:
        return None
    objective = replace(trainer.objective, t_min=MEASURED_FROM)
    return lambda on_progress: dataset_bound(
        trainer.model,
        objective,
        valid,
        num_windows=config.training.eval_windows or len(valid),
        num_times=config.training.eval_times,
        batch_size=trainer.loop.batch_size // (trainer.loop.accum * trainer.group.size),
        seed=BOUND_SEED,
        on_progress=on_progress,
        group=trainer.group,
    )


def _valid_windows(trainer: Trainer, valid: StageDataset | None) -> ValidWindows:
    """The validation windows that the bound is measured on, and the term that it omits."""
    if valid is None:
        return ValidWindows()
    objective = trainer.objective
    omitted = omitted_nats(objective.process, objective.schedule, length=valid.num_free, t_min=MEASURED_FROM)
    return ValidWindows(
        num_windows=len(valid),
        num_dropped=valid.num_dropped,
        omitted_nats_per_token=omitted / valid.target_length,
    )
