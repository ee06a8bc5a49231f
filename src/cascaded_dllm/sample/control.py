"""What a person says that a text should hold: keywords, an outline, pinned text, or the texts of a stage themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Pin:
    """Text that stands at a place of a stage, whatever is written around it.

    Attributes:
        stage: 1..K.
        position: of its first token; `start` is 0, and `end` puts its last token last.
        text: as it is, a leading space included; or the ids of its tokens, which a text that was drawn may not have
            in common with one that is typed.
    """

    stage: int
    position: int | Literal["start", "end"]
    text: str | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenStage:
    """Texts of a stage that are taken as they are; the stages after it are written.

    A text of stage 1 may have fewer tokens than the stage writes: its words are kept in order, and the rest is written
    around them.

    Attributes:
        stage: 1..K - 1.
        ids: for every text, those of this stage and, where they are known, of all stages before it.
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
        """Texts as `CascadeSamples.texts` shows them, edited or not; of the stages before nothing is known.

        Args:
            stage: 1..K - 1.
            texts: one for every text that is written, or fewer, which are then taken in turns.
            tokenizer: of the cascade.
        """
        return cls(stage=stage, ids=tuple((shown_ids(text, tokenizer),) for text in texts))

    @property
    def first_stage(self) -> int:
        """The first stage that is known."""
        return self.stage + 1 - len(self.ids[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """All that is asked of the texts; nothing by default. Keywords exclude an outline and given texts.

    Attributes:
        keywords: words that stage 1 contains, in this order; the rest is written around them.
        outline: a text whose words, in order, are contained in the first stage that has room for it; the stages before
            are its most important tokens, chosen as in preprocessing. Beside a given text it is for the stage after
            that, which must be a whole one.
        pins: text at fixed places.
        given: texts of a stage.
        require_coverage: whether every stage contains all tokens of the stage before, in order; a stage with an outline
            of its own contains that instead.
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
            raise ConfigError(f"{' and '.join(asked)} are given together; a text begins with one of them, choose")
