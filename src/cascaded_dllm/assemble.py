"""The one place where a configuration becomes objects."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import DataSettings, TrainConfig, leaves
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import Schedule, schedule_from_settings, schedule_settings
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.evaluate.likelihood import JointBound, dataset_bound, stage_bounds
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.model.pretrained import StageSettings
from cascaded_dllm.model.score_model import ScoreModel, ScoreModelConfig
from cascaded_dllm.processes import usable_cores
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler, require_usable
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.checkpoint import Keeping
from cascaded_dllm.train.execution import prepare_execution
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.parallel import Parallel, Replicated, Single
from cascaded_dllm.train.run import Progress, Run, RunPeriods
from cascaded_dllm.train.trainer import LoopConfig, Trainer, require_divisible
from cascaded_dllm.train.world import World

_FREE_IN_TRAINING = (
    "num_steps",
    "log_every",
    "eval_every",
    "eval_windows",
    "eval_times",
    "snapshot_every",
    "keep",
    "keep_every",
    "accum",
    "strategy",
    "compile",
    "deterministic",
)
"""Keys of the group `training` that may change when a run is taken up again."""

# Of the processes that build stages: the one that writes what they give keeps up with about so many.
_MAX_WORKERS = 8


def process_device(name: str, world: World | None) -> torch.device:
    """The device that this process of a run computes on: each of several has a GPU of its own, or all use the CPU.

    Raises:
        ConfigError: there is no such device on this machine, or not one for every process.
    """
    if world is None or world.size == 1:
        return choose_device(name)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if kind not in ("cuda", "cpu"):
        raise ConfigError(
            f"device is {name} and {world.size} processes train; give device=cuda or device=cpu, or ngpus=1"
        )
    if kind == "cpu":
        return choose_device("cpu")
    count = torch.cuda.device_count()
    # Slurm may show every task its own GPU alone.
    if count != 1 or world.has_store:
        require_gpus(count, world.local_size)
    return choose_device(f"cuda:{world.local_rank % max(1, count)}")


def require_launchable(config: TrainConfig, num_processes: int) -> None:
    """Judges whether `num_processes` on this machine can train as configured, without touching a device.

    Raises:
        ConfigError: a setting is out of range, or there are not devices enough.
    """
    require_sound(config, num_processes)
    if config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available()):
        require_gpus(torch.cuda.device_count(), num_processes)


def require_gpus(count: int, num_processes: int) -> None:
    """Checks that every process of this machine has a GPU.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if count < num_processes:
        raise ConfigError(
            f"{num_processes} processes are to compute on the GPUs of this machine, and it shows {count}; start as "
            "many processes as there are GPUs, or give device=cpu"
        )


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); choose auto, cpu, mps or cuda") from error
    return device


def stage_dataset(path: str, config: TrainConfig) -> tuple[StageArrays, StageDataset]:
    """The windows of the configured stage, or of the flat model, of a preprocessed folder."""
    arrays = _arrays(path, CascadeSpec(config.stage_lengths), config.data)
    return arrays, StageDataset.flat(arrays) if config.baseline else StageDataset(arrays, config.stage)


def require_sound(config: TrainConfig, num_processes: int = 1) -> None:
    """Judges every setting that can be judged without the data, so that a mistake costs no preprocessing.

    The device of one process is judged as well; that of several is the business of each of them.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
    """
    if num_processes == 1:
        choose_device(config.device)
    spec = CascadeSpec(config.stage_lengths)
    if not config.baseline:
        spec.target_length(config.stage)
    Layout(spec.window_length, config.data.packing, eos_id=0, background=0.0)
    _schedule(config), _optim(config)
    require_divisible(_loop(config), num_processes)
    process = process_from_name(_model_config(config, vocab_size=1).process, 1)
    require_usable(predictor_from_name(config.sampling.predictor), process, config.sampling.num_steps)


