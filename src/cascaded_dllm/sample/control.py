"""What a user can ask of the texts: keywords, an outline, pinned text, or given texts of a stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Pin:
    """Text at a fixed place of a stage.

    Attributes:
        stage: 1..K.
        position: place of its first token, counted from 0; `start` is 0, and `end` puts its last token last.
        text: taken as it is, a leading space included; or the ids of its tokens, since a text that was drawn may be
            cut into other tokens than the same text typed.
    """

    stage: int
    position: int | Literal["start", "end"]
    text: str | tuple[int, ...]


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
        is_nested = isinstance(self.ids, tuple) and all(
            isinstance(text, tuple) and text and all(isinstance(ids, tuple) for ids in text) for text in self.ids
        )
        if not is_nested:
            raise ConfigError(
                f"the ids of stage {self.stage} are a {type(self.ids).__name__}; they must be a tuple of texts, each a "
                "tuple of stages, each a tuple of ids: make them with GivenStage.of_texts or CascadeSamples.given"
            )

    @classmethod
    def of_texts(cls, stage: int, texts: Sequence[str], tokenizer: Tokenizer) -> "GivenStage":
        """Given texts in the form of `CascadeSamples.texts`, edited or not; the stages before are unknown.

        Args:
            stage: 1..K - 1.
            texts: one for every text that is written, or fewer, which are then taken in turn.
            tokenizer: the tokenizer of the cascade.

        Raises:
            ConfigError: `texts` is a single text.
        """
        require_list("texts", texts, "texts, [' storm harbour keeper']")
        return cls(stage=stage, ids=tuple((shown_ids(text, tokenizer),) for text in texts))

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
            outline is for the stage after it.
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


def require_list(name: str, value: object, of_what: str) -> None:
    """Checks that a list is not a single text, which would be taken for the list of its letters.

    Raises:
        ConfigError: it is one.
    """
    if isinstance(value, str):
        raise ConfigError(f"{name} is the text {value!r}; give a list of {of_what}")
