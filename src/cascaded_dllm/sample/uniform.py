"""Reverse steps of the uniform process, as a generator of states: every position may jump in every step."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import UniformProcess
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.absorbing import time_grid
from cascaded_dllm.sample.conditioning import Conditioning
from cascaded_dllm.sample.predictors import ScorePredictor, denoise_probs
from cascaded_dllm.sample.state import SamplerState, Start
from cascaded_dllm.sample.writing import no_law


@dataclass(frozen=True, slots=True)
class UniformSampling:
    """A batch of texts to be written; see `AbsorbingSampling`.

    Attributes:
        model: the network.
        process: forward process of the stage.
        schedule: its noise schedule.
        conditioning: the input of the network besides the noised text.
        draws: the stream of random numbers.
        sample_index: number of each text.
        t_end: time at which a time grid ends.
    """

    model: ScoreModel
    process: UniformProcess
    schedule: Schedule
    conditioning: Conditioning
    draws: Draws
    sample_index: Int[Tensor, " B"]
    t_end: float

    def noise(self, length: int) -> Start:
        """Texts of independent tokens, all equally probable, at time 1: the law that the process ends in."""
        device = self.sample_index.device
        u, _ = self.draws.uniform_pair(self.sample_index[:, None], 0, torch.arange(length, device=device))
        xt = (u * self.process.num_states).long().clamp_max(self.process.num_states - 1)
        return Start(xt, torch.ones(len(xt), device=device))

    def states(self, start: Start, predictor: ScorePredictor, num_steps: int) -> Iterator[SamplerState]:
        """The states of the steps on a time grid and of the final denoising, with one network call for each.

        Raises:
            NonFiniteScoresError: the network answers with NaN or infinity.
        """
        position = torch.arange(start.xt.shape[1], device=self.sample_index.device)
        xt, times = start.xt, time_grid(start, num_steps, self.t_end)
        yield SamplerState(xt, 0, num_steps + 1, 0.0)
        for step, t in enumerate(times):
            with torch.inference_mode():
                log_score = self.model(xt, self.schedule(t).sigma, self.conditioning.prefix)
            if step == num_steps:
                probs = denoise_probs(self.process, log_score, xt, self.schedule(t).sigma)
            else:
                probs = predictor.step_probs(self.process, self.schedule, log_score, xt, t, times[step + 1])
            if not (is_law := probs.sum(-1).isfinite()).all():
                raise no_law(int((~is_law).sum()), xt)
            u, _ = self.draws.uniform_pair(self.sample_index[:, None], step + 1, position)
            xt = sample_states(probs, u)
            yield SamplerState(xt, step + 1, num_steps + 1, step + 1.0)
