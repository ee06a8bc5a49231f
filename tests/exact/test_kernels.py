"""The closed forms of both processes against matrix exponentials, and the step they make against Bayes' rule."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess, Process, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule
from cascaded_dllm.sample.predictors import TweediePredictor, denoise_probs
from tests.reference.enumerate import absorbing_rates, kernel, matrix_exp, random_law, uniform_rates

TOLERANCE = {"rtol": 0.0, "atol": 1e-12}  # found: kernels 7e-16, staggered scores 2e-13 at delta_sigma = 3
SIGMAS = (1e-6, 0.03, 0.7, 3.0)
CASES = [(process, size) for process in ("absorbing", "uniform") for size in range(2, 7)]


def chain(name: str, vocab_size: int) -> tuple[Process, Tensor]:
    if name == "absorbing":
        return AbsorbingProcess(vocab_size), absorbing_rates(vocab_size)
    return UniformProcess(vocab_size), uniform_rates(vocab_size)


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("name", "vocab_size"), CASES)
def test_kernels_are_matrix_exponentials(name: str, vocab_size: int) -> None:
    process, rates = chain(name, vocab_size)
    states = torch.arange(process.num_states)
    assert process.num_states == len(rates)
    for sigma in SIGMAS:
        expected = kernel(rates, sigma)
        sigmas = float64(sigma).expand(len(states))
        torch.testing.assert_close(process.transition_probs(states, sigmas), expected, **TOLERANCE)
        torch.testing.assert_close(process.transposed_transition_probs(states, sigmas), expected.T, **TOLERANCE)
        # A batch of one text whose positions are the states, instead of a batch of states.
        as_text = process.transition_probs(states[None], float64(sigma))
        torch.testing.assert_close(as_text[0], expected, **TOLERANCE)
        as_text = process.transposed_transition_probs(states[None], float64(sigma))
        torch.testing.assert_close(as_text[0], expected.T, **TOLERANCE)


@pytest.mark.parametrize(("name", "vocab_size"), CASES)
def test_rates_are_the_columns_off_the_diagonal(name: str, vocab_size: int) -> None:
    process, rates = chain(name, vocab_size)
    expected = (rates - torch.diag(rates.diagonal())).T
    states = torch.arange(process.num_states)
    torch.testing.assert_close(process.transposed_rates(states, torch.float64), expected, **TOLERANCE)
    assert process.transposed_rates(states).dtype == torch.float32


@pytest.mark.parametrize(("name", "vocab_size"), CASES)
def test_staggered_score_undoes_noise(name: str, vocab_size: int) -> None:
    process, rates = chain(name, vocab_size)
    generator = torch.Generator().manual_seed(vocab_size)
    score = torch.rand(3, 2, process.num_states, dtype=torch.float64, generator=generator) + 0.1
    delta = float64(1e-6, 0.4, 3.0)
    expected = torch.stack([score[b] @ matrix_exp(-delta[b] * rates) for b in range(3)])
    before = score.clone()
    torch.testing.assert_close(process.staggered_score(score, delta), expected, **TOLERANCE)
    torch.testing.assert_close(score, before, rtol=0, atol=0)
    torch.testing.assert_close(process.staggered_score(score[:, 0], delta), expected[:, 0], **TOLERANCE)


@pytest.mark.parametrize(("name", "vocab_size"), CASES)
def test_tweedie_step_of_one_token_is_bayes_rule(name: str, vocab_size: int) -> None:
    """p(xs | xt) = p_s(xs) p(xt | xs) / p_t(xt): with one position and the exact score the step has no error."""
    process, rates = chain(name, vocab_size)
    schedule = GeometricSchedule(0.01, 3.0)
    law = torch.zeros(process.num_states, dtype=torch.float64)
    law[:vocab_size] = random_law(vocab_size, seed=vocab_size)
    t, s = float64(0.9), float64(0.35)
    sigma_t, sigma_s = (float(schedule(time).sigma) for time in (t, s))
    law_s, law_t = law @ kernel(rates, sigma_s), law @ kernel(rates, sigma_t)
    joint = law_s[:, None] * kernel(rates, sigma_t - sigma_s)
    for xt in range(process.num_states):
        log_score = (law_t / law_t[xt]).log()[None, None]
        arguments = (process, schedule, log_score, torch.tensor([[xt]]), t, s)
        step = TweediePredictor().step_probs(*arguments)
        torch.testing.assert_close(step[0, 0], joint[:, xt] / law_t[xt], **TOLERANCE)
        # The final step goes back to the clean token, and there MASK has no share.
        last = denoise_probs(process, log_score, torch.tensor([[xt]]), float64(sigma_t))
        posterior = law * kernel(rates, sigma_t)[:, xt] / law_t[xt]
        torch.testing.assert_close(last[0, 0], posterior, **TOLERANCE)