def assemble_run(config: TrainConfig, group: Group | None = None, device: torch.device | None = None) -> Run:
    """A training run, ready to go.

    Args:
        config: of the run.
        group: the processes that train, all of which assemble the run together; None: this one alone.
        device: of this process; None: the one that the configuration names.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        DataError: the data is missing, broken, or validation data has another tokenizer, method or tagger.
    """
    group = group or Group()
    if config.ngpus not in (None, group.size):
        raise ConfigError(
            f"ngpus is {config.ngpus} and {group.size} process assembles the run; `cdllm train` starts as many, and "
            "elsewhere ngpus is left out"
        )
    device = device or choose_device(config.device)
    require_sound(config, group.size)
    # What the first process has made on the disk, the others only open.
    arrays, dataset, valid = group.together(lambda: group.after_first(lambda: _datasets(config)))
    stage = _new_stage(config, arrays.vocab_size, dataset)
    execution = prepare_execution(
        stage.model,
        device,
        compiles=config.training.compile,
        deterministic=config.training.deterministic,
        log_every=config.training.log_every,
    )
    trainer = Trainer(
        stage.model,
        Objective(stage.process, stage.schedule, config.training.t_min),
        dataset,
        optim=_optim(config),
        loop=_loop(config),
        course=_course(config, arrays),
        parallel=_place(stage.model, config.training.strategy, group, device),
        execution=execution,
    )
    tokenizer_file = Path(config.data.path) / TOKENIZER_FILE
    return Run(
        folder=Path(config.run_dir),
        trainer=trainer,
        config=_plain(config.to_dict()),
        settings=StageSettings(
            model=stage.model.config,
            noise=schedule_settings(stage.schedule),
            stage=0 if config.baseline else config.stage,
            stage_lengths=config.stage_lengths,
            tokenizer=arrays.tokenizer,
            packing=arrays.packing,
        ),
        tokenizer_file=tokenizer_file,
        periods=RunPeriods(
            log_every=config.training.log_every,
            eval_every=config.training.eval_every,
            snapshot_every=config.training.snapshot_every,
            keeping=Keeping(newest=config.training.keep, every=config.training.keep_every),
        ),
        measure=_bound_measurer(config, trainer, valid),
        sample=_snapshot_sampler(config, stage, valid or dataset, Tokenizer.load(tokenizer_file)),
    )


def joint_bound(
    cascade: Cascade,
    data: DataSettings,
    *,
    num_windows: int,
    num_times: int,
    batch_size: int,
    seed: int,
    t_min: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> JointBound:
    """The joint bound of a cascade, or of a flat model as a cascade of one stage, on windows of `data.path`.

    Raises:
        ConfigError: the windows are to be cut in another way than those that the models were trained on.
        DataError: the data has another tokenizer than the cascade.
    """
    if cascade.packing not in ("", data.packing):
        raise ConfigError(
            f"the packing is {data.packing!r}, and the models were trained on windows of packing {cascade.packing!r}: "
            "the bound would be one on texts of another kind; leave --packing out"
        )
    arrays = _arrays(data.path, CascadeSpec(cascade.trained_lengths), data)
    numbers = range(1, len(cascade.stages) + 1)
    datasets = [StageDataset.flat(arrays)] if cascade.is_flat else [StageDataset(arrays, k) for k in numbers]
    if arrays.tokenizer != cascade.tokenizer.fingerprint:
        raise DataError(
            f"{data.path} has the tokenizer {arrays.tokenizer}, the models {cascade.tokenizer.fingerprint}; "
            "preprocess the text with the models' tokenizer"
        )
    stages = [
        (stage.model, Objective(stage.process, stage.schedule, t_min), dataset)
        for stage, dataset in zip(cascade.stages, datasets, strict=True)
    ]
    bounds = stage_bounds(
        stages,
        num_windows=num_windows,
        num_times=num_times,
        batch_size=batch_size,
        seed=seed,
        on_progress=on_progress,
    )
    return JointBound(tuple(bounds), datasets[-1].target_length, 1 if cascade.is_flat else len(cascade.trained_lengths))


def _datasets(config: TrainConfig) -> tuple[StageArrays, StageDataset, StageDataset | None]:
    """The windows to train on, and those to measure the bound on if there are any."""
    arrays, dataset = stage_dataset(config.data.path, config)
    return arrays, dataset, _valid_dataset(config, arrays)


def _place(model: ScoreModel, strategy: str, group: Group, device: torch.device) -> Parallel:
    """Brings the network to the device, whole or split, and says how its processes share the work."""
    if group.size == 1:
        model.to(device)
        return Single()
    match strategy:
        case "fsdp":
            # Not at the top: what it needs of torch takes seconds to import.
            from cascaded_dllm.train.sharded import FullySharded

            return FullySharded(model, group, device)
        case _:
            model.to(device)
            return Replicated(model, group)


def _valid_dataset(config: TrainConfig, arrays: StageArrays) -> StageDataset | None:
    """The windows of `data.valid`, if there are any; they must be of the same kind as those of the training data.

    Raises:
        DataError: they have another tokenizer, method or tagger.
    """
    if config.data.valid is None:
        return None
    valid_arrays, valid = stage_dataset(config.data.valid, config)
    for what, theirs, ours in (
        ("tokenizer", valid_arrays.tokenizer, arrays.tokenizer),
        ("method", valid_arrays.method, arrays.method),
        # Nothing else of the scorer: the table of tf-idf is counted on each split by itself.
        ("tagger", valid_arrays.scorer.get("tagger"), arrays.scorer.get("tagger")),
    ):
        if theirs != ours:
            raise DataError(
                f"{config.data.valid} has the {what} {theirs} and {config.data.path} {ours}; preprocess both alike"
            )
    return valid


def _arrays(path: str, spec: CascadeSpec, data: DataSettings) -> StageArrays:
    # `build` rejects a packing that does not exist.
    out = None if data.stages_dir is None else Path(data.stages_dir)
    workers = min(usable_cores(), _MAX_WORKERS)
    return StageArrays.build(Path(path), spec, packing=data.packing, out=out, workers=workers)


def _schedule(config: TrainConfig) -> Schedule:
    noise = config.noise
    unread = {"loglinear": ("sigma_min", "sigma_max"), "geometric": ("eps",)}.get(noise.type, ())
    return schedule_from_settings({key: value for key, value in asdict(noise).items() if key not in unread})


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


def _model_config(config: TrainConfig, vocab_size: int) -> ScoreModelConfig:
    settings = asdict(config.model)
    settings.pop("name")
    return ScoreModelConfig(vocab_size=vocab_size, process=config.graph.type, **settings)  # type: ignore[arg-type]


def _new_stage(config: TrainConfig, vocab_size: int, dataset: StageDataset) -> StageSampler:
    """A stage with random weights that depend on the seed and its number, in the memory of the host.

    The global generator is left alone.
    """
    model_config = _model_config(config, vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.training.seed, "init", config.stage))
        model = ScoreModel(model_config)
    model.compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
    return StageSampler(
        model,
        process_from_name(model_config.process, vocab_size),
        _schedule(config),
        dataset.target_length,
        prefix_length=dataset.prefix_length,
    )


