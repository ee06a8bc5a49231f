"""What the page asks for, and how it is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing, DrawingOptions, drawing_of_options
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.typed_settings import parse_settings


@dataclass(frozen=True, slots=True)
class Lock:
    """Tokens that stay where they stand, in the first stage that is written.

    Attributes:
        position: of the first one.
        ids: of all of them.
    """

    position: int
    ids: tuple[int, ...]


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
            ConfigError: a key is unknown, or a value has the wrong type.
        """
        return parse_settings(cls, values)

    def drawing(self, cascade: Cascade) -> Drawing:
        """How the text is drawn: an edited one is taken as it is where it fills its stage, and else written around.

        Raises:
            ConfigError: what is asked contradicts itself, or is out of range.
        """
        stage = len(self.known) + 1
        options: DrawingOptions = {
            "keywords": self.keywords,
            "pinned": [Pin(stage, lock.position, lock.ids) for lock in self.locked],
            "seed": self.seed,
            "predictor": self.predictor,
            "steps": self.steps,
            "tokens_per_call": self.tokens_per_call,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
            "require_coverage": self.require_coverage,
        }
        if self.text is not None:
            ids = shown_ids(self.text, cascade.tokenizer)
            lengths = cascade.stage_lengths
            can_be_given = stage < len(lengths)
            if can_be_given and (stage == 1 or len(ids) == lengths[stage - 1]):
                return drawing_of_options({**options, "given": GivenStage(stage=stage, ids=((*self.known, ids),))})
            end = cascade.tokenizer.decode([cascade.tokenizer.eos_id])
            options["outline"] = self.text.replace(end, " ")
        if self.known:
            options["given"] = GivenStage(stage=stage - 1, ids=(self.known,))
        return drawing_of_options(options)
