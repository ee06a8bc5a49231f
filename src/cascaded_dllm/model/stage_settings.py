"""The settings of a stage that its checkpoint stores beside the weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.score_config import ScoreModelConfig

FORMAT = "cascaded-dllm/1"
"""Written into the `config.json` of every checkpoint of this package."""

Weights = Literal["ema", "raw"]

WEIGHTS_FILES: Mapping[Weights, str] = {"ema": "ema.safetensors", "raw": "model.safetensors"}
"""The files of a checkpoint of this package that hold them."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """The settings of a stage that its checkpoint stores beside the weights.

    Attributes:
        model: the network.
        noise: settings of the schedule, `type` and its numbers.
        stage: 1..K, or 0 for a flat model.
        stage_lengths: lengths of all stages of its cascade; empty if unknown, as for a SEDD model.
        tokenizer: fingerprint of the tokenizer; empty if unknown.
        packing: how documents were cut into the windows it was trained on, see `data.windows`; empty if unknown.
        unique: whether shortened stages kept a token id at most once.
        method: the method of importance by which the text was shortened; empty if unknown.
        step: optimizer steps done.
        prefix: what was done to its prefixes in training.
        layout: the layout network beside it; None if the stage is not a placed one.
        choice: what else decides which words are kept, see `data.manifest.choice_of`; None if nothing does, or if
            unknown.
    """

    model: ScoreModelConfig
    noise: Mapping[str, Any]
    stage: int
    stage_lengths: tuple[int, ...] = ()
    tokenizer: str = ""
    packing: str = ""
    unique: bool = True
    method: str = ""
    step: int = 0
    prefix: PrefixSettings = TRUE_PREFIXES
    layout: LayoutConfig | None = None
    choice: Mapping[str, Any] | None = None

    def at_step(self, step: int) -> "StageSettings":
        """The same settings after `step` optimizer steps."""
        return replace(self, step=step)

    def to_json(self) -> str:
        """The text of `config.json`."""
        settings = {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "noise": dict(self.noise),
            "stage": self.stage,
            "stage_lengths": list(self.stage_lengths),
            "tokenizer": self.tokenizer,
            "packing": self.packing,
            "unique": self.unique,
            "method": self.method,
            "choice": None if self.choice is None else dict(self.choice),
            "step": self.step,
            "prefix": self.prefix.to_dict(),
            "layout": None if self.layout is None else self.layout.to_dict(),
        }
        return json.dumps(settings, indent=2) + "\n"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "StageSettings":
        """The settings in the `config.json` of this package.

        Raises:
            KeyError: something is missing.
            TypeError: something has the wrong type.
            AttributeError: something has the wrong type.
            ConfigError: a value is out of range.
        """
        return cls(
            model=ScoreModelConfig.from_dict(config["model"]),
            noise=dict(config["noise"]),
            stage=config["stage"],
            stage_lengths=tuple(config["stage_lengths"]),
            tokenizer=config["tokenizer"],
            # Earlier checkpoints lack the keys that have a default here. They never had a layout network, and `unique`
            # was always true.
            packing=config.get("packing", ""),
            unique=config.get("unique", True),
            method=config.get("method", ""),
            step=config["step"],
            prefix=PrefixSettings.from_dict(config.get("prefix", {})),
            layout=None if config.get("layout") is None else LayoutConfig.from_dict(config["layout"]),
            choice=_choice(config.get("choice", config.get("chance"))),  # "chance" is an earlier name of the key
        )


def _choice(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The choice in a `config.json`: (function, sha256) or (per, seed)."""
    if found is None:
        return None
    return {key: found[key] for key in (("function", "sha256") if "function" in found else ("per", "seed"))}
