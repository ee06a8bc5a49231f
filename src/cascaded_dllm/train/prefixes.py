"""Prefixes in training: true ones, or ones changed to resemble the generated prefixes that sampling gives a stage.

A stage is trained on true prefixes and sampled with generated ones. There are three remedies. Each draws by (step,
place in the global batch, position), so accumulation, the number of processes and resuming change no token:

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
    """Rewrites a part of every prefix; the caller passes it in, since `train` does not depend on `sample`."""

    @property
    def fingerprint(self) -> str:
        """A hash that differs between generators that write different prefixes."""
        ...

    def __call__(self, window: Int[Tensor, " B"], index: Int[Tensor, " B"], step: int, seed: int) -> Int[Tensor, "B P"]:
        """Rewritten prefixes of the windows `window`, which stand at places `index` in the global batch of `step`."""
        ...


class WritingCost(NamedTuple):
    """The mean cost of writing a text.

    Attributes:
        token_forwards: positions that go through the networks.
        flops: FLOPs of the needed matrix products, forward only.
    """

    token_forwards: float
    flops: float


NO_COST = WritingCost(0.0, 0.0)
"""The cost of writing nothing."""


@dataclass(frozen=True, slots=True)
class PrefixTraining:
    """What is done to the prefixes of a stage; nothing by default.

    Attributes:
        process: forward process of the stage.
        settings: probabilities.
        generate: rewrites prefixes; needed if `settings.generated_prob` is not zero.
        cost: mean cost of rewriting a prefix.
    """

    process: Process
    settings: PrefixSettings = TRUE_PREFIXES
    generate: PrefixGenerator | None = None
    cost: WritingCost = NO_COST

    @property
    def cost_of_sequence(self) -> WritingCost:
        """Mean cost of the prefix of a sequence, over all sequences; only some prefixes are rewritten."""
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
        """The prefixes that `step` trains on; `prefix` itself if nothing is done to it.

        A prefix is rewritten first, then noised, then dropped.

        Args:
            prefix: true ids of the stage before.
            window: number of each window in the dataset, for the stages before; needed if prefixes are generated.
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
        """Which sequences are chosen, each with probability `prob`."""
        return Draws(seed, purpose).uniform_pair(index, step, torch.zeros_like(index))[0] < prob
