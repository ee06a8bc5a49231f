"""The settings of a sampling run, stored in its folder: all that is needed to resume it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cascaded_dllm.errors import CheckpointError, ConfigError, DataError
from cascaded_dllm.sample.bundle import BUILT_IN
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.regenerate import weights_fingerprint

SETTINGS_FILE = "settings.json"
FORMAT = "cascaded-dllm-samples/1"
"""Written into the settings of every sampling run."""

BY_NETWORK = "network"
"""Value of `SampleSettings.ranking`: by the network's own law, before temperature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """Everything that decides the texts of a run, stored with each of them.

    Attributes:
        drawing: how they are drawn.
        stage_paths: where each stage came from, as an absolute path or a hub id; for a bundle, the bundle each time.
        stage_lengths: tokens that every stage writes.
        weights_fingerprints: fingerprint of the weights of every stage, which reveals later training.
        tokenizer_fingerprint: fingerprint of the tokenizer of all stages.
        lengths: the lengths that were given for checkpoints that do not say theirs; None otherwise.
        tokenizer: where the tokenizer came from, if it was named; None if it was found with the stages.
        weights: ema or raw.
        dtype: dtype of the matrix products of the trunk.
        compile: whether the blocks went through torch.compile, which rounds differently; older runs do not store it.
        cascade: the bundle that all stages came from, as an absolute path or a hub id; None if they came one by one.
        ranking: `BY_NETWORK` if the network's own law orders positions for `confidence` and `entropy` at a temperature
            other than 1. None where it makes no difference, and in older runs, which ordered them by the law at the
            temperature.
    """

    drawing: Drawing
    stage_paths: tuple[str, ...]
    stage_lengths: tuple[int, ...]
    weights_fingerprints: tuple[str, ...]
    tokenizer_fingerprint: str
    lengths: tuple[int, ...] | None = None
    tokenizer: str | None = None
    weights: str = "ema"
    dtype: str = "float32"
    compile: bool = False
    cascade: str | None = None
    ranking: str | None = None

    @classmethod
    def of(
        cls,
        cascade: Cascade,
        drawing: Drawing,
        stage_paths: Sequence[str | Path],
        *,
        lengths: Sequence[int] | None = None,
        tokenizer: str | None = None,
        dtype: str = "float32",
        compile: bool = False,
        cascade_source: str | None = None,
    ) -> "SampleSettings":
        """The settings of texts that `cascade` draws.

        Args:
            cascade: the cascade.
            drawing: how the texts are drawn.
            stage_paths: where its stages were loaded from; ignored with `cascade_source`.
            cascade_source: the bundle that it was loaded from, if any. The other arguments are those of its loading.
        """
        bundle = None if cascade_source is None else absolute_source(cascade_source)
        return cls(
            drawing=drawing,
            stage_paths=(
                tuple(absolute_source(path) for path in stage_paths)
                if bundle is None
                else (bundle,) * len(cascade.stages)
            ),
            stage_lengths=cascade.stage_lengths,
            weights_fingerprints=tuple(weights_fingerprint([stage.model]) for stage in cascade.stages),
            tokenizer_fingerprint=cascade.tokenizer.fingerprint,
            lengths=None if lengths is None else tuple(lengths),
            tokenizer=None if tokenizer is None else absolute_source(tokenizer),
            weights=cascade.weights,
            dtype=dtype,
            compile=compile,
            cascade=bundle,
            ranking=_ranking(drawing),
        )

    @property
    def first_stage(self) -> int:
        """Number of the first stage whose texts the run has: more than 1 if it continues given texts of a later one."""
        given = self.drawing.control.given
        return 1 if given is None else given.first_stage

    def described(self) -> dict[str, Any]:
        """All settings on one level, as in samples.jsonl and summary.json."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "drawing"}
        return {**self.drawing.described(), **rest}

    def require_same_ranking(self) -> None:
        """Checks that the missing texts would be drawn with the same ranking of positions as the finished ones.

        Raises:
            ConfigError: they would not, since the run was begun by a version that ranked positions differently.
        """
        if self.ranking != _ranking(self.drawing):
            raise ConfigError(
                f"the run was begun by a version in which {', '.join(self.drawing.predictor)} ranked positions by the "
                f"law at temperature {self.drawing.law.temperature:g}; now the network's own law ranks them, and a run "
                "has texts of one kind: sample into a new folder, without --resume"
            )

    def require_same_cascade(self, cascade: Cascade) -> None:
        """Checks that `cascade` is the one that drew the finished texts.

        Raises:
            CheckpointError: it has other weights, or another tokenizer.
        """
        if cascade.tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise CheckpointError(
                f"the texts so far were written with the tokenizer {self.tokenizer_fingerprint}, and the stages now "
                f"have {cascade.tokenizer.fingerprint}; restore the former one, or sample into a new folder"
            )
        now = [weights_fingerprint([stage.model]) for stage in cascade.stages]
        for number, (path, before, after) in enumerate(
            zip(self.stage_paths, self.weights_fingerprints, now, strict=True), start=1
        ):
            if before != after:
                raise CheckpointError(
                    f"the texts so far were drawn with the weights {before} of stage {number}, and those in {path} are "
                    f"now {after}: it was trained on, or replaced; restore the former ones, or sample into a new "
                    "folder from a checkpoint that stays, such as checkpoints/step_<n>"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The content of settings.json in a run folder.

    Attributes:
        num_samples: number of texts that the run will have.
        batch_size: texts drawn together when the run began; no text depends on it.
        device: the device as the user named it, such as `auto`.
        judge: the judge that reads the texts when all are there; None for none.
        texts: the settings that decide the texts.
    """

    num_samples: int
    batch_size: int
    device: str
    judge: str | None
    texts: SampleSettings

    def to_json(self) -> str:
        """The text of settings.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "RunSettings":
        """The settings of the run in `folder`.

        Raises:
            ConfigError: `folder` has no settings.json.
            DataError: settings.json is damaged, or of another version.
        """
        path = folder / SETTINGS_FILE
        if not path.is_file():
            fault = f"it has no {SETTINGS_FILE}" if folder.exists() else "it does not exist"
            raise ConfigError(
                f"{folder} is not the folder of a sampling run: {fault}; give one that `cdllm "
                "sample` has begun, <output_dir>/sample_cascade_..._len_<L>_<time>"
            )
        try:
            content = _with_tuples(json.loads(path.read_text(encoding="utf-8")))
            if content.pop("format") != FORMAT:
                raise KeyError("format")
            texts = dict(content["texts"])
            texts["drawing"] = Drawing.from_dict(texts["drawing"])
            return cls(**content | {"texts": SampleSettings(**texts)})
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is damaged, or was written by another version ({error}); sample into a new folder"
            ) from error


def absolute_source(source: str | Path) -> str:
    """An existing path as an absolute one; a hub id, or the name of a built-in bundle, unchanged."""
    path = Path(source)
    return str(path.resolve()) if path.exists() and source not in BUILT_IN else str(source)


def _ranking(drawing: Drawing) -> str | None:
    """`SampleSettings.ranking` for texts that this version draws."""
    is_ranked = not {"confidence", "entropy"}.isdisjoint(drawing.predictor)
    return BY_NETWORK if is_ranked and drawing.law.temperature != 1 else None


def _with_tuples(value: Any) -> Any:
    """A JSON value with its lists turned into tuples, which settings hold."""
    match value:
        case dict():
            return {key: _with_tuples(inner) for key, inner in value.items()}
        case list():
            return tuple(_with_tuples(inner) for inner in value)
        case _:
            return value
