"""Reverse steps of the uniform process, as a generator of states: every position may jump in every step."""

from collections.abc import Iterator

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


def uniform_states(
    model: ScoreModel,
    process: UniformProcess,
    schedule: Schedule,
    given: Conditioning,
    *,
    predictor: ScorePredictor,
    num_steps: int,
    draws: Draws,
    sample_index: Int[Tensor, " B"],
    start: Start,
    t_end: float,
) -> Iterator[SamplerState]:
    """Steps on a time grid, then the final denoising; a network call each.

    Raises:
        NoLawError: the network answers with NaN or infinity.
    """
    position = torch.arange(start.xt.shape[1], device=sample_index.device)
    xt, times = start.xt, time_grid(start, num_steps, t_end)
    yield SamplerState(xt, 0, num_steps + 1, 0.0)
    for step, t in enumerate(times):
        with torch.inference_mode():
            log_score = model(xt, schedule(t).sigma, given.prefix)
        if step == num_steps:
            probs = denoise_probs(process, log_score, xt, schedule(t).sigma)
        else:
            probs = predictor.step_probs(process, schedule, log_score, xt, t, times[step + 1])
        if not (is_law := probs.sum(-1).isfinite()).all():
            raise no_law(int((~is_law).sum()), xt)
        u, _ = draws.uniform_pair(sample_index[:, None], step + 1, position)
        xt = sample_states(probs, u)
        yield SamplerState(xt, step + 1, num_steps + 1, step + 1.0)


def uniform_noise(
    process: UniformProcess, length: int, draws: Draws, sample_index: Int[Tensor, " B"]
) -> Int[Tensor, "B L"]:
    """Texts of independent tokens, all equally probable: what the process ends at."""
    noise, _ = draws.uniform_pair(sample_index[:, None], 0, torch.arange(length, device=sample_index.device))
    return (noise * process.num_states).long().clamp_max(process.num_states - 1)
