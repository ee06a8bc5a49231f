"""The typed configuration of a training run: every key is known, has one type and is read.

Defaults live in `configs/`, so that the files show every value; the classes only name the keys and check that they fit
together. The groups of keys are in `config_groups`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cascaded_dllm.checks import one_of, require_at_least, require_between_0_and_1
from cascaded_dllm.config_groups import (
    DataSettings,
    EvaluationSettings,
    GraphSettings,
    LayoutSettings,
    LoggingSettings,
    ModelSettings,
    NoiseSettings,
    OptimSettings,
    PretrainedSettings,
    SamplingSettings,
    TrainingSettings,
)
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.typed_settings import parse_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. `assemble_run` fills in the values that may be None, and stores the result."""

    run_dir: str | None
    device: str
    ngpus: int | None
    dtype: str
    stage: int
    baseline: bool
    stage_lengths: tuple[int, ...]
    conditioning: str
    earlier_stages: tuple[str, ...]
    stage1_root_dir: str | None
    stage2_root_dir: str | None
    data: DataSettings
    model: ModelSettings
    layout: LayoutSettings
    graph: GraphSettings
    noise: NoiseSettings
    pretrained: PretrainedSettings
    logging: LoggingSettings
    training: TrainingSettings
    optim: OptimSettings
    sampling: SamplingSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        for name in ("log_every", "eval_every", "snapshot_every", "keep", "eval_windows", "eval_times", "peak_flops"):
            if (value := getattr(self.training, name)) is not None:
                require_at_least(f"training.{name}", value, 1)
        require_at_least("training.generated_prefix.num_steps", self.training.generated_prefix.num_steps, 1)
        require_at_least("layout.num_blocks", self.layout.num_blocks, 1)
        require_between_0_and_1("training.t_min", self.training.t_min, hint="0.001 is usual")
        require_at_least("sampling.num_samples", self.sampling.num_samples, 0)
        if self.ngpus is not None:
            require_at_least("ngpus", self.ngpus, 1, hint="or null for the processes that are there")
        one_of("logging.wandb", self.logging.wandb, ("disabled", "offline", "online"))
        one_of("pretrained.weights", self.pretrained.weights, ("ema", "raw"))
        one_of("training.halves", self.training.halves, ("both", "layout", "fill"))
        one_of("training.strategy", self.training.strategy, ("ddp", "fsdp"))
        one_of("dtype", self.dtype, ("float32", "bfloat16"))
        one_of("conditioning", self.conditioning, ("prefix", "placed"))
        self._require_placeable()
        self._require_halves()
        self._require_filling()
        if self.graph.type == "uniform" and self.model.parameterization == "score" and self.model.scale_by_sigma:
            raise ConfigError(
                "model.scale_by_sigma is true and graph.type is uniform; the scale fits scores of the absorbing "
                "process, and a uniform one learns next to nothing with it: set model.scale_by_sigma=false"
            )
        every, period = self.training.keep_every, self.training.snapshot_every
        if every is not None and (every < 1 or every % period):
            raise ConfigError(
                f"training.keep_every is {every}; it must be null or a multiple of training.snapshot_every, {period}, "
                "since checkpoints are written at multiples of that"
            )
        self._require_fitting_earlier_stages()

    @property
    def seeded_stage(self) -> int:
        """The stage number that decides the random weights; 1 for a flat model.

        A flat model ignores `stage`, which may come from a file of stages, for example.
        """
        return 1 if self.baseline else self.stage

    @property
    def is_placed(self) -> bool:
        """Whether the stage is placed; stage 1 and a flat model never are."""
        return self.conditioning == "placed" and not self.baseline and self.stage > 1

    @property
    def has_prefix(self) -> bool:
        """Whether the network reads the stage before as a prefix."""
        return self.stage > 1 and not self.baseline and not self.is_placed

    @property
    def has_copy_head(self) -> bool:
        """Whether the network can copy from its prefix: `model.copy_head` if it is set, otherwise wherever possible.

        On WikiText-2 it takes 3.0 nats a token off a prefix cascade at equal cost; see docs/log.md.
        """
        if self.model.copy_head is not None:
            return self.model.copy_head
        return self.has_prefix and self.model.parameterization == "normalized" and self.graph.type == "absorbing"

    def _require_placeable(self) -> None:
        """Checks that the other settings allow placed stages, if `conditioning` asks for them.

        Raises:
            ConfigError: a setting has a value that placed stages do not support.
        """
        if self.conditioning == "prefix":
            return
        training = self.training
        for key, value, needed in (
            ("graph.type", self.graph.type, "absorbing"),
            ("training.prefix_noise.prob", training.prefix_noise.prob, 0.0),
            ("training.prefix_dropout", training.prefix_dropout, 0.0),
            ("training.generated_prefix.prob", training.generated_prefix.prob, 0.0),
        ):
            if value != needed:
                raise ConfigError(
                    f"conditioning is placed and {key} is {value}; a placed stage needs {needed}: set {key}={needed}, "
                    "or conditioning=prefix"
                )

    def _require_halves(self) -> None:
        """Checks that a stage of which only one half is trained has two halves and starts from trained weights.

        Raises:
            ConfigError: it is not placed, or starts from random weights.
        """
        halves = self.training.halves
        if halves == "both":
            return
        if not self.is_placed:
            raise ConfigError(
                f"training.halves is {halves}, and only a placed stage has a layout and a fill; leave it out, or train "
                "stage 2 or a later one with conditioning=placed"
            )
        if not self.pretrained.use_pretrained:
            raise ConfigError(
                f"training.halves is {halves}, and the other half would stay as random as it begins; start from a "
                "trained network with pretrained.use_pretrained=true and pretrained.model_path, or train both"
            )

    def _require_filling(self) -> None:
        """Checks that a network that is to fill in the texts of all stages is flat, absorbing, and has several lengths.

        Raises:
            ConfigError: it is not, or has not.
        """
        if not self.training.fills:
            return
        if not self.baseline:
            raise ConfigError(
                f"training.fills is true and stage {self.stage} is trained, which learns to fill in anyway if "
                "conditioning is placed; leave it out, or train one flat network for all stages with baseline=true"
            )
        if len(self.stage_lengths) < 2:
            raise ConfigError(
                f"training.fills is true and stage_lengths is {list(self.stage_lengths)}, which is the window itself; "
                "give the lengths of a cascade, or training.fills=false"
            )
        if self.graph.type != "absorbing":
            raise ConfigError(
                f"training.fills is true and graph.type is {self.graph.type}, which noises every position; set "
                "graph.type=absorbing, or training.fills=false"
            )

    @property
    def earlier_paths(self) -> tuple[str, ...]:
        """The paths of stages 1 to `stage` - 1, for snapshots of the whole cascade; empty if none are named."""
        named = (path for path in (self.stage1_root_dir, self.stage2_root_dir) if path is not None)
        return self.earlier_stages or tuple(named)

    def _require_fitting_earlier_stages(self) -> None:
        """Checks that either every earlier stage is named once, or none is named.

        Raises:
            ConfigError: too many or too few are named, or both ways of naming them are used.
        """
        if self.stage1_root_dir is None and self.stage2_root_dir is not None:
            raise ConfigError(
                f"stage2_root_dir is {self.stage2_root_dir} and stage1_root_dir is not given; name stage 1 as well"
            )
        if self.earlier_stages and (self.stage1_root_dir, self.stage2_root_dir) != (None, None):
            raise ConfigError(
                f"earlier_stages is {list(self.earlier_stages)}, and stage1_root_dir or stage2_root_dir names earlier "
                "stages as well; leave one of them out"
            )
        num_earlier = 0 if self.baseline else self.stage - 1
        if self.earlier_paths and len(self.earlier_paths) != num_earlier:
            what = "a flat model" if self.baseline else f"stage {self.stage}"
            raise ConfigError(
                f"{len(self.earlier_paths)} earlier stages are named ({', '.join(self.earlier_paths)}) and {what} has "
                f"{num_earlier}; name all of them, first stage first (earlier_stages, or stage1_root_dir and "
                "stage2_root_dir), or none"
            )

    def run_name(self, corpus: str) -> str:
        """The name of the run: "wikitext2-small-stage1" or "...-flat"; `use_pretrained` adds "-finetuning".

        Args:
            corpus: name of the corpus that the run trains on.
        """
        part = "flat" if self.baseline else f"stage{self.stage}"
        return f"{corpus}-{self.model.name}-{part}" + ("-finetuning" if self.pretrained.use_pretrained else "")

    def to_dict(self) -> dict[str, Any]:
        """The nested mapping that `parse_config` turns back into this."""
        return dataclasses.asdict(self)


def parse_config(settings: Mapping[str, Any]) -> TrainConfig:
    """A run's configuration from a nested mapping.

    Raises:
        ConfigError: a key is unknown (its nearest neighbour is named) or missing, or a value has the wrong type.
    """
    return parse_settings(TrainConfig, settings)


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is not a group, as "training.seed", with its value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
