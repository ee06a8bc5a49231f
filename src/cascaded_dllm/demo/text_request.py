"""What the page asks for, and the drawing of it."""

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
"""Most steps of a time grid, so that a mistyped number neither takes a day nor fills the server's memory."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Tokens that stay at their place in the first stage that is written.

    Attributes:
        position: place of the first token.
        ids: ids of all tokens.
    """

    position: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """The edited text of a stage.

    Attributes:
        stage: number of the stage.
        ids: ids of the text, if it is taken as it is and the stages after it are written; None if the stage is written
            around its words.
        num_tokens: number of tokens of the text, or of its words.
    """

    stage: int
    ids: tuple[int, ...] | None
    num_tokens: int

    @classmethod
    def read(cls, text: str, stage: int, cascade: Cascade) -> "Edit":
        """The edit that the text of a stage stands for.

        A text of a later stage is taken as it is if it fills its stage and others follow, a text of stage 1 whenever
        others follow.

        Raises:
            ConfigError: there is no such stage.
        """
        lengths = cascade.stage_lengths
        if not 1 <= stage <= len(lengths):
            raise ConfigError(f"stage is {stage}; it must be from 1 to {len(lengths)}")
        ids = shown_ids(text, cascade.tokenizer)
        # Sampling itself writes the rest of a short text of stage 1, around its tokens.
        if stage < len(lengths) and (stage == 1 or len(ids) == lengths[stage - 1]):
            return cls(stage, ids, len(ids))
        return cls(stage, None, sum(map(len, words_of(_without_ends(text), cascade.tokenizer))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """A request for one text, whose stages are known up to some stage, and written from the next one on.

    The settings from `seed` on are options of `Cascade.generate`; `predictor`, `steps` and `tokens_per_call` are for
    all stages.

    Attributes:
        keywords: words of stage 1; only if no stage is known and no text is given.
        known: ids of the first stages, which stay as they are.
        text: the edited text of the stage after them; None if that stage was not edited.
        locked: tokens of that stage that stay.
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
    def parse(cls, values: Mapping[str, Any]) -> "TextRequest":
        """The request in a JSON object.

        Raises:
            ConfigError: a key is unknown, a value has the wrong type, or there are too many steps.
        """
        request = parse_settings(cls, values)
        if request.steps is not None and request.steps > MOST_STEPS:
            raise ConfigError(
                f"steps is {request.steps}; the page allows at most {MOST_STEPS}; use cdllm sample for more"
            )
        return request

    def drawing(self, cascade: Cascade) -> Drawing:
        """The drawing of the text.

        Raises:
            ConfigError: the request contradicts itself, or a number is out of range.
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
    """`text` without ends of text, which are not words."""
    return text.replace(END_OF_TEXT, " ")
