"""Whether the stages of a cascade can draw what they are asked for, checked before anything is drawn."""

from collections.abc import Sequence

import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import host_by_default, require_precise_default
from cascaded_dllm.sample.batch import start_texts
from cascaded_dllm.sample.conditioning import require_guidable, require_noisable
from cascaded_dllm.sample.constraints import Constraints, StageConstraints, constraints
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.layout_rules import LayoutRules
from cascaded_dllm.sample.outline import english_importance
from cascaded_dllm.sample.sampler import StageSampler, require_usable
from cascaded_dllm.text.tokenizer import Tokenizer


@host_by_default()
def require_drawable(
    stages: Sequence[StageSampler], drawing: Drawing, tokenizer: Tokenizer, *, unique: bool
) -> Constraints:
    """The constraints of every stage; also checks that the stages can draw what `drawing` asks for.

    Args:
        stages: all stages of the cascade.
        drawing: how texts are to be drawn.
        tokenizer: the tokenizer of all stages.
        unique: whether the shortened stages hold a token id only once.

    Raises:
        ConfigError: a setting is out of range or does not fit the stages.
    """
    require_precise_default()
    places = sorted({str(stage.model.device) for stage in stages})
    if len(places) > 1 or "meta" in places:
        raise ConfigError(
            f"the stages are on {' and '.join(places)}; all must be on one device that holds numbers: move them with "
            "Cascade.to, or load the cascade again"
        )
    drawing.require_sound()
    for stage, plan in zip(stages, drawing.plans(len(stages)), strict=True):
        require_usable(plan.predictor, stage.process, plan.num_steps or 1)
    if drawing.gaps_per_call is not None and not any(stage.is_placed for stage in stages):
        raise ConfigError(
            f"gaps_per_call is {drawing.gaps_per_call}, but only placed stages have gaps, and there is none; leave "
            "it out"
        )
    lengths = [stage.length for stage in stages]
    asked = constraints(drawing.control, tokenizer, lengths, english_importance(tokenizer), unique=unique)
    written = [number for number, found in enumerate(asked.stages, start=asked.first_stage) if not found.given]
    _require_conditioning(stages, written, drawing)
    for number in written:
        of_stage = asked.stages[number - asked.first_stage]
        stage, is_first = stages[number - 1], number == asked.first_stage
        if stage.is_placed:
            before = () if is_first else asked.stages[number - 1 - asked.first_stage].given
            _require_words_before(number, of_stage, before, tokenizer)
            _require_layout(number, stage, of_stage, before)
        else:
            _require_text(stage, of_stage, drawing, covers=asked.require_coverage and not is_first)
    return asked


def _require_conditioning(stages: Sequence[StageSampler], written: Sequence[int], drawing: Drawing) -> None:
    """Checks that every stage that is written from a prefix can be guided and can read noised prefixes, if asked to.

    Args:
        stages: all stages of the cascade.
        written: numbers of the stages that are written, of which one is not stage 1 if there are several stages.
        drawing: how texts are to be drawn.

    Raises:
        ConfigError: a stage was not trained for it or has no prefix, or a value is out of range.
    """
    for number in [number for number in written if number > 1] or [1]:
        stage = stages[number - 1]
        # A placed stage holds the text of the stage before, and reads no prefix.
        prefix_length = 0 if number == 1 or stage.is_placed else stages[number - 2].length
        require_guidable(drawing.guidance, stage.trained_with, prefix_length, stage=f"stage {number}")
        require_noisable(drawing.prefix_noise, stage.trained_with, prefix_length, stage=f"stage {number}")


def _require_text(stage: StageSampler, asked: StageConstraints, drawing: Drawing, *, covers: bool) -> None:
    """Checks that the process of a stage can keep words and pinned text, and that the stage has room for them.

    Raises:
        ConfigError: it cannot, or there is no room.
    """
    stage.require_possible(drawing.law, is_required=bool(asked.words or asked.pinned) or covers)
    if asked.words and isinstance(stage.process, AbsorbingProcess):
        xt = start_texts(stage, asked, len(asked.words), stage.model.device)
        stage.require_room(asked.words, xt, stage.process)


def _require_words_before(
    number: int, asked: StageConstraints, given: Sequence[tuple[int, ...]], tokenizer: Tokenizer
) -> None:
    """Checks that the words required of a placed stage contain the text before, as the stage itself does.

    Raises:
        ConfigError: they do not.
    """
    for i, before in enumerate(given if asked.words else ()):
        rest = iter([token for word in asked.words[i % len(asked.words)] for token in word])
        if (lost := next((token for token in before if token not in rest), None)) is not None:
            raise ConfigError(
                f"stage {number} holds stage {number - 1}, and what is asked of it lacks {tokenizer.decode([lost])!r} "
                f"in its place; keep {tokenizer.decode(before)!r} in this order, or change stage {number - 1}"
            )


def _require_layout(
    number: int, stage: StageSampler, asked: StageConstraints, given: Sequence[tuple[int, ...]]
) -> None:
    """Checks that a placed stage has room for the text before beside pinned text and words, as far as it is known.

    Raises:
        ConfigError: there is no room, or more tokens are pinned than the stage writes anew.
    """
    num_new = stage.length - (stage.prefix_length or 0)
    if len(asked.pinned) > num_new:
        raise ConfigError(
            f"{len(asked.pinned)} tokens are pinned in stage {number}, a placed one, which writes {num_new} beside the "
            "text of the stage before; pin fewer, or pin them in an earlier stage"
        )
    if given and (asked.words or asked.pinned):
        words = [asked.words[i % len(asked.words)] for i in range(len(given))] if asked.words else None
        LayoutRules.build(torch.tensor(given), num_new + 1, pinned=asked.pinned, words=words).require_possible()
