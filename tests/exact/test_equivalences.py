"""Readings of one network that must agree: score and posterior, SEDD's loss and MDLM's, Euler's step and Tweedie's."""

import itertools

import torch
import torch.nn.functional as F

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.numerics import log_expm1
from cascaded_dllm.sample.predictors import EulerPredictor, ScorePredictor, TweediePredictor, denoise_probs
from tests.reference import enumerate as oracle
from tests.reference.plain_loss import absorbing_score_entropy

TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
V, L, MASK = 3, 2, 3
LAW = oracle.random_law(V**L, seed=5)
STATES = oracle.all_states(V + 1, L)
CONDITIONALS = oracle.exact_conditionals(LAW, V, L)
PROCESS = AbsorbingProcess(V)


def exact_log_score(sigma: float) -> torch.Tensor:
    law = oracle.with_mask(LAW, V, L) @ oracle.joint_kernel(oracle.absorbing_rates(V), sigma, L)
    return oracle.scores(law, V + 1, L).log()


def times(value: float) -> torch.Tensor:
    return torch.full((len(STATES),), value, dtype=torch.float64)


def step(predictor: ScorePredictor, schedule: Schedule, log_score: torch.Tensor, t: float, s: float) -> torch.Tensor:
    return predictor.step_probs(PROCESS, schedule, log_score, STATES, times(t), times(s))


def test_score_times_expm1_is_the_posterior() -> None:
    """At masked positions, whatever the noise. Found: 3e-15."""
    is_masked = STATES == MASK
    for sigma in (0.01, 0.9, 6.0):
        posterior = exact_log_score(sigma).exp()[..., :V] * torch.expm1(times(sigma))[:, None, None]
        torch.testing.assert_close(posterior[is_masked], CONDITIONALS[is_masked], **TOLERANCE)


