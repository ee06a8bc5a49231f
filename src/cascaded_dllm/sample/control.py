"""What a user can ask of the texts: keywords, an outline, pinned text, or given texts of a stage."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cascaded_dllm.checks import require_whole
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT


def several(what: str, values: Any, kind: str) -> tuple[Any, ...]:
    """`values`, which are several in an order, as a tuple, since a generator can be read only once.

    Raises:
        ConfigError: they are a single text, have no order, or are no list at all.
    """
    if isinstance(values, str | bytes | set | frozenset) or not isinstance(values, Iterable):
        raise ConfigError(f"{what} is {values!r}; give a list of {kind}")
    return tuple(values)


@dataclass(frozen=True, slots=True)
class Pin:
    """Text at a fixed place of a stage.

    Attributes:
        stage: 1..K.
        position: place of its first token, counted from 0; `start` is 0, and `end` puts its last token last.
        text: taken as it is, a leading space included, but "<|endoftext|>" is the end of text; or the ids of its
            tokens, since a text that was drawn may be cut into other tokens than the same text typed.
    """

    stage: int
    position: int | Literal["start", "end"]
    text: str | tuple[int, ...]

    def __post_init__(self) -> None:
        # Integers of NumPy and PyTorch become those of Python: two tensors of equal numbers are different keys.
        require_whole("the stage of a pin", self.stage)
        object.__setattr__(self, "stage", operator.index(self.stage))
        position: Any = self.position
        if position not in ("start", "end"):
            require_whole("the position of a pin", position, hint="start or end")
            object.__setattr__(self, "position", operator.index(position))
        if not isinstance(self.text, str):
            ids = several("the text of a pin", self.text, "ids")
            for token in ids:
                require_whole("an id of a pin", token)
            object.__setattr__(self, "text", tuple(map(operator.index, ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenStage:
    """Texts of a stage that are taken as they are; the stages after it are written.

    A text of stage 1 may have fewer tokens than the stage writes: it keeps its words in order, and the rest is written
    around them.

    Attributes:
        stage: 1..K - 1.
        ids: for every text, the ids of this stage, after those of the stages just before it that are known.
    """

    stage: int
    ids: tuple[tuple[tuple[int, ...], ...], ...]

    def __post_init__(self) -> None:
        require_whole("the stage of given texts", self.stage)
        object.__setattr__(self, "stage", operator.index(self.stage))
        is_nested = isinstance(self.ids, tuple) and all(
            isinstance(text, tuple) and text and all(isinstance(ids, tuple) for ids in text) for text in self.ids
        )
        if not is_nested:
            raise ConfigError(
                f"the ids of stage {self.stage} are a {type(self.ids).__name__}; they must be a tuple of texts, each a "
                "tuple of stages, each a tuple of ids: make them with GivenStage.of_texts or CascadeSamples.given"
            )
        for token in {token for text in self.ids for ids in text for token in ids}:
            require_whole(f"an id of stage {self.stage}", token)

    @classmethod
    def of_texts(cls, stage: int, texts: Sequence[str], tokenizer: Tokenizer) -> "GivenStage":
        """Given texts in the form of `CascadeSamples.texts`, edited or not; the stages before are unknown.

        Args:
            stage: 1..K - 1.
            texts: one for every text that is written, or fewer, which are then taken in turn.
            tokenizer: the tokenizer of the cascade.

        Raises:
            ConfigError: `texts` is a single text, or holds something else.
        """
        of_texts = [_as_text("a given text", text) for text in several("texts", texts, "texts")]
        return cls(stage=stage, ids=tuple((shown_ids(text, tokenizer),) for text in of_texts))

    @property
    def first_stage(self) -> int:
        """The first stage that is known."""
        return self.stage + 1 - len(self.ids[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """All that a user asks of the texts; nothing by default. Keywords exclude an outline and given texts.

    Attributes:
        keywords: words that stage 1 contains, in this order; the rest is written around them.
        outline: a text whose words the first stage with room for them contains in order; the stages before are its
            most important tokens, chosen as in preprocessing. Beside a given text, which must fill its stage, the
            outline is for the stage after it. Ends of text in it, as in `CascadeSamples.texts`, become spaces.
        pins: text at fixed places.
        given: texts of a stage to continue from.
        require_coverage: whether every stage contains all tokens of the stage before, in order; a stage with an outline
            of its own contains the outline instead.
    """

    keywords: tuple[str, ...] = ()
    outline: str | None = None
    pins: tuple[Pin, ...] = ()
    given: GivenStage | None = None
    require_coverage: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", several("keywords", self.keywords, "words"))
        object.__setattr__(self, "pins", several("pinned", self.pins, "Pin(stage, position, text)"))
        for number, keyword in enumerate(self.keywords, start=1):
            _as_text(f"keyword {number}", keyword)
        for pin in self.pins:
            if not isinstance(pin, Pin):
                raise ConfigError(f"pinned holds {pin!r}; give a list of Pin(stage, position, text)")
        if self.outline is not None:
            # They fill the windows of samples, and are not words.
            outline = _as_text("the outline", self.outline).replace(END_OF_TEXT, " ")
            object.__setattr__(self, "outline", outline)
        if not isinstance(self.given, GivenStage | None):
            raise ConfigError(
                f"given is a {type(self.given).__name__}; it must be a GivenStage, of CascadeSamples.given or "
                "GivenStage.of_texts"
            )
        if self.require_coverage not in (True, False):
            raise ConfigError(f"require_coverage is {self.require_coverage!r}; it must be True or False")
        asked = [
            name
            for name, is_asked in (
                ("keywords", bool(self.keywords)),
                ("outline", self.outline is not None),
                ("from_stage", self.given is not None),
            )
            if is_asked
        ]
        if len(asked) > 1 and asked != ["outline", "from_stage"]:
            raise ConfigError(
                f"{' and '.join(asked)} are given together, and a text begins with only one of them; choose one"
            )


def _as_text(what: str, text: Any) -> str:
    """`text`; a ConfigError if it is none."""
    if not isinstance(text, str):
        raise ConfigError(f"{what} is {text!r}; it must be a text")
    return text
