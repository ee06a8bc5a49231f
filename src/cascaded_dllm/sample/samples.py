"""What comes out of a cascade: states on the way, finished batches, and all finished texts."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.cascade.provenance import provenance
from cascaded_dllm.sample.state import SamplerState


class CascadeState(NamedTuple):
    """One state of one batch on its way through the cascade.

    Attributes:
        stage: 1..K.
        first_sample: number of the first text of the batch.
        state: ids and progress within the stage; of a given stage there is only one, without a step.
    """

    stage: int
    first_sample: int
    state: SamplerState


@dataclass(frozen=True, slots=True)
class CascadeSamples:
    """Finished texts.

    Attributes:
        ids: per stage, ids of all texts, (num_samples, length of the stage), on the CPU.
        texts: per stage, the decoded texts.
        nfe: per stage, network calls a batch, averaged over batches; a guided step takes two, a given stage none.
        token_forwards: positions that went through a network, prefix included, over all texts and stages.
        first_stage: number of the first of these stages; later than 1 if one goes on from texts of a later stage.
    """

    ids: tuple[Int[Tensor, "B _"], ...]
    texts: tuple[list[str], ...]
    nfe: tuple[float, ...]
    token_forwards: int
    first_stage: int = 1

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
        )

    @property
    def stage_numbers(self) -> range:
        """Numbers of the stages."""
        return range(self.first_stage, self.first_stage + len(self.ids))

    def provenance(self, sample: int) -> list[list[int]]:
        """For every token of every stage of a text the stage that wrote it first; see `cascade.provenance`."""
        return provenance([ids[sample].tolist() for ids in self.ids], first_stage=self.first_stage)


class CascadeBatch(NamedTuple):
    """Texts that are finished.

    Attributes:
        numbers: of the texts, in the order of the rows.
        samples: the texts themselves, and what this batch has cost.
    """

    numbers: tuple[int, ...]
    samples: CascadeSamples
