"""Prefixes as a stage sees them in training: true ones, or ones that resemble what it is given when it is sampled.

A stage is trained on true prefixes and sampled on generated ones. Three remedies, each keyed to (step, place in the
global batch, position), so that neither accumulation nor the number of processes nor resuming changes a token:

    generated   a part of the prefix is rewritten by the models of the stages before
    noise       every token is replaced with a small probability (conditioning augmentation)
    dropout     the whole prefix is replaced by MASK, which classifier-free guidance needs
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.prefix_noise import masked_prefix, noised_prefix
from cascaded_dllm.diffusion.process import Process
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.train.execution import for_changing_shapes


@runtime_checkable
class PrefixGenerator(Protocol):
    """Rewrites prefixes in part; handed in from above, since training does not sample."""

    @property
    def fingerprint(self) -> str:
        """What tells it from generators that write something else."""
        ...

    def __call__(self, window: Int[Tensor, " B"], index: Int[Tensor, " B"], step: int, seed: int) -> Int[Tensor, "B P"]:
        """Prefixes of the windows `window`, which stand at the places `index` in the global batch of `step`."""
        ...


class WritingCost(NamedTuple):
    """What it costs to write a text, on average.

    Attributes:
        token_forwards: positions that go through the networks.
        flops: of the matrix products that are needed, forward alone.
    """

    token_forwards: float
    flops: float


NO_COST = WritingCost(0.0, 0.0)
"""Of what is not written."""


@dataclass(frozen=True, slots=True)
class PrefixTraining:
    """What is done to the prefixes of a stage; nothing by default.

    Attributes:
        process: forward process of the stage.
        settings: probabilities.
        generate: rewrites prefixes; needed where `settings.generated_prob` is not zero.
        cost: of a prefix that it rewrites.
    """

    process: Process
    settings: PrefixSettings = TRUE_PREFIXES
    generate: PrefixGenerator | None = None
    cost: WritingCost = NO_COST

    @property
    def cost_of_sequence(self) -> WritingCost:
        """What is spent on the prefix of a sequence, on average over all, of which some are rewritten."""
        return WritingCost(*(self.settings.generated_prob * part for part in self.cost))

    def changed(
        self,
        prefix: Int[Tensor, "B P"],
        *,
        window: Int[Tensor, " B"] | None,
        index: Int[Tensor, " B"],
        step: int,
        seed: int,
    ) -> Int[Tensor, "B P"]:
        """The prefixes that `step` trains on; `prefix` itself where nothing is done.

        A prefix is rewritten first, then noised, then dropped.

        Args:
            prefix: true ids of the stage before.
            window: number of each window in the dataset, for the stages before; needed where prefixes are generated.
            index: place of each sequence in the global batch.
            step: optimizer step.
            seed: of the run.
        """
        settings = self.settings
        if settings.generated_prob > 0:
            assert window is not None
            assert self.generate is not None
            chosen = self._chosen("prefix-generated", settings.generated_prob, index, step, seed)
            rows = chosen.nonzero()[:, 0]
            if len(rows) > 0:
                with for_changing_shapes():
                    generated = self.generate(window[rows.cpu()], index[rows], step, seed)
                prefix = prefix.index_copy(0, rows, generated)
        if settings.noise_prob > 0:
            position = torch.arange(prefix.shape[1], device=prefix.device)
            u = Draws(seed, "prefix-noise").uniform_pair(index[:, None], step, position[None])
            prefix = noised_prefix(prefix, u, prob=settings.noise_prob, kind=settings.noise_kind, process=self.process)
        if settings.dropout > 0:
            is_dropped = self._chosen("prefix-dropout", settings.dropout, index, step, seed)
            prefix = torch.where(is_dropped[:, None], masked_prefix(prefix, self.process), prefix)
        return prefix

    @staticmethod
    def _chosen(purpose: str, prob: float, index: Int[Tensor, " B"], step: int, seed: int) -> Bool[Tensor, " B"]:
        """Which sequences something of probability `prob` happens to."""
        return Draws(seed, purpose).uniform_pair(index, step, torch.zeros_like(index))[0] < prob
