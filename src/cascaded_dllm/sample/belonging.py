"""Whether checkpoints make a cascade: the same lengths, windows of the same kind, the same tokenizer, in order."""

from collections.abc import Sequence
from dataclasses import replace

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.pretrained import PretrainedStage
from cascaded_dllm.text.tokenizer import Tokenizer


def with_lengths(stage: PretrainedStage, lengths: Sequence[int] | None) -> PretrainedStage:
    """The stage with the lengths that its checkpoint says, or else with the given ones.

    Raises:
        CheckpointError: neither are there.
        ConfigError: the given ones are not those of the checkpoint, or no lengths at all.
    """
    known = stage.settings.stage_lengths
    if lengths is None and not known:
        raise CheckpointError(
            f"{stage.folder} does not say how long its texts are, as models of SEDD do not; give their length with "
            "--lengths, 1024 for the models on the hub"
        )
    if lengths is None:
        return stage
    given = CascadeSpec(tuple(lengths)).stage_lengths
    if known and known != given:
        raise ConfigError(
            f"the lengths are {list(given)}, and {stage.folder} was trained for {list(known)}; leave --lengths out"
        )
    return replace(stage, settings=replace(stage.settings, stage_lengths=given))


def shared_packing(loaded: Sequence[PretrainedStage]) -> str:
    """How documents were cut for all stages that say it; empty if none does.

    Raises:
        CheckpointError: they were trained on windows of different kinds.
    """
    found = {stage.settings.packing: stage.folder for stage in loaded if stage.settings.packing}
    if len(found) > 1:
        listed = ", ".join(f"{folder} on windows of packing {packing!r}" for packing, folder in found.items())
        raise CheckpointError(f"the stages were trained on texts of different kinds: {listed}; train them alike")
    return next(iter(found), "")


def require_same_choice(loaded: Sequence[PretrainedStage]) -> None:
    """Checks that the texts of all stages were chosen alike: by one method, with repeated tokens or without.

    Raises:
        CheckpointError: they differ.
    """
    methods = {stage.settings.method: stage.folder for stage in loaded if stage.settings.method}
    if len(methods) > 1:
        listed = ", ".join(f"{folder} by the method {method}" for method, folder in methods.items())
        raise CheckpointError(f"the stages were trained on texts of different choices: {listed}; train them alike")
    found = {stage.settings.unique: stage.folder for stage in loaded}
    if len(found) > 1:
        raise CheckpointError(
            f"{found[True]} was trained on texts that hold a token once (data.unique=true), and {found[False]} on such "
            "that repeat them (data.unique=false); train them alike"
        )


def written_lengths(loaded: Sequence[PretrainedStage]) -> tuple[int, ...]:
    """The lengths that the stages write, once they are found to belong together.

    Raises:
        CheckpointError: they are in the wrong order, or of different cascades.
    """
    lengths = loaded[0].settings.stage_lengths
    if len(loaded) == 1 and loaded[0].settings.stage == 0:
        return lengths[-1:]  # a flat model
    for number, stage in enumerate(loaded, start=1):
        settings = stage.settings
        if settings.stage != number or settings.stage_lengths != lengths or number > len(lengths):
            raise CheckpointError(
                f"{stage.folder} is stage {settings.stage} of lengths {list(settings.stage_lengths)}, and stage "
                f"{number} of lengths {list(lengths)} was expected; give the stages of one cascade in order"
            )
    return lengths[: len(loaded)]


def require_same_tokenizer(stage: PretrainedStage, tokenizer: Tokenizer) -> None:
    """Checks that a stage was trained on the ids of `tokenizer`.

    Raises:
        CheckpointError: it was not, as far as can be told.
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
