"""A stage in training, small enough for milliseconds a step: windows in memory, a network of width 16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, schedule_settings
from cascaded_dllm.evaluate.likelihood import dataset_bound
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import new_model
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.train.checkpoint import Keeping
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.prefixes import PrefixTraining
from cascaded_dllm.train.run import Run, RunPeriods
from cascaded_dllm.train.snapshot import SampledText, SampleGroup, SnapshotReport
from cascaded_dllm.train.trainer import Trainer
from cascaded_dllm.train.valid_windows import ValidWindows

VOCAB_SIZE, LENGTHS, NUM_WINDOWS = 11, (3, 7), 20


def _stage_arrays() -> StageArrays:
    """Random windows of 7 tokens; their first 3 are the shorter version."""
    ids = np.random.default_rng(5).integers(0, VOCAB_SIZE, (NUM_WINDOWS, LENGTHS[-1]), dtype=np.int32)
    return StageArrays(
        spec=CascadeSpec(LENGTHS),
        packing="document",
        method="constituency",
        eos_id=VOCAB_SIZE - 1,
        vocab_size=VOCAB_SIZE,
        tokenizer="0123456789abcdef",
        fingerprint="in memory",
        dropped={},
        stages=tuple(ids[:, :length] for length in LENGTHS),
        positions=(np.tile(np.arange(LENGTHS[0], dtype=np.int32), (NUM_WINDOWS, 1)),),
    )


def _stage_dataset(stage: int, *, is_placed: bool = False) -> StageDataset:
    """One stage of the random windows; stage 0 is a flat model."""
    arrays = _stage_arrays()
    return StageDataset.flat(arrays) if stage == 0 else StageDataset(arrays, stage, is_placed=is_placed)


def _model(seed: int = 3, *, spread: float = 0.3, is_placed: bool = False, **settings: Any) -> ScoreModel:
    """A network whose output depends on everything: the layers that start at zero are given random weights too."""
    sizes = {"hidden_size": 16, "num_heads": 2, "num_blocks": 1, "cond_dim": 8}
    new = {"num_tokens": LENGTHS[0], "num_new": LENGTHS[1] - LENGTHS[0]}
    layout = LayoutConfig(vocab_size=VOCAB_SIZE, **new, **sizes) if is_placed else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(ScoreModelConfig(vocab_size=VOCAB_SIZE, **(sizes | settings)), layout)
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=spread)
    return model


def _report(step: int, go_on: Callable[[], None] = lambda: None) -> SnapshotReport:
    """Two texts of stage 2, on a true prefix."""
    samples = tuple(
        SampledText(stages={1: "a", 2: text}, truth="the truth", multiset_overlap=(0.5,), ordered_coverage=(0.25,))
        for text in ("a text", "another")
    )
    group = SampleGroup(samples=samples, figures={"multiset_overlap_mean_stage1_in_stage2": 0.5})
    return SnapshotReport(step=step, groups={"conditional": group})


@pytest.fixture(scope="session")
def make_dataset() -> Callable[[int], StageDataset]:
    return _stage_dataset


@pytest.fixture(scope="session")
def make_model() -> Callable[..., ScoreModel]:
    return _model


@pytest.fixture(scope="session")
def make_objective() -> Callable[..., Objective]:
    def make(process: str = "absorbing", noise: str = "loglinear", t_min: float = 1e-3, **prefix: Any) -> Objective:
        """`prefix` are settings of what is done to prefixes, and `generate`."""
        schedule = LogLinearSchedule() if noise == "loglinear" else GeometricSchedule()
        forward, generate = process_from_name(process, VOCAB_SIZE), prefix.pop("generate", None)
        prefixes = PrefixTraining(forward, PrefixSettings(**prefix), generate)
        return Objective(forward, schedule, t_min, prefixes)

    return make


@pytest.fixture(scope="session")
def make_trainer(make_objective: Callable[..., Objective]) -> Callable[..., Trainer]:
    """Of stage 2 unless told otherwise; `model` holds settings of the network, `loop` are those of `LoopConfig`."""

    def make(
        *,
        stage: int = 2,
        model: dict[str, Any] | None = None,
        optim: OptimConfig | None = None,
        course: dict[str, Any] | None = None,
        prefix: dict[str, Any] | None = None,
        **loop: Any,
    ) -> Trainer:
        network = _model(**(model or {}))
        settings = {"batch_size": 8, "accum": 1, "num_steps": 6, "ema_decay": 0.9, "seed": 1}
        return Trainer(
            network,
            make_objective(network.config.process, **(prefix or {})),
            _stage_dataset(stage),
            optim=optim or OptimConfig(lr=1e-2, warmup=2),
            loop=LoopConfig(**(settings | loop)),
            course=course or {"some.key": "the same"},
        )

    return make


@pytest.fixture
def make_run(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Callable[..., Run]:
    """A run in `tmp_path`/run that logs every step, measures every second one and keeps a checkpoint of each."""

    def make(
        *,
        trainer: Trainer | None = None,
        name: str = "run",
        keep: int = 3,
        keep_every: int | None = None,
        eval_windows: int = 6,
        **changes: Any,
    ) -> Run:
        trainer = trainer or make_trainer()
        tokenizer_file = tmp_path / "tokenizer.json"
        tokenizer_file.write_text("{}")
        periods = {"log_every": 1, "eval_every": 2, "snapshot_every": 1}
        others = {key: changes.pop(key) for key in set(changes) - set(periods)}
        settings: dict[str, Any] = {
            "folder": tmp_path / name,
            "config": {"some": "settings"},
            "settings": StageSettings(
                model=trainer.model.config,
                noise=schedule_settings(trainer.objective.schedule),
                stage=2,
                stage_lengths=LENGTHS,
                tokenizer="0123456789abcdef",
            ),
            "measure": lambda on_progress: dataset_bound(
                trainer.model,
                trainer.objective,
                trainer.dataset,
                num_windows=eval_windows,
                num_times=2,
                batch_size=4,
                seed=1,
                on_progress=on_progress,
            ),
            "sample": _report,
            "valid": ValidWindows(num_windows=NUM_WINDOWS, num_dropped=2, omitted_nats_per_token=0.5),
        }
        return Run(
            trainer=trainer,
            tokenizer_file=tokenizer_file,
            periods=RunPeriods(**(periods | changes), keeping=Keeping(newest=keep, every=keep_every)),
            **(settings | others),
        )

    return make
