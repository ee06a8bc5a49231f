"""The shape of a cascade: how many tokens every stage writes."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.errors import ConfigError

MOST_LENGTH = 1_000_000
"""Tokens of a window: far more than attention computes, and few enough for lists and arrays of every kind."""


@final
@dataclass(frozen=True, slots=True)
class CascadeSpec:
    """The stage lengths of a cascade, shortest first; stages are numbered 1..K.

    Attributes:
        stage_lengths: tokens of every stage, strictly increasing; the last one is the whole window.
    """

    stage_lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks the lengths.

        Raises:
            ConfigError: there is no stage, a length is not a positive whole number, one is too large, or they do not
                strictly increase.
        """
        given: Any = self.stage_lengths
        if not isinstance(given, Iterable):
            raise ConfigError(f"stage_lengths is {given!r}; it must be a list, for example (32, 64, 128)")
        # Whole numbers of NumPy become those of Python, which can be stored as JSON.
        lengths = tuple(n.item() if hasattr(n, "item") else n for n in given)
        object.__setattr__(self, "stage_lengths", lengths)
        if len(lengths) == 0:
            raise ConfigError("stage_lengths is empty; a cascade needs at least 1 stage, for example (32, 64, 128)")
        for length in lengths:
            # Not isinstance: True is an int, but not a length.
            if type(length) is not int or length < 1:
                raise ConfigError(
                    f"stage_lengths {lengths} holds {length!r}; every length must be a whole number of at least 1"
                )
        require_at_least("the longest stage", lengths[-1], 1, most=MOST_LENGTH)
        for shorter, longer in itertools.pairwise(lengths):
            if shorter >= longer:
                raise ConfigError(
                    f"stage_lengths {lengths} has {longer} after {shorter}; lengths must strictly increase: sort them "
                    "and leave repeated ones out"
                )

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self.stage_lengths)

    @property
    def window_length(self) -> int:
        """Number of tokens of the whole text, which the last stage writes."""
        return self.stage_lengths[-1]

    def target_length(self, stage: int) -> int:
        """Number of tokens that `stage` writes.

        Raises:
            ConfigError: there is no such stage.
        """
        if not 1 <= stage <= self.num_stages:
            raise ConfigError(
                f"stage {stage} does not exist; a cascade of {self.stage_lengths} has 1..{self.num_stages}"
            )
        return self.stage_lengths[stage - 1]

    def prefix_length(self, stage: int) -> int:
        """Number of tokens of the stage before, on which `stage` is conditioned; 0 for the first.

        Raises:
            ConfigError: there is no such stage.
        """
        self.target_length(stage)
        return 0 if stage == 1 else self.target_length(stage - 1)