def _plain(settings: dict[str, object]) -> dict[str, object]:
    """`settings` with lists in place of tuples, as YAML and JSON hold them."""
    return dict(json.loads(json.dumps(settings)))


def _course(config: TrainConfig, arrays: StageArrays) -> dict[str, object]:
    """All settings that decide the course of training, by key.

    Where and how often results go decides nothing; where the data lies neither, but what it holds; nor in how many
    processes and parts a batch is computed. The number of steps is judged by the trainer.
    """
    settings = config.to_dict()
    for free in ("run_dir", "device", "ngpus", "sampling", "data"):
        settings.pop(free)
    for free in _FREE_IN_TRAINING:
        settings["training"].pop(free)
    settings["data"] = {"packing": arrays.packing, "path (fingerprint of its windows)": arrays.fingerprint}
    return dict(leaves(_plain(settings)))


def _bound_measurer(
    config: TrainConfig, trainer: Trainer, valid: StageDataset | None
) -> Callable[[Progress | None], BoundEstimate] | None:
    """Estimates the bound of validation windows; None if there are none."""
    if valid is None:
        return None
    return lambda on_progress: dataset_bound(
        trainer.model,
        trainer.objective,
        valid,
        num_windows=config.training.eval_windows,
        num_times=config.training.eval_times,
        batch_size=trainer.loop.batch_size // trainer.loop.accum,
        seed=trainer.loop.seed,
        on_progress=on_progress,
        group=trainer.group,
    )


def _snapshot_sampler(
    config: TrainConfig, stage: StageSampler, dataset: StageDataset, tokenizer: Tokenizer
) -> Callable[[], list[str]] | None:
    """Draws the texts of a snapshot, on true prefixes for a later stage; None if none are wanted."""
    number = config.sampling.num_samples
    predictor = predictor_from_name(config.sampling.predictor)
    if number == 0:
        return None

    def sample() -> list[str]:
        device = stage.model.vocab_embed.embedding.device
        index = torch.arange(min(number, len(dataset)), device=device)
        prefix, _ = dataset.batch(index.cpu().numpy())
        *_, last = stage.states(
            None if prefix is None else torch.from_numpy(prefix).to(device),
            predictor=predictor,
            num_steps=config.sampling.num_steps,
            draws=Draws(config.training.seed, "snapshot"),
            sample_index=index,
        )
        return [tokenizer.decode(ids) for ids in last.xt.tolist()]

    return sample
