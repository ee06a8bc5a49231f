"""Texts of a cascade on the terminal, each token in the colour of the stage that wrote it."""

import itertools
from difflib import SequenceMatcher

from rich.text import Text

from cascaded_dllm.sample.cascade import Cascade, CascadeSamples

_STYLES = ("bold yellow", "cyan", "white", "magenta", "green")


def written_by(stages: list[list[int]]) -> list[list[int]]:
    """For every stage and token, the stage (1..K) it was first written in.

    A token comes from the stage before if it lies on the longest common run of matching tokens, in order.
    """
    origins = [[1] * len(stages[0])]
    for number, (before, after) in enumerate(itertools.pairwise(stages), start=2):
        origin = [number] * len(after)
        for match in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
            origin[match.b : match.b + match.size] = origins[-1][match.a : match.a + match.size]
        origins.append(origin)
    return origins


def story_lines(cascade: Cascade, samples: CascadeSamples, index: int) -> Text:
    """All stages of one text, one below the other."""
    eos = cascade.tokenizer.eos_id
    stages = [[token for token in ids[index].tolist() if token != eos] for ids in samples.ids]
    text = Text()
    for number, (ids, origins) in enumerate(zip(stages, written_by(stages), strict=True), start=1):
        text.append(f"  {number}  ", style="dim")
        for token, origin in zip(ids, origins, strict=True):
            text.append(cascade.tokenizer.decode([token]), style=_STYLES[(origin - 1) % len(_STYLES)])
        text.append("\n")
    return text
