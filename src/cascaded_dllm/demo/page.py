"""The files of the page, and the facts that it gets about the cascade."""

import re
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

from cascaded_dllm.demo.text_request import MOST_STEPS
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.pages import stage_styles
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import DEFAULT_STEPS, Drawing
from cascaded_dllm.sample.predictors import GRID_PREDICTORS, PREDICTORS
from cascaded_dllm.sample.regenerate import weights_fingerprint

_SCRIPTS = ("asking", "elements", "frames", "history", "page", "replay", "server", "stages", "state")

_WORD = re.compile(" [^\\W\\d_]{3,}")
_NUM_KEYWORDS = 3

FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}
"""The file at every path, and its content type."""


def page_file(path: str, cascade: Cascade) -> tuple[bytes, str]:
    """The content of a file of the page and its type; the style sheet also gets the colours of the stages."""
    name, kind = FILES[path]
    content = resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")
    if kind == "text/css":
        content += f"\n{stage_styles(len(cascade.stages) - 1)}\n"
    return content.encode(), kind


def facts(cascade: Cascade) -> dict[str, Any]:
    """What the page must know about the cascade: its stages, and what may be asked of them."""
    later = cascade.stages[1:]
    usable = [name for name in PREDICTORS if _is_usable(name, cascade)]
    can_control = all(isinstance(stage.process, AbsorbingProcess) for stage in cascade.stages)
    return {
        "name": f"{cascade.tokenizer.fingerprint}-{weights_fingerprint([stage.model for stage in cascade.stages])}",
        "lengths": list(cascade.stage_lengths),
        "parameters": sum(p.numel() for stage in cascade.stages for p in stage.model.parameters()),
        "device": str(cascade.device),
        "method": cascade.method,
        "predictors": [{"name": name, "has_grid": name in GRID_PREDICTORS} for name in usable],
        "predictor": next(name for name in ("first_hitting", "analytic") if name in usable),
        "steps": DEFAULT_STEPS,
        "most_steps": MOST_STEPS,
        "can_control": can_control,
        "can_guide": bool(later) and all(stage.trained_with.dropout > 0 for stage in later),
        "can_cover": can_control and not all(stage.is_placed for stage in later),
        "example": ", ".join(_keywords(cascade)) if can_control and later else "",
    }


def _keywords(cascade: Cascade) -> list[str]:
    """Some whole words of a text that stage 1 writes, as an example, since a user cannot know the words it learnt."""
    first = Cascade(cascade.stages[:1], cascade.tokenizer, trained_lengths=cascade.trained_lengths).generate(1)
    return whole_words([cascade.tokenizer.decode([token]) for token in first.ids[0][0].tolist()])[:_NUM_KEYWORDS]


def whole_words(tokens: Sequence[str]) -> list[str]:
    """The words that consist of one token, each once; a token followed by one without a space is part of a word."""
    pairs = pairwise([*tokens, " "])
    words = (token.strip() for token, after in pairs if _WORD.fullmatch(token) and after.startswith(" "))
    return list(dict.fromkeys(words))


def _is_usable(predictor: str, cascade: Cascade) -> bool:
    """Whether all stages can be drawn with a predictor."""
    try:
        cascade.require_drawable(Drawing(predictor=(predictor,)))
    except ConfigError:
        return False
    return True
