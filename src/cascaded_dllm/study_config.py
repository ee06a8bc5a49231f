"""The settings of a study file as typed objects; see docs/study.md."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cascaded_dllm.checks import one_of, require_at_least, require_between_0_and_1
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.overrides import require_free
from cascaded_dllm.typed_settings import parse_settings

KINDS = ("flat", "prefix", "placed", "from_flat")
"""Kinds of arms."""
SPLITS = ("windows", "equal")
"""How a budget is divided among the runs of an arm."""

PER_WORD = "random_per_word"
"""The name in a study for the method random with one number for every word instead of every occurrence of a word."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DECIDED = (
    *("run_dir", "load_dir", "stage", "baseline", "stage_lengths", "conditioning", "earlier_stages", "pretrained"),
    *("stage1_root_dir", "stage2_root_dir", "data.root", "data.dataloader", "data.train", "data.path", "data.valid"),
    *("training.num_steps", "training.seed", "training.halves", "training.eval_every", "training.snapshot_every"),
    *("training.generated_prefix.stage_paths", "ngpus"),
)
"""Keys, and groups of keys, of a training run that a study sets itself."""
_COMPLAINT = (
    "has the override {key}, which a study sets itself, from lengths, budget, seeds, corpus and the kind of the arm; "
    "leave it out"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """Existing preprocessed data of one method.

    Attributes:
        method: of preprocessing, `PER_WORD`, or FILE.py:FUNCTION.
        train: folder to train on.
        valid: folder to measure on.
    """

    method: str
    train: str
    valid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """The text of a study: a corpus that it preprocesses with every method of its arms, or existing folders.

    Attributes:
        dataset: corpus to train on, as `cdllm preprocess --dataset` takes it; None if `folders` are given.
        valid_dataset: corpus to measure on; None for `dataset`.
        train_split: split to train on.
        valid_split: split to measure on.
        num_documents: how many records of each split are read, from its start; None for all.
        tokenizer: file, folder or hub id; not needed for the built-in stories.
        train_tokenizer: vocabulary size of a tokenizer that is trained on the corpus instead.
        tagger: of the method constituency; by default, the built-in stories use their own.
        model: of the KeyBERT methods.
        random_seed: of the method random, and of `PER_WORD`.
        folders: existing data, one entry for every method.
    """

    dataset: str | None = None
    valid_dataset: str | None = None
    train_split: str = "train"
    valid_split: str = "valid"
    num_documents: int | None = None
    tokenizer: str | None = None
    train_tokenizer: int | None = None
    tagger: str | None = None
    model: str | None = None
    random_seed: int = 0
    folders: tuple[FolderSettings, ...] = ()

    def __post_init__(self) -> None:
        if (self.dataset is None) == (not self.folders):
            raise ConfigError(
                f"corpus.dataset is {self.dataset or 'null'} and corpus.folders has {len(self.folders)} entries; give "
                "one of them, a corpus to preprocess or folders that are there"
            )
        _require_distinct("corpus.folders", "method", [entry.method for entry in self.folders])


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """What the training of every arm may cost, including stage 1 even if arms share it.

    Attributes:
        token_forwards: positions that go through networks, including prefixes and gaps; or else `flops` is given.
        flops: floating-point operations, forward and backward.
        split: `windows`: all runs of an arm see the same number of windows; `equal`: all get the same share.
    """

    token_forwards: int | None = None
    flops: float | None = None
    split: str = "windows"

    def __post_init__(self) -> None:
        if (self.token_forwards is None) == (self.flops is None):
            raise ConfigError(
                f"budget.token_forwards is {self.token_forwards or 'null'} and budget.flops {self.flops or 'null'}; "
                "give one of them"
            )
        if not 0 < self.amount < math.inf:
            raise ConfigError(f"budget.{self.unit} is {self.amount:g}; it must be greater than 0, and finite")
        one_of("budget.split", self.split, SPLITS)

    @property
    def unit(self) -> str:
        """The key of the budget that is given."""
        return "flops" if self.token_forwards is None else "token_forwards"

    @property
    def amount(self) -> float:
        """The budget, in `unit`."""
        return float(self.flops or 0.0) if self.token_forwards is None else float(self.token_forwards)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSettings:
    """One of the ways of training that a study compares.

    Attributes:
        name: for folders and tables.
        kind: flat, a cascade of prefix or placed stages, or a cascade around a flat network (from_flat).
        method: of preprocessing, which decides what the shorter stages keep: its name, `PER_WORD`, or FILE.py:FUNCTION
            for the method custom with this function.
        overrides: key=value, as for `cdllm train`, for all runs of the arm.
    """

    name: str
    kind: str
    method: str = "constituency"
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"an arm is called {self.name!r}; give it a name of letters, digits, dots, dashes and underscores, "
                "which begins with a letter or a digit"
            )
        one_of(f"the kind of arm {self.name}", self.kind, KINDS)
        require_free(self.overrides, _DECIDED, f"arm {self.name} {_COMPLAINT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """How the joint bound of an arm is measured.

    Attributes:
        num_windows: how many of the windows that all arms have are measured, evenly spaced.
        num_times: times of the integral for each window.
        batch_size: windows computed together.
        t_min: lower end of the integral over time, which runs to 1.
        points: how often the bound of a run is measured during training, including the end.
    """

    num_windows: int = 512
    num_times: int = 16
    batch_size: int = 64
    t_min: float = 1e-3
    points: int = 4

    def __post_init__(self) -> None:
        for name in ("num_windows", "num_times", "batch_size", "points"):
            require_at_least(f"evaluate.{name}", getattr(self, name), 1)
        require_between_0_and_1("evaluate.t_min", self.t_min, hint="0.001 is usual")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSettings:
    """One way of drawing texts from every arm.

    `predictor`, `steps` and `tokens_per_call` have one value for all stages, or one for each; a flat arm uses the last.

    Attributes:
        name: for folders and tables.
        num_samples: number of texts.
        predictor: how steps are taken.
        steps: of the time grid of a stage, for the predictors that have one.
        tokens_per_call: tokens that leave MASK together, for the others.
        temperature: of the law of a token.
        top_p: the fewest tokens with at least this total probability are kept.
        batch_size: texts drawn together.
    """

    name: str
    num_samples: int = 256
    predictor: str | tuple[str, ...] = "first_hitting"
    steps: int | tuple[int | None, ...] | None = None
    tokens_per_call: int | tuple[int | None, ...] | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"a drawing is called {self.name!r}; give it a name like first_hitting")
        if isinstance(self.predictor, str) and "," in self.predictor:
            raise ConfigError(
                f"the predictor of the drawing {self.name} is {self.predictor!r}; for one a stage give a list, "
                f"[{self.predictor}]"
            )
        for name in ("num_samples", "batch_size"):
            require_at_least(f"{name} of the drawing {self.name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """A study: arms that are trained, measured and sampled at equal cost.

    Attributes:
        name: of the study.
        corpus: its text.
        lengths: of the stages; a flat model writes texts of the last length.
        budget: for the training of one arm.
        arms: the ways of training, each of which is compared with every other.
        seeds: of training; each gives one repetition.
        base: overrides key=value for the runs of all arms.
        evaluate: how bounds are measured.
        sampling: which texts are drawn.
        judge: causal language model that reads the texts, or None.
        figures: names of the figures that are kept; None for all.
    """

    name: str
    corpus: CorpusSettings
    lengths: tuple[int, ...]
    budget: BudgetSettings
    arms: tuple[ArmSettings, ...]
    seeds: tuple[int, ...] = (0,)
    base: tuple[str, ...] = ()
    evaluate: MeasureSettings = MeasureSettings()
    sampling: tuple[DrawingSettings, ...] = ()
    judge: str | None = None
    figures: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name is {self.name!r}; give the study a name like tiny-stories")
        for key, values in (("arms", self.arms), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(f"{key} is empty; a study needs at least 1")
        _require_distinct("arms", "name", [arm.name for arm in self.arms])
        _require_distinct("sampling", "name", [drawing.name for drawing in self.sampling])
        _require_distinct("seeds", "seed", [str(seed) for seed in self.seeds])
        require_at_least("the smallest of seeds", min(self.seeds), 0, most=math.inf)
        require_free(self.base, _DECIDED, f"base {_COMPLAINT}")
        if self.corpus.folders:
            require_known("method", [arm.method for arm in self.arms], [entry.method for entry in self.corpus.folders])

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the arms name, each once."""
        return tuple(dict.fromkeys(arm.method for arm in self.arms))

    def to_dict(self) -> dict[str, Any]:
        """The nested mapping that `parse_study` turns back into this."""
        return asdict(self)


def preprocessing_method(method: str) -> str:
    """The method of preprocessing behind a method of a study."""
    if method == PER_WORD:
        return "random"
    return "custom" if is_custom(method) else method


def is_custom(method: str) -> bool:
    """Whether a method of a study is a function of the user, FILE.py:FUNCTION."""
    return ":" in method


def parse_study(settings: Mapping[str, Any]) -> StudySettings:
    """A study from a nested mapping.

    Raises:
        ConfigError: a key is unknown (its nearest neighbour is named) or missing, or a value has the wrong type or
            contradicts another.
    """
    return parse_settings(StudySettings, settings)


def require_known(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Checks that all names are in the study.

    Args:
        what: what the names are of, for the message.
        asked: the names.
        known: all names in the study.

    Raises:
        ConfigError: one is not.
    """
    names = list(known)
    for name in asked:
        if name not in names:
            raise ConfigError(f"the {what} {name} is not in the study; it has {', '.join(names)}")


def _require_distinct(key: str, what: str, names: list[str]) -> None:
    """Checks that no name occurs twice.

    Raises:
        ConfigError: one does.
    """
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{key} has the {what} {name} {names.count(name)} times; each may be there once")
