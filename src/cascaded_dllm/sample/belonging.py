"""Whether checkpoints belong to each other and to data: lengths, order, tokenizer, and texts of one kind."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cascaded_dllm.data.manifest import Settings, choice_of, learnt_choice
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.pretrained import PretrainedStage
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.text.tokenizer import Tokenizer

_IN_WORDS = {
    "tokenizer": "the tokenizer {}",
    "vocab_size": "a vocabulary of {} tokens",
    "packing": "windows of packing {!r}",
    "unique": "shortened stages of data.unique={}",
    "method": "texts that the method {} chose",
    "choice": "a choice by {}",
}


class Contradiction(NamedTuple):
    """A field in which two kinds of texts differ.

    Attributes:
        name: field of `TextKind`.
        said: its value in the first one, in words.
        found: its value in the second one, in words.
    """

    name: Literal["tokenizer", "vocab_size", "packing", "unique", "method", "choice"]
    said: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextKind:
    """The texts that a model was trained on, as far as its checkpoint says, or those that preprocessed data gives.

    Attributes:
        tokenizer: fingerprint; empty if unknown.
        vocab_size: number of tokens without MASK.
        packing: how documents are cut into windows; empty if unknown.
        unique: whether shortened stages keep a token id only once; None if that is unknown or does not matter.
        method: method of importance that chose the stages; empty if that is unknown or does not matter.
        choice: what else decides which words are kept, see `learnt_choice`; empty if that is unknown or does not
            matter.
    """

    tokenizer: str
    vocab_size: int
    packing: str
    unique: bool | None
    method: str
    choice: str = ""

    @classmethod
    def of_checkpoint(cls, settings: StageSettings) -> "TextKind":
        """The texts that a stage was trained on; how stages are chosen does not matter to a flat model."""
        is_flat = settings.stage == 0
        return cls(
            tokenizer=settings.tokenizer,
            vocab_size=settings.model.vocab_size,
            packing=settings.packing,
            unique=None if is_flat else settings.unique,
            method="" if is_flat else settings.method,
            choice="" if is_flat else learnt_choice(settings.choice),
        )

    @classmethod
    def of_data(cls, settings: Settings, *, packing: str, unique: bool) -> "TextKind":
        """The texts of preprocessed data, cut into windows and shortened as the arguments say."""
        return cls(
            tokenizer=settings.tokenizer,
            vocab_size=settings.vocab_size,
            packing=packing,
            unique=unique,
            method=settings.method,
            choice=learnt_choice(choice_of(settings.method, settings.scorer)),
        )

    def contradiction(self, other: "TextKind") -> Contradiction | None:
        """The first field that both know and in which they differ; None if there is none."""
        for name, words in _IN_WORDS.items():
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs and not {ours, theirs} & {"", None}:
                said, found = (words.format(_as_key(value)) for value in (ours, theirs))
                return Contradiction(name, said, found)  # type: ignore[arg-type]
        return None


def _as_key(value: object) -> object:
    """A value as it is written in a configuration."""
    return str(value).lower() if isinstance(value, bool) else value


def require_before(
    earlier: Sequence[tuple[str, StageSettings]],
    *,
    stage: int,
    stage_lengths: tuple[int, ...],
    texts: TextKind,
    key: str,
) -> None:
    """Checks that checkpoints are the stages just before `stage`, in order, and were trained on the same texts.

    Args:
        earlier: where each checkpoint was found, and its settings.
        stage: number of the stage after them.
        stage_lengths: stage lengths of the cascade.
        texts: the texts of the stage after them.
        key: key of the configuration that names the checkpoints, for messages.

    Raises:
        CheckpointError: a checkpoint is of another stage or cascade, or was trained on texts of another kind.
    """
    for number, (source, found) in enumerate(earlier, start=stage - len(earlier)):
        if found.stage != number or found.stage_lengths != stage_lengths:
            raise CheckpointError(
                f"{source} is {_which(found)} of lengths {list(found.stage_lengths)}, and stage {number} of lengths "
                f"{list(stage_lengths)} was expected; give the stages just before stage {stage} in order ({key})"
            )
        if (contradiction := TextKind.of_checkpoint(found).contradiction(texts)) is not None:
            raise CheckpointError(
                f"{source} was trained with {contradiction.said}, and stage {stage} has {contradiction.found}; train "
                f"all stages alike, on the same data{_by_key(contradiction.name, found)}"
            )


def _which(settings: StageSettings) -> str:
    return "a flat model" if settings.stage == 0 else f"stage {settings.stage}"


def _by_key(name: str, settings: StageSettings) -> str:
    """The setting that would make a new stage fit an earlier one, for the end of a message; empty if there is none."""
    return f": data.{name}={_as_key(getattr(settings, name))} for this one" if name in ("packing", "unique") else ""


def with_lengths(stage: PretrainedStage, lengths: tuple[int, ...] | None) -> PretrainedStage:
    """The stage with the lengths of its checkpoint or, if that does not say them, with `lengths`.

    Raises:
        CheckpointError: neither says the lengths.
        ConfigError: `lengths` differ from those of the checkpoint.
    """
    known = stage.settings.stage_lengths
    if lengths is None and not known:
        raise CheckpointError(
            f"{stage.folder} does not say how long its texts are, as models of SEDD do not; give their length with "
            "--lengths, 1024 for the models on the hub"
        )
    if lengths is None:
        return stage
    if known and known != lengths:
        raise ConfigError(
            f"the lengths are {list(lengths)}, and {stage.folder} was trained for {list(known)}; leave --lengths out"
        )
    return replace(stage, settings=replace(stage.settings, stage_lengths=lengths))


def require_same_texts(loaded: Sequence[PretrainedStage]) -> None:
    """Checks that all stages were trained on texts of one kind, as far as their checkpoints say.

    Raises:
        CheckpointError: they were not.
    """
    kinds = [(stage.folder, TextKind.of_checkpoint(stage.settings)) for stage in loaded]
    for (one, ours), (other, theirs) in itertools.combinations(kinds, 2):
        if (contradiction := ours.contradiction(theirs)) is not None:
            raise CheckpointError(
                f"{one} was trained with {contradiction.said}, and {other} with {contradiction.found}; train all "
                "stages alike"
            )


def written_lengths(loaded: Sequence[PretrainedStage]) -> tuple[int, ...]:
    """The lengths of the texts that the stages write; also checks that the stages belong together.

    Raises:
        CheckpointError: the stages are in the wrong order, or of different cascades.
    """
    lengths = loaded[0].settings.stage_lengths
    if len(loaded) == 1 and loaded[0].settings.stage == 0:
        return lengths[-1:]  # a flat model
    for number, stage in enumerate(loaded, start=1):
        settings = stage.settings
        if settings.stage != number or settings.stage_lengths != lengths or number > len(lengths):
            raise CheckpointError(
                f"{stage.folder} is {_which(settings)} of lengths {list(settings.stage_lengths)}, and stage {number} "
                f"of lengths {list(lengths)} was expected; give the stages of one cascade in order"
            )
    return lengths[: len(loaded)]


def require_same_tokenizer(stage: PretrainedStage, tokenizer: Tokenizer) -> None:
    """Checks that a stage was trained on the ids of `tokenizer`.

    Raises:
        CheckpointError: its checkpoint names another tokenizer, or has another vocabulary size.
    """
    settings = stage.settings
    if settings.tokenizer and settings.tokenizer != tokenizer.fingerprint:
        raise CheckpointError(
            f"{stage.folder} was trained with the tokenizer {settings.tokenizer}, the cascade uses "
            f"{tokenizer.fingerprint}; name the tokenizer it was trained with (--tokenizer)"
        )
    if settings.model.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{stage.folder} has {settings.model.vocab_size} tokens and the tokenizer {tokenizer.vocab_size}; "
            "name the tokenizer it was trained with (--tokenizer)"
        )
