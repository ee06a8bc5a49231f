"""The groups of keys of a training run, such as `data` and `optim`: names and types, as in `configs/`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """The preprocessed folders, how documents become windows, and where the windows go; see `StageArrays.build`.

    Attributes:
        root: where `cdllm preprocess` puts its folders, <root>/<method>/<corpus>_<split>.
        dataloader: method of preprocessing, which names the folders of a corpus; data given by path must have it.
        train: corpus to train on; data given by path must be of this corpus.
        path: folder to train on, which takes precedence over the names.
        valid: folder for the bound, or the name of a corpus: a value without a slash is a name.
        packing: how documents become windows.
        unique: whether a shortened stage keeps a token id only once; drops windows with too few different ones.
        stages_dir: where the windows and stages are stored.
    """

    root: str
    dataloader: str | None
    train: str | None
    path: str | None
    valid: str | None
    packing: str
    unique: bool
    stages_dir: str | None

    @classmethod
    def of_folder(
        cls, path: str | Path, *, packing: str, stages_dir: str | Path | None, unique: bool = True
    ) -> "DataSettings":
        """The settings for one folder of any corpus and method, without validation data."""
        return cls(
            root="",
            dataloader=None,
            train=None,
            path=str(path),
            valid=None,
            packing=packing,
            unique=unique,
            stages_dir=None if stages_dir is None else str(stages_dir),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedSettings:
    """Weights that a run starts from instead of random ones; see `model.warm_start`."""

    use_pretrained: bool
    model_path: str
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Size and form of the network; see `ScoreModelConfig`. For `copy_head` None, see `TrainConfig.has_copy_head`."""

    name: str
    hidden_size: int
    num_heads: int
    num_blocks: int
    cond_dim: int
    dropout: float
    scale_by_sigma: bool
    parameterization: str
    time_conditioning: bool
    prefix_attention: str
    absolute_positions: bool
    copy_head: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSettings:
    """The layout network of a placed stage, which is as wide as the fill network; see `LayoutConfig`."""

    num_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSettings:
    """The forward process."""

    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSettings:
    """The schedule: loglinear reads `eps`, geometric the two sigmas."""

    type: str
    eps: float
    sigma_min: float
    sigma_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixNoiseSettings:
    """Conditioning augmentation; see `PrefixSettings`."""

    prob: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPrefixSettings:
    """Prefixes that contain the errors of earlier stages; see `PrefixRegenerator`."""

    prob: float
    stage_paths: tuple[str, ...]
    level: float
    predictor: str
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Batch sizes, lengths and periods of a run, and the treatment of its prefixes."""

    batch_size: int
    accum: int
    num_steps: int
    ema: float
    t_min: float
    seed: int
    log_every: int
    eval_every: int
    eval_windows: int | None
    eval_times: int
    snapshot_every: int
    keep: int
    keep_every: int | None
    strategy: str
    halves: str
    fills: bool
    compile: bool
    deterministic: bool
    peak_flops: float | None
    prefix_noise: PrefixNoiseSettings
    prefix_dropout: float
    generated_prefix: GeneratedPrefixSettings


FREE_IN_TRAINING = (
    *("log_every", "eval_every", "eval_windows", "eval_times", "snapshot_every", "keep", "keep_every", "peak_flops"),
    *("accum", "strategy", "compile", "deterministic"),
)
"""Keys of `TrainingSettings` that do not change the weights of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSettings:
    """AdamW; see `OptimConfig`."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    warmup: int
    decay: str
    grad_clip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """Samples drawn at every snapshot."""

    predictor: str
    num_steps: int
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The judge of a snapshot's samples, whose figures join their overlap; see `Judge`."""

    judge: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Where the lines of metrics.jsonl are also shown; see `train.run_log`."""

    wandb: str
    project: str
    name: str | None
    tensorboard: bool
