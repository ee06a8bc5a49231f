"""The constraints of every stage, made from what the user asks of the texts.

All of it is turned into constraints of single stages before anything is drawn. So mistakes are found before the first
call, and a stage does not know where its constraints come from.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

from cascaded_dllm.cascade.select import select_stages
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.required import Word
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer

Importance = Callable[[str], tuple[Sequence[int], Sequence[float], str]]
"""Maps a text to its token ids, the importance of each, and the method, which decides the selection rule."""


@dataclass(frozen=True, slots=True)
class StageConstraints:
    """The constraints of one stage. Of several entries, text i has the one of number i modulo their number.

    Attributes:
        given: whole texts of a stage that is not written; empty if the stage is written.
        words: for each text, the words that it contains in order; empty if none are required.
        pinned: ids by position, the same for all texts.
    """

    given: tuple[tuple[int, ...], ...] = ()
    words: tuple[tuple[Word, ...], ...] = ()
    pinned: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constraints:
    """The constraints of all stages.

    Attributes:
        stages: constraints of the stages from `first_stage` on.
        first_stage: number of the first stage that is given or written.
        require_coverage: see `Control`.
    """

    stages: tuple[StageConstraints, ...]
    first_stage: int
    require_coverage: bool


def constraints(
    control: Control,
    tokenizer: Tokenizer,
    stage_lengths: Sequence[int],
    importance: Importance,
    *,
    unique: bool = True,
) -> Constraints:
    """The constraints that `control` puts on every stage.

    Args:
        control: what the user asked for.
        tokenizer: the tokenizer of the stages.
        stage_lengths: tokens that every stage writes.
        importance: gives the importance of the tokens of an outline.
        unique: whether shortened stages hold a token id only once, as in their training.

    Raises:
        ConfigError: there is no such stage, or something has too many tokens, or none.
    """
    num_stages, first_stage = len(stage_lengths), 1
    words: dict[int, tuple[tuple[Word, ...], ...]] = {}
    given: dict[int, tuple[tuple[int, ...], ...]] = {}
    if control.keywords:
        words[1] = (_keywords(control.keywords, tokenizer, stage_lengths[0]),)
    if control.outline is not None and control.given is None:
        entry, required, given = _outline(control.outline, tokenizer, stage_lengths, importance, unique=unique)
        words[entry] = (required,)
    if control.given is not None:
        _require_given(control.given, stage_lengths, tokenizer.vocab_size)
        first_stage = control.given.first_stage
        by_stage = zip(*control.given.ids, strict=True)
        given = {stage: tuple(texts) for stage, texts in enumerate(by_stage, start=first_stage)}
        if control.given.stage == 1 and any(len(ids) < stage_lengths[0] for ids in given[1]):
            words[1] = tuple(_glued(ids, tokenizer) for ids in given.pop(1))
        if control.outline is not None:
            words[control.given.stage + 1] = (_outline_after(control.given, control.outline, tokenizer, stage_lengths),)
    pinned = _pinned(control.pins, tokenizer, stage_lengths, {*range(1, first_stage), *given})
    return Constraints(
        tuple(
            StageConstraints(given.get(stage, ()), words.get(stage, ()), pinned.get(stage, {}))
            for stage in range(first_stage, num_stages + 1)
        ),
        first_stage,
        control.require_coverage,
    )


def words_of(text: str, tokenizer: Tokenizer) -> tuple[Word, ...]:
    """The tokens of every word of `text`, each word with the space before it that it would have inside a text."""
    return tuple(tuple(tokenizer.encode(f" {piece}").ids) for piece in text.split())


def coverage_words(ids: Sequence[int], words: Sequence[Word]) -> tuple[Word, ...]:
    """The words that the next stage must contain to cover `ids`: every token alone, required words in one piece.

    Args:
        ids: text of a stage.
        words: words that this text was required to contain, in order.
    """
    found: list[Word] = []
    rest, left = list(words), tuple(ids)
    while left:
        if rest and left[: len(rest[0])] == rest[0]:
            found.append(rest.pop(0))
        else:
            found.append(left[:1])
        left = left[len(found[-1]) :]
    return tuple(found)


def _keywords(keywords: Sequence[str], tokenizer: Tokenizer, length: int) -> tuple[Word, ...]:
    found: list[Word] = []
    for number, keyword in enumerate(keywords, start=1):
        if not keyword.strip():
            raise ConfigError(f"keyword {number} of {len(keywords)} is empty; leave it out")
        # The words of one keyword stay together.
        found.append(tuple(token for word in words_of(keyword, tokenizer) for token in word))
    num_tokens = sum(map(len, found))
    if num_tokens > length:
        # A word that the tokenizer has not learnt has several tokens, of which the user cannot know.
        most, longest = max((len(tokens), keyword) for tokens, keyword in zip(found, keywords, strict=True))
        raise ConfigError(
            f"the keywords have {num_tokens} tokens and stage 1 writes {length}; leave some out, or give them as an "
            f"outline, which enters at a later stage; most tokens, {most}, has {longest!r}"
        )
    return tuple(found)


def _outline(
    text: str, tokenizer: Tokenizer, stage_lengths: Sequence[int], importance: Importance, *, unique: bool
) -> tuple[int, tuple[Word, ...], dict[int, tuple[tuple[int, ...], ...]]]:
    """The stage at which an outline enters, the words required there, and the texts of the stages before it."""
    words = _outline_words(text, tokenizer)
    num_tokens = sum(map(len, words))
    entry = next((k for k, length in enumerate(stage_lengths, start=1) if length >= num_tokens), None)
    if entry is None:
        raise ConfigError(
            f"the outline has {num_tokens} tokens and the last stage writes {stage_lengths[-1]}; shorten it"
        )
    if entry == 1:
        return 1, words, {}
    # Spaced as its words are, so that the tokens of the earlier stages are found among those of the words.
    spaced = "".join(f" {piece}" for piece in text.split())
    ids, values, method = importance(spaced)
    earlier = list(stage_lengths[: entry - 1])
    lengths = [*earlier, len(ids)] if earlier[-1] < len(ids) else earlier
    stages = select_stages(ids, values, lengths, method=method, unique=unique)
    if stages is None:
        raise ConfigError(
            f"the outline has {len(set(ids))} different tokens, and stage {entry - 1} needs {earlier[-1]} of them that "
            f"its selection rule keeps; give it more words, or at most {stage_lengths[0]} tokens"
        )
    return entry, words, {stage: (tuple(stages[stage - 1]),) for stage in range(1, entry)}


def _outline_words(text: str, tokenizer: Tokenizer) -> tuple[Word, ...]:
    words = words_of(text, tokenizer)
    if not words:
        raise ConfigError("the outline is empty; give at least one word, or none at all")
    return words


def _outline_after(
    given: GivenStage, outline: str, tokenizer: Tokenizer, stage_lengths: Sequence[int]
) -> tuple[Word, ...]:
    """The words required in the stage after the one that is given."""
    words = _outline_words(outline, tokenizer)
    num_tokens, length, entry = sum(map(len, words)), stage_lengths[given.stage], given.stage + 1
    if num_tokens > length:
        raise ConfigError(f"the outline has {num_tokens} tokens and stage {entry} writes {length}; shorten it")
    before = given.ids[0][-1]
    if len(set(given.ids)) > 1 or len(before) < stage_lengths[given.stage - 1]:
        raise ConfigError(
            f"an outline of stage {entry} is given beside {len(given.ids)} texts of stage {given.stage}, the first of "
            f"{len(before)} tokens; give one text, with all of its {stage_lengths[given.stage - 1]} tokens"
        )
    return words


def _require_given(given: GivenStage, stage_lengths: Sequence[int], vocab_size: int) -> None:
    num_stages = len(stage_lengths)
    if num_stages == 1:
        raise ConfigError(
            f"from_stage is {given.stage}, and there is only one stage, after which none is written; pin the text"
        )
    if not 1 <= given.stage < num_stages:
        raise ConfigError(
            f"from_stage is {given.stage}; it must be from 1 to {num_stages - 1}, a stage with another one after it"
        )
    if not given.ids:
        raise ConfigError("there is no text to continue from; give a file that holds at least one")
    known = {len(stages) for stages in given.ids}
    if len(known) > 1 or not 1 <= max(known) <= given.stage:
        raise ConfigError(
            f"texts of stage {given.stage} are given with {' or '.join(map(str, sorted(known)))} stages each; give for "
            f"all of them that stage, or it and those before it, {given.stage} at most"
        )
    lengths = stage_lengths[given.first_stage - 1 : given.stage]
    for number, stages in enumerate(given.ids):
        for stage, (ids, length) in enumerate(zip(stages, lengths, strict=True), start=given.first_stage):
            if strange := [token for token in ids if not 0 <= token < vocab_size]:
                raise ConfigError(
                    f"text {number} of stage {stage} holds the id {strange[0]}, and the tokenizer has those from 0 to "
                    f"{vocab_size - 1}; give texts of this tokenizer"
                )
            if len(ids) > length or (len(ids) < length and given.stage > 1) or not ids:
                fewer = " or fewer, but at least one" if given.stage == 1 else ""
                raise ConfigError(
                    f"text {number} of stage {stage} has {len(ids)} tokens and must have {length}{fewer}; change it, "
                    "or give its words as an outline, around which the rest is written; a text of a run that is given "
                    "as a file of text is cut into tokens anew, which may be more or fewer, and the folder of the run "
                    "keeps them"
                )


def _glued(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[Word, ...]:
    """The words of a text: a token without a leading space belongs to the one before; an end of text stands alone."""
    found: list[Word] = []
    for before, token in zip((tokenizer.eos_id, *ids), ids, strict=False):
        if tokenizer.eos_id not in (before, token) and not tokenizer.decode([token])[:1].isspace():
            found[-1] = (*found[-1], token)
        else:
            found.append((token,))
    return tuple(found)


def _pinned(
    pins: Sequence[Pin], tokenizer: Tokenizer, stage_lengths: Sequence[int], not_written: Container[int]
) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = {}
    for pin in pins:
        if not 1 <= pin.stage <= len(stage_lengths):
            raise ConfigError(f"text is pinned in stage {pin.stage}; the stages are 1 to {len(stage_lengths)}")
        ids, length = _pinned_ids(pin, tokenizer), stage_lengths[pin.stage - 1]
        shown = tokenizer.decode(ids)
        if pin.stage in not_written:
            raise ConfigError(
                f"{shown!r} is pinned in stage {pin.stage}, which is not written: its text or a later one is given; "
                "pin it in a later stage"
            )
        if not ids:
            raise ConfigError(f"the text that is pinned at {pin.position} of stage {pin.stage} is empty; leave it out")
        match pin.position:
            case "start":
                first = 0
            case "end":
                first = length - len(ids)
            case _:
                first = pin.position
        if len(ids) > length:
            raise ConfigError(
                f"{shown!r} has {len(ids)} tokens and is pinned in stage {pin.stage}, which writes {length}; "
                "shorten it, or pin it in a later stage"
            )
        if not 0 <= first <= length - len(ids):
            raise ConfigError(
                f"{shown!r} has {len(ids)} tokens and is pinned at {pin.position} of stage {pin.stage}, which "
                f"writes {length}; its first token must be at 0 to {length - len(ids)}, start or end"
            )
        places = found.setdefault(pin.stage, {})
        for place, token in enumerate(ids, start=first):
            if places.get(place, token) != token:
                raise ConfigError(f"two texts are pinned at position {place} of stage {pin.stage}; move one of them")
            places[place] = token
    return found


def _pinned_ids(pin: Pin, tokenizer: Tokenizer) -> Sequence[int]:
    if isinstance(pin.text, str):
        return shown_ids(pin.text, tokenizer)
    if strange := [token for token in pin.text if not 0 <= token < tokenizer.vocab_size]:
        raise ConfigError(
            f"the id {strange[0]} is pinned in stage {pin.stage}, and the tokenizer has those from 0 to "
            f"{tokenizer.vocab_size - 1}; give ids of this tokenizer"
        )
    return pin.text
