"""The groups of keys of a training run, `data` and `optim` for example: names and types, as in `configs/`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Preprocessed folders, how documents become windows, and where these lie; see `StageArrays.build`.

    Attributes:
        root: where `cdllm preprocess` puts its folders, <root>/<method>/<corpus>_<split>.
        dataloader: method of the folders that are given by the name of their corpus; otherwise what the data must be.
        train: corpus to train on, if `path` is not given; otherwise what the data must be.
        path: folder to train on; it wins over what the names say.
        valid: folder for the bound, or the name of a corpus: what has no slash is a name.
        packing: how documents become windows.
        unique: whether a shortened stage keeps a token id once, which drops windows with too few different ones.
        stages_dir: where windows and stages lie.
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
        """Those of one folder, without validation data and whatever it holds."""
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
    """Weights that a run starts from in place of random ones; see `model.warm_start`."""

    use_pretrained: bool
    model_path: str
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Size and reading of the network; see `ScoreModelConfig`. `copy_head` None: see `TrainConfig.has_copy_head`."""

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
    """The layout network of a placed stage, which has the width of the other one; see `LayoutConfig`."""

    num_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSettings:
    """The forward process."""

    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSettings:
    """The schedule; `eps` is read for loglinear, the two sigmas for geometric."""

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
    """Prefixes with the errors of earlier stages in them; see `PrefixRegenerator`."""

    prob: float
    stage_paths: tuple[str, ...]
    level: float
    predictor: str
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Batches, lengths and periods of a run, and what is done to its prefixes."""

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
"""Keys of `TrainingSettings` that change nothing about the weights of a run."""


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
    """What judges the samples of a snapshot besides their overlap; see `Judge`."""

    judge: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Where the lines of metrics.jsonl are shown besides; see `train.run_log`."""

    wandb: str
    project: str
    name: str | None
    tensorboard: bool
