"""What the page asks for, and how it is drawn."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.constraints import words_of
from cascaded_dllm.sample.control import GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing, drawing_of_options, options_among
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT
from cascaded_dllm.typed_settings import parse_settings

MOST_STEPS = 10_000
"""Of the grid of a stage: who types a zero too many must not wait for a day, nor the server run out of memory."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Tokens that stay where they stand, in the first stage that is written.

    Attributes:
        position: of the first one.
        ids: of all of them.
    """

    position: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person has made of a stage.

    Attributes:
        stage: its number.
        ids: of the text, if it is taken as it is and the stages after it are written; None if the stage is written
            around its words.
        num_tokens: of the text, or of its words.
    """

    stage: int
    ids: tuple[int, ...] | None
    num_tokens: int

    @classmethod
    def read(cls, text: str, stage: int, cascade: Cascade) -> "Edit":
        """What becomes of a text: it is taken as it is where it fills its stage and others follow.

        Raises:
            ConfigError: there is no such stage.
        """
        lengths = cascade.stage_lengths
        if not 1 <= stage <= len(lengths):
            raise ConfigError(f"stage is {stage}; it must be from 1 to {len(lengths)}")
        ids = shown_ids(text, cascade.tokenizer)
        # The rest of a first stage is written around its tokens, wherever they are from.
        if stage < len(lengths) and (stage == 1 or len(ids) == lengths[stage - 1]):
            return cls(stage, ids, len(ids))
        return cls(stage, None, sum(map(len, words_of(_without_ends(text), cascade.tokenizer))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One text that is asked for. Its stages are known up to some stage, and written from the next one on.

    Attributes:
        keywords: words of stage 1; only where no stage is known and no text is given.
        known: ids of the stages from the first one on that stay as they are.
        text: what a person made of the stage after them; None if it is written.
        locked: tokens of that stage that stay.
        seed: of the draws.
        predictor: of all stages.
        steps: of its grid, if it has one.
        tokens_per_call: that leave MASK together, if it has none.
        temperature: of the law of a token.
        top_k: tokens that a draw chooses from.
        top_p: probability that they have together.
        guidance: weight of guidance by the prefix.
        require_coverage: whether every stage holds the one before.
    """

    keywords: tuple[str, ...] = ()
    known: tuple[tuple[int, ...], ...] = ()
    text: str | None = None
    locked: tuple[Lock, ...] = ()
    seed: int = 0
    predictor: str = "first_hitting"
    steps: int | None = None
    tokens_per_call: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    guidance: float = 0.0
    require_coverage: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Asking":
        """What is asked for, from its JSON.

        Raises:
            ConfigError: a key is unknown, a value has the wrong type, or there are too many steps.
        """
        asked = parse_settings(cls, values)
        if asked.steps is not None and asked.steps > MOST_STEPS:
            raise ConfigError(f"steps is {asked.steps}; on the page it may be up to {MOST_STEPS}, take cdllm sample")
        return asked

    def drawing(self, cascade: Cascade) -> Drawing:
        """How the text is drawn.

        Raises:
            ConfigError: what is asked contradicts itself, or is out of range.
        """
        stage = len(self.known) + 1
        options = options_among(asdict(self))
        options["pinned"] = [Pin(stage, lock.position, lock.ids) for lock in self.locked]
        known = self.known
        if self.text is not None:
            edit = Edit.read(self.text, stage, cascade)
            if edit.ids is None:
                options["outline"] = _without_ends(self.text)
            else:
                known = (*known, edit.ids)
        if known:
            options["given"] = GivenStage(stage=len(known), ids=(known,))
        return drawing_of_options(options)


def _without_ends(text: str) -> str:
    """An end of text is no word."""
    return text.replace(END_OF_TEXT, " ")
