"""The states that a text goes through, stage by stage, as plain data for the page."""

from collections.abc import Sequence
from typing import Any

from cascaded_dllm.cascade.provenance import continued_positions
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.text.token_groups import token_groups
from cascaded_dllm.text.tokenizer import Tokenizer

MASKED, END = 0, -1
"""Stand in for the stage that wrote a piece: MASKED where nothing is decided yet, END for an end of text."""


class Trace:
    """Turns the states of one text, in their order, into frames.

    Args:
        tokenizer: the tokenizer of the cascade.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[int, list[int]] = {}
        self._origins: dict[int, list[int]] = {}
        self._calls: dict[int, float] = {}
        self._texts: dict[int, str] = {}

    def frame(self, seen: CascadeState) -> dict[str, Any]:
        """The frame of one state: `stage`, `step` of `steps`, and `pieces`.

        A piece has its text, the stage that wrote it first, and its ids: several if a character spans several tokens.
        """
        stage, _, state = seen
        ids = state.xt[0].tolist()
        before = self._origins.get(stage - 1, [])
        kept = continued_positions(self._ids.get(stage - 1, []), ids)
        origins = [stage if place < 0 else before[place] for place in kept]
        self._ids[stage], self._origins[stage], self._calls[stage] = ids, origins, state.nfe
        return {
            "stage": stage,
            "step": state.step,
            "steps": state.num_steps,
            "pieces": [self._piece(ids[a:b], origins[a]) for a, b in token_groups(ids, self._decode)],
        }

    def ending(self, seconds: float) -> dict[str, Any]:
        """The last line for the page: the text for readers, network calls in all stages, and the time it took."""
        last = self._ids[max(self._ids)]
        return {
            "text": self._tokenizer.decode_window(last).strip(),
            "calls": round(sum(self._calls.values()), 2),
            "seconds": round(seconds, 2),
        }

    def _piece(self, ids: Sequence[int], origin: int) -> tuple[str, int, list[int]]:
        if ids[0] == self._tokenizer.mask_id:
            return ("", MASKED, list(ids))
        if ids[0] == self._tokenizer.eos_id:
            return ("", END, list(ids))
        return (self._decode(ids), origin, list(ids))

    def _decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; that of single ones is cached, since states share most tokens with the one before."""
        if len(ids) != 1:
            return self._tokenizer.decode(ids)
        if ids[0] not in self._texts:
            self._texts[ids[0]] = self._tokenizer.decode(ids)
        return self._texts[ids[0]]
