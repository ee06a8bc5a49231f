"""The one place where a configuration becomes objects."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import DataSettings, TrainConfig
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import Schedule, schedule_from_settings, schedule_settings
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.evaluate.likelihood import JointBound, stage_bounds
from cascaded_dllm.model.pretrained import StageSettings
from cascaded_dllm.model.score_model import ScoreModel, ScoreModelConfig
from cascaded_dllm.processes import usable_cores
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.run import Run, RunPeriods
from cascaded_dllm.train.trainer import Trainer

TOKENIZER_FILE = "tokenizer.json"
# Of the processes that build stages: the one that writes what they give keeps up with about so many.
_MAX_WORKERS = 8


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


def assemble_run(config: TrainConfig) -> Run:
    """A training run, ready to go.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        DataError: the data is missing, broken, or validation data has another tokenizer, method or tagger.
    """
    device = choose_device(config.device)
    schedule = _schedule(config)
    arrays, dataset = stage_dataset(config.data.path, config)
    valid = None
    if config.data.valid is not None:
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
    model_config = _model_config(config, arrays.vocab_size)
    process = process_from_name(model_config.process, arrays.vocab_size)
    model = _new_model(model_config, config).to(device)
    objective = Objective(process, schedule, config.training.t_min)
    trainer = Trainer(
        model,
        objective,
        dataset,
        optim=OptimConfig(**asdict(config.optim)),
        batch_size=config.training.batch_size,
        accum=config.training.accum,
        num_steps=config.training.num_steps,
        ema_decay=config.training.ema,
        seed=config.training.seed,
        fingerprint=_course(config, arrays),
    )
    tokenizer_file = Path(config.data.path) / TOKENIZER_FILE
    stage = StageSampler(model, process, schedule, dataset.target_length, prefix_length=dataset.prefix_length)
    return Run(
        folder=Path(config.run_dir),
        trainer=trainer,
        config=_plain(config.to_dict()),
        settings=StageSettings(
            model=model_config,
            noise=schedule_settings(schedule),
            stage=0 if config.baseline else config.stage,
            stage_lengths=config.stage_lengths,
            tokenizer=arrays.tokenizer,
        ),
        tokenizer_file=tokenizer_file,
        periods=RunPeriods(
            log_every=config.training.log_every,
            eval_every=config.training.eval_every,
            snapshot_every=config.training.snapshot_every,
            keep=config.training.keep,
        ),
        valid=valid,
        eval_windows=config.training.eval_windows,
        eval_times=config.training.eval_times,
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
        DataError: the data has another tokenizer than the cascade.
    """
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
    return JointBound(tuple(bounds), datasets[-1].target_length)


def _arrays(path: str, spec: CascadeSpec, data: DataSettings) -> StageArrays:
    # `build` rejects a packing that does not exist.
    out = None if data.stages_dir is None else Path(data.stages_dir)
    workers = min(usable_cores(), _MAX_WORKERS)
    return StageArrays.build(Path(path), spec, packing=data.packing, out=out, workers=workers)


def _schedule(config: TrainConfig) -> Schedule:
    noise = config.noise
    unread = {"loglinear": ("sigma_min", "sigma_max"), "geometric": ("eps",)}.get(noise.type, ())
    return schedule_from_settings({key: value for key, value in asdict(noise).items() if key not in unread})


def _model_config(config: TrainConfig, vocab_size: int) -> ScoreModelConfig:
    settings = asdict(config.model)
    settings.pop("name")
    return ScoreModelConfig(vocab_size=vocab_size, process=config.graph.type, **settings)  # type: ignore[arg-type]


def _new_model(model_config: ScoreModelConfig, config: TrainConfig) -> ScoreModel:
    """A network with random weights that depend on the seed and the stage; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.training.seed, "init", config.stage))
        model = ScoreModel(model_config)
    model.compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
    return model


def _plain(settings: dict[str, object]) -> dict[str, object]:
    """`settings` with lists in place of tuples, as YAML and JSON hold them."""
    return dict(json.loads(json.dumps(settings)))


def _course(config: TrainConfig, arrays: StageArrays) -> str:
    """Fingerprint of all settings that decide the course of training; where and how often results go are none."""
    settings = config.to_dict()
    for free in ("run_dir", "device", "sampling"):
        settings.pop(free)
    for free in ("log_every", "eval_every", "eval_windows", "eval_times", "snapshot_every", "keep"):
        settings["training"].pop(free)
    settings["data"] = arrays.fingerprint
    return fingerprint(_plain(settings))


def _snapshot_sampler(
    config: TrainConfig, stage: StageSampler, dataset: StageDataset, tokenizer: Tokenizer
) -> Callable[[], list[str]] | None:
    """Draws the texts of a snapshot, on true prefixes for a later stage; None if none are wanted.

    Raises:
        ConfigError: the predictor is unknown or does not fit, or there are no steps; not only at the first snapshot.
    """
    number = config.sampling.num_samples
    predictor = predictor_from_name(config.sampling.predictor)
    stage.require_usable(predictor, config.sampling.num_steps)
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
