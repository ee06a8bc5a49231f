"""The conditions of a network call: a prefix and, for guidance, an empty one."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.checks import plain_number
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.copy_head import States
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import Prefix, ScoreModel


def require_guidable(
    guidance: float, settings: PrefixSettings, prefix_length: int, *, stage: str = "the stage"
) -> None:
    """Checks that a stage can be sampled with this weight of guidance; `stage` is its name in the message.

    Raises:
        ConfigError: the weight is negative or not finite, or it is positive for a stage that has no prefix or was
            trained without prefix dropout.
    """
    plain_number("guidance", guidance)
    if not 0 <= guidance < math.inf:
        raise ConfigError(f"guidance is {guidance}; it must be at least 0, which is none, and finite: 1 is usual")
    if guidance > 0 and prefix_length == 0:
        raise ConfigError(f"guidance is {guidance}, and {stage} has no prefix to guide by; set guidance to 0")
    if guidance > 0 and settings.dropout == 0:
        raise ConfigError(
            f"guidance is {guidance}, and {stage} was trained without prefix dropout, so it does not know what "
            "it would write without a prefix; set guidance to 0, or train it with training.prefix_dropout=0.1"
        )


def require_noisable(prob: float, settings: PrefixSettings, prefix_length: int, *, stage: str = "the stage") -> None:
    """Checks that a stage, called `stage` in the message, can be sampled with prefix tokens replaced like this.

    Raises:
        ConfigError: `prob` is not a probability, or it is positive for a stage that has no prefix or was trained on
            prefixes without noise.
    """
    plain_number("prefix_noise", prob)
    if not 0 <= prob <= 1:
        raise ConfigError(f"prefix_noise is {prob}; it must lie between 0, which is none, and 1")
    if prob > 0 and prefix_length == 0:
        raise ConfigError(f"prefix_noise is {prob}, and {stage} has no prefix to put it in; set prefix_noise to 0")
    if prob > 0 and settings.noise_prob == 0:
        raise ConfigError(
            f"prefix_noise is {prob}, and {stage} was trained on prefixes without noise; set prefix_noise to 0, or "
            "train it with training.prefix_noise.prob=0.1"
        )


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The input of the calls of a stage besides the noised text.

    Attributes:
        prefix: the text of the stage before, or None.
        empty: a prefix of nothing but MASK, for guidance; None without guidance.
        weight: weight of guidance, w.
    """

    prefix: Prefix | None
    empty: Prefix | None = None
    weight: float = 0.0

    @classmethod
    def encode(
        cls, model: ScoreModel, prefix: Int[Tensor, "B P"] | None, *, target_length: int, guidance: float
    ) -> "Conditioning":
        """The prefix and, for guidance, an empty one, encoded once for all calls as far as the network allows."""
        if prefix is None:
            return cls(None)
        with torch.inference_mode():
            encoded = model.encode_prefix(prefix, target_length)
            if guidance == 0:
                return cls(encoded)
            empty = torch.full_like(prefix, model.config.vocab_size)
            return cls(encoded, model.encode_prefix(empty, target_length), guidance)

    @property
    def num_calls(self) -> int:
        """Network calls that it takes to compute the law of a token once: 2 with guidance, else 1."""
        return 1 if self.empty is None else 2

    def states(
        self,
        model: ScoreModel,
        xt: Int[Tensor, "B L"],
        sigma: Float[Tensor, " b"],
        batch: Int[Tensor, " b"],
        rows: Rows,
    ) -> tuple[States, States | None]:
        """States from which the law of `rows` is read, with the prefix and, for guidance, without it.

        Args:
            model: the network.
            xt: all texts of the batch.
            sigma: noise of each of the texts `batch`.
            batch: numbers of the texts that take part.
            rows: positions, texts numbered within `batch`.
        """
        texts, num_texts = xt[batch], len(xt)
        given = model.states(texts, sigma, _select(self.prefix, batch, num_texts), rows=rows)
        if self.empty is None:
            return given, None
        return given, model.states(texts, sigma, _select(self.empty, batch, num_texts), rows=rows)

    def guided(self, logits: Float[Tensor, "M V"], unconditional: Float[Tensor, "M V"] | None) -> Float[Tensor, "M V"]:
        """Logits of the law that tokens are drawn from; `logits` themselves without guidance.

        Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6) of the law of the clean token:

            log p_w(x0 | xt, prefix) = (1 + w) log p(x0 | xt, prefix) - w log p(x0 | xt) - log of the sum over x0

        Guidance does not change when a position leaves MASK: the exact total of the scores, 1 / expm1(sigma), is the
        same for every prefix.
        """
        if unconditional is None:
            return logits
        return (1 + self.weight) * F.log_softmax(logits, -1) - self.weight * F.log_softmax(unconditional, -1)


def _select(prefix: Prefix | None, batch: Int[Tensor, " b"], num_texts: int) -> Prefix | None:
    """The prefixes of the texts `batch`, which are in rising order; not copied if these are all texts."""
    if prefix is None or len(batch) == num_texts:
        return prefix
    return prefix.select(batch)