def test_score_entropy_of_normalized_scores_is_weighted_cross_entropy() -> None:
    """Not only at the optimum: for normalised scores SEDD's loss is r CE (MDLM, Sahoo et al. 2024, Eq. 10), and
    r dsigma is MDLM's weight, 1 / t under log-linear noise."""
    logits = torch.randn(5, 7, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x0 = torch.arange(35).view(5, 7) % V
    t = torch.tensor([1e-3, 0.1, 0.4, 0.9, 1.0], dtype=torch.float64)
    sigma, dsigma = LogLinearSchedule()(t)
    log_score = F.pad(logits.log_softmax(-1) - log_expm1(sigma)[:, None, None], (0, 1))
    found = absorbing_score_entropy(log_score, torch.full_like(x0, MASK), x0, sigma)
    cross_entropy = F.cross_entropy(logits.transpose(1, 2), x0, reduction="none")
    torch.testing.assert_close(dsigma[:, None] * found, cross_entropy / t[:, None], rtol=1e-11, atol=0)
    geometric = GeometricSchedule()(t)
    found = absorbing_score_entropy(
        F.pad(logits.log_softmax(-1) - log_expm1(geometric.sigma)[:, None, None], (0, 1)),
        torch.full_like(x0, MASK),
        x0,
        geometric.sigma,
    )
    # The positive and the constant term are of size r log r and cancel, which costs digits at tiny sigma.
    torch.testing.assert_close(found, cross_entropy / torch.expm1(geometric.sigma)[:, None], rtol=1e-8, atol=0)


def test_score_entropy_is_never_negative_and_zero_at_the_answer() -> None:
    x0 = torch.tensor([[0, 1, 2]])
    sigma = torch.tensor([0.7], dtype=torch.float64)
    answer = torch.where(F.one_hot(x0, V + 1) == 1, -log_expm1(sigma), torch.tensor(-60.0, dtype=torch.float64))
    mask = torch.full_like(x0, MASK)
    at_best = absorbing_score_entropy(answer, mask, x0, sigma)
    torch.testing.assert_close(at_best, torch.zeros_like(at_best), **TOLERANCE)
    elsewhere = answer + torch.randn(answer.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert (absorbing_score_entropy(elsewhere, mask, x0, sigma) > 0).all()
    # A position that was not masked costs nothing, whatever the score.
    assert (absorbing_score_entropy(elsewhere, x0, x0, sigma) == 0).all()


def test_euler_is_tweedie_under_loglinear_noise() -> None:
    """Exactly, also for scores that belong to no law. Found: 4e-16 relative."""
    log_score = torch.randn(len(STATES), L, V + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    log_score = log_score.scatter(-1, STATES[..., None], 0.0)
    for t, s in ((1.0, 0.999), (1.0, 0.5), (0.3, 0.2), (0.1, 1e-5)):
        euler, tweedie = (step(p, LogLinearSchedule(), log_score, t, s) for p in (EulerPredictor(), TweediePredictor()))
        torch.testing.assert_close(euler, tweedie, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(euler.sum(-1), torch.ones(len(STATES), L, dtype=torch.float64), rtol=0, atol=1e-11)


def test_euler_and_tweedie_differ_in_second_order() -> None:
    """Under geometric noise the difference of one step falls fourfold as the step is halved."""
    schedule = GeometricSchedule(1e-2, 5.0)
    log_score = exact_log_score(float(schedule(times(0.7)[0]).sigma))
    gaps = []
    for dt in (0.01, 0.005, 0.0025):
        pair = [step(p, schedule, log_score, 0.7, 0.7 - dt) for p in (EulerPredictor(), TweediePredictor())]
        gaps.append(float((pair[0] - pair[1]).abs().max()))
    assert gaps[0] > 1e-4
    for longer, shorter in itertools.pairwise(gaps):
        assert 3.8 < longer / shorter < 4.2


def test_tweedie_is_the_ancestral_step_of_mdlm() -> None:
    """P(xs = y) = posterior (m_t - m_s) / m_t and P(stays MASK) = m_s / m_t (Sahoo et al. 2024, Eq. 7)."""
    is_masked = STATES == MASK
    for schedule in (LogLinearSchedule(), GeometricSchedule(0.01, 4.0)):
        t, s = 0.8, 0.55
        moved_t, moved_s = (-torch.expm1(-schedule(times(time)).sigma)[0] for time in (t, s))
        found = step(TweediePredictor(), schedule, exact_log_score(float(schedule(times(t)).sigma[0])), t, s)
        expected = F.pad(CONDITIONALS * (moved_t - moved_s) / moved_t, (0, 1))
        expected[..., MASK] = moved_s / moved_t
        torch.testing.assert_close(found[is_masked], expected[is_masked], **TOLERANCE)
        stays = F.one_hot(STATES, V + 1).double()
        torch.testing.assert_close(found[~is_masked], stays[~is_masked], **TOLERANCE)


def test_unmask_factor_is_the_total_of_the_step() -> None:
    """The two-draw form of a step: P(leave MASK) = factor * sum of scores, token from the scores over their sum."""
    is_masked = STATES == MASK
    for schedule in (LogLinearSchedule(), GeometricSchedule(0.01, 4.0)):
        sigma = schedule(times(0.6)).sigma
        log_score = exact_log_score(float(sigma[0]))
        score = log_score.exp()[..., :V]
        for predictor in (EulerPredictor(), TweediePredictor()):
            factor = predictor.log_unmask_factor(schedule, times(0.6), times(0.5)).exp()[:, None, None]
            found = step(predictor, schedule, log_score, 0.6, 0.5)[..., :V]
            torch.testing.assert_close(found[is_masked], (factor * score)[is_masked], **TOLERANCE)
        last = denoise_probs(PROCESS, log_score, STATES, sigma)
        expected = F.pad(score / score.sum(-1, keepdim=True), (0, 1))
        torch.testing.assert_close(last[is_masked], expected[is_masked], **TOLERANCE)
        assert (last[..., MASK] == 0).all()
