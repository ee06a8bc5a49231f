"""What comes out of a cascade: states on the way, finished batches, and all finished texts."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.cascade.provenance import provenance
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.control import GivenStage
from cascaded_dllm.sample.state import SamplerState


class CascadeState(NamedTuple):
    """One state of one batch on its way through the cascade.

    Attributes:
        stage: 1..K.
        first_sample: number of the first text of the batch.
        state: ids and progress within the stage; a given stage has a single state, with 0 steps.
    """

    stage: int
    first_sample: int
    state: SamplerState


@dataclass(frozen=True, slots=True)
class CascadeSamples:
    """Finished texts; `len` is their number.

    Attributes:
        ids: for each stage, the ids of all texts, (num_samples, length of the stage), on the CPU.
        texts: for each stage, the complete decoded texts, with the ends of text that fill a window spelt out.
        nfe: for each stage, the mean number of network calls for a text; a guided step takes two, a given stage none.
            Those of layout networks do not count.
        token_forwards: positions that went through a network, prefix included, summed over all texts and stages.
        first_stage: number of the first of these stages; more than 1 if the texts continue given texts of a later one.
        final_texts: the texts of the last stage for readers, without the ends of text that fill their windows.
    """

    ids: tuple[Int[Tensor, "B _"], ...] = field(repr=False)
    texts: tuple[list[str], ...] = field(repr=False)
    nfe: tuple[float, ...]
    token_forwards: int
    first_stage: int
    final_texts: list[str] = field(repr=False)

    @classmethod
    def joined(cls, parts: "Sequence[CascadeSamples]") -> "CascadeSamples":
        """All texts of several parts, one after another."""
        sizes = [len(part.texts[0]) for part in parts]
        return cls(
            tuple(torch.cat(stage) for stage in zip(*(part.ids for part in parts), strict=True)),
            tuple(list(itertools.chain(*stage)) for stage in zip(*(part.texts for part in parts), strict=True)),
            tuple(
                sum(calls * size for calls, size in zip(of_stage, sizes, strict=True)) / sum(sizes)
                for of_stage in zip(*(part.nfe for part in parts), strict=True)
            ),
            sum(part.token_forwards for part in parts),
            parts[0].first_stage,
            list(itertools.chain.from_iterable(part.final_texts for part in parts)),
        )

    def __len__(self) -> int:
        return len(self.final_texts)

    @property
    def stage_numbers(self) -> range:
        """Numbers of the stages in `ids` and `texts`."""
        return range(self.first_stage, self.first_stage + len(self.ids))

    def given(self, stage: int) -> GivenStage:
        """The texts of a stage, and of the stages before it, to continue from with `Cascade.generate(given=...)`.

        Raises:
            ConfigError: there is no such stage.
        """
        if stage not in self.stage_numbers:
            raise ConfigError(f"stage is {stage}, and there are texts of {', '.join(map(str, self.stage_numbers))}")
        known = self.ids[: stage + 1 - self.first_stage]
        texts = zip(*(ids.tolist() for ids in known), strict=True)
        return GivenStage(stage=stage, ids=tuple(tuple(map(tuple, text)) for text in texts))

    def provenance(self, sample: int) -> list[list[int]]:
        """The stage that wrote each token first, for every stage of one text; see `cascade.provenance`."""
        return provenance([ids[sample].tolist() for ids in self.ids], first_stage=self.first_stage)


class CascadeBatch(NamedTuple):
    """A finished batch.

    Attributes:
        numbers: numbers of the texts, in the order of the rows.
        samples: the texts, and what this batch has cost.
    """

    numbers: tuple[int, ...]
    samples: CascadeSamples
