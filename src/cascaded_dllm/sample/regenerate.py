"""Prefixes with the errors of the stages before: true prefixes, noised in part and rewritten by a model.

A free sample of the stages before has no target, since the text that belongs to it is unknown. So the true prefix z of
a window is noised until a drawn share of its tokens has moved, and the model of its stage denoises it, given the true
text of the stage before. The result z' is near z, so the text of the window is still a plausible completion, and the
tokens that the model wrote are like those that it will write when the cascade is sampled. See docs/mathematics.md.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.data.array_file import Stored
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.sample.predictors import Predictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRegenerator:
    """Rewrites prefixes of a data set in part.

    Several models are consecutive stages of a cascade: the first one reads true prefixes, and each of the others the
    text that the one before wrote, so that errors add up as in sampling. What is kept of a true text need not go with
    that, so exact models keep the law of true prefixes only if there is one of them.

    Attributes:
        stages: samplers of consecutive stages; the last one writes the prefixes.
        texts: for each of `stages`, the true ids of every window, (num_windows, length).
        context: true ids of the stage before the first of `stages`; None if that is stage 1.
        level: largest probability that a token is noised; the probability of a prefix is uniform between 0 and `level`.
        predictor: how noised tokens are rewritten.
        num_steps: steps of the time grid.
        fingerprint: fingerprint of the weights of the models, see `weights_fingerprint`.
    """

    stages: tuple[StageSampler, ...]
    texts: tuple[Stored, ...]
    context: Stored | None
    level: float
    predictor: Predictor
    num_steps: int
    fingerprint: str

    def __call__(self, window: Int[Tensor, " B"], index: Int[Tensor, " B"], step: int, seed: int) -> Int[Tensor, "B P"]:
        """The prefixes of the windows `window`, rewritten in part; on the device of `index`.

        Random numbers depend only on `seed`, `step` and `index`, the place in the global batch.
        """
        rows, home = window.numpy(), index.device
        index = index.to(self.stages[0].model.device)
        share = self.level * Draws(seed, "regenerate-share").uniform_pair(index, step, torch.zeros_like(index))[0]
        draws_seed = derive_seed(seed, "regenerate", step)
        written = None if self.context is None else _ids(self.context, rows, index.device)
        for number, (stage, texts) in enumerate(zip(self.stages, self.texts, strict=True)):
            start = _noised(stage, _ids(texts, rows, index.device), share, Draws(draws_seed, f"noise-{number}"), index)
            *_, last = stage.states(
                written,
                predictor=self.predictor,
                num_steps=self.num_steps,
                draws=Draws(draws_seed, f"stage-{number}"),
                sample_index=index,
                start=start,
            )
            written = last.xt
        assert written is not None
        return written.to(home)


def weights_fingerprint(models: Sequence[ScoreModel]) -> str:
    """A hash of all weights, 16 hex digits, by which a resumed run notices that its models have changed."""
    digest = hashlib.sha256()
    for model in models:
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            # As bytes, because NumPy has no bfloat16.
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _noised(
    stage: StageSampler, text: Int[Tensor, "B L"], share: Float[Tensor, " B"], draws: Draws, index: Int[Tensor, " B"]
) -> Start:
    """`text` noised until every token has moved with probability `share`, and the time of this noise."""
    last = stage.schedule(torch.ones((), device=text.device)).sigma
    sigma = (-torch.log1p(-share)).to(last).clamp_max(last)
    u = draws.uniform_pair(index[:, None], 0, torch.arange(text.shape[1], device=text.device))
    return Start(stage.process.sample_xt(text, sigma, u), stage.schedule.time_at(sigma).clamp_max(1))


def _ids(array: Stored, rows: npt.NDArray[np.int64], device: torch.device) -> Int[Tensor, "B _"]:
    return torch.from_numpy(array[rows].astype(np.int64)).to(device)
