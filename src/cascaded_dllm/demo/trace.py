"""The way of a text through the stages, state by state, as plain data that a page can show."""

from collections.abc import Sequence
from typing import Any

from cascaded_dllm.cascade.provenance import provenance
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.text.token_groups import token_groups
from cascaded_dllm.text.tokenizer import Tokenizer

MASKED, END = 0, -1
"""In place of the stage that wrote a piece: nothing is decided there yet; it is an end of text."""


class Trace:
    """Makes frames of the states of one text, in the order in which they come.

    Args:
        tokenizer: of the cascade.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stages: dict[int, list[int]] = {}
        self._calls: dict[int, float] = {}

    def frame(self, seen: CascadeState) -> dict[str, Any]:
        """One state: `stage`, `step` of `steps`, and `pieces`.

        A piece has its text, the stage that wrote it first, and its ids: one, or more where a character lies in them.
        """
        stage, _, state = seen
        ids = state.xt[0].tolist()
        self._stages[stage], self._calls[stage] = ids, state.nfe
        first = min(self._stages)
        origins = provenance([self._stages[number] for number in range(first, stage + 1)], first_stage=first)[-1]
        return {
            "stage": stage,
            "step": state.step,
            "steps": state.num_steps,
            "pieces": [self._piece(ids[a:b], origins[a]) for a, b in token_groups(ids, self._tokenizer.decode)],
        }

    def ending(self, seconds: float) -> dict[str, Any]:
        """What is told at the end: the text for readers, network calls in all stages, and the time it took."""
        last = self._stages[max(self._stages)]
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
        return (self._tokenizer.decode(ids), origin, list(ids))
