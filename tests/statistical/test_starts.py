"""Texts noised in part and written back: the law of (text before, text after), enumerated, against 20,000 draws.

With the exact conditionals of a law this leaves the law as it is: a text of it becomes another one of it, and the more
tokens are noised the less they have to do with each other. That is what makes rewritten prefixes plausible.
"""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.sample.predictors import (
    EulerPredictor,
    FirstHittingPredictor,
    Predictor,
    ScorePredictor,
    TweediePredictor,
    denoise_probs,
)
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import Start
from tests.reference import enumerate as oracle
from tests.statistical.chi_square import fits, is_refuted
from tests.statistical.table_network import TableNetwork, UniformTableNetwork, from_table

V, L, NUM_TEXTS = 3, 2, 20_000
LAW = oracle.random_law(V**L, seed=6)
EXACT = oracle.exact_conditionals(LAW, V, L)
TABLE = oracle.random_conditionals(V, L, seed=11)
TEXTS = oracle.all_states(V, L)
INDEX = torch.arange(NUM_TEXTS)
BEFORE = sample_states(LAW.expand(NUM_TEXTS, -1), Draws(0, "texts").uniform_pair(INDEX, 0, INDEX)[0])
SHARES = torch.tensor([0.3, 0.8]).repeat(NUM_TEXTS // 2)
"""Of tokens noised: texts of two kinds in one batch, so that each must begin at a time of its own."""


def started(process: AbsorbingProcess | UniformProcess, schedule: Schedule) -> Start:
    sigma = -torch.log1p(-SHARES)
    u = Draws(1, "noise").uniform_pair(INDEX[:, None], 0, torch.arange(L))
    return Start(process.sample_xt(TEXTS[BEFORE], sigma, u), schedule.time_at(sigma))


def after(sampler: StageSampler, predictor: Predictor, start: Start, num_steps: int) -> Tensor:
    """Numbers of the texts that come out."""
    *_, last = sampler.states(
        None, predictor=predictor, num_steps=num_steps, draws=Draws(2, "back"), sample_index=INDEX, start=start
    )
    return last.xt @ torch.tensor([V, 1])


def joint_counts(found: Tensor, share: float) -> Tensor:
    is_of_share = torch.tensor(share) == SHARES
    return torch.bincount(BEFORE[is_of_share] * V**L + found[is_of_share], minlength=V ** (2 * L))


def rewritten(conditionals: Tensor, share: float) -> Tensor:
    """K[x, x']: the law of the text after, for every text before, written one token at a time."""
    states = oracle.all_states(V + 1, L).tolist()
    completions = torch.stack([oracle.completion_law(conditionals, state, V) for state in states])
    masked = torch.stack([oracle.masked_states(text, share, V) for text in TEXTS.tolist()])
    return masked @ completions


def joint(kernel: Tensor) -> Tensor:
    return (LAW[:, None] * kernel).flatten()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_exact_conditionals_keep_the_law(share: float) -> None:
    """By enumeration; all of it noised, what comes out knows nothing of what went in."""
    kernel = rewritten(EXACT.nan_to_num(), share)
    torch.testing.assert_close(LAW @ kernel, LAW, rtol=0, atol=1e-14)
    if share == 0:
        torch.testing.assert_close(kernel, torch.eye(V**L, dtype=torch.float64), rtol=0, atol=0)
    if share == 1:
        torch.testing.assert_close(kernel, LAW.expand(V**L, -1), rtol=0, atol=1e-14)
    # Power: conditionals of no law do not keep it.
    assert share == 0 or oracle.total_variation(LAW @ rewritten(TABLE, share), LAW) > 0.01


def test_two_exact_models_do_not_keep_the_law() -> None:
    """One of two texts y, and z given it: with y rewritten as well, what is kept of z does not go with what is new."""
    share = 0.5
    laws = torch.stack([oracle.random_law(V**L, seed=seed) for seed in (6, 7)])
    kernels = torch.stack([rewritten(oracle.exact_conditionals(law, V, L).nan_to_num(), share) for law in laws])
    mean = laws.mean(0)
    one = torch.stack([law @ kernel for law, kernel in zip(laws, kernels, strict=True)]).mean(0)
    torch.testing.assert_close(one, mean, rtol=0, atol=1e-14)
    # y, a single token, is noised with probability `share`, and each of its two values is then equally probable.
    swapped = torch.stack([laws[1] @ kernels[0], laws[0] @ kernels[1]]).mean(0)
    two = (1 - share / 2) * one + share / 2 * swapped
    assert oracle.total_variation(two, mean) > 0.01


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), GeometricSchedule()], ids=["loglinear", "geometric"])
@pytest.mark.parametrize("reading", ["score", "normalized"])
def test_first_hitting(reading: str, schedule: Schedule) -> None:
    network = TableNetwork(from_table(TABLE), V, reading)  # type: ignore[arg-type]
    process = AbsorbingProcess(V)
    start = started(process, schedule)
    found = after(StageSampler(network, process, schedule, L), FirstHittingPredictor(), start, 1)
    for share in (0.3, 0.8):
        counts = joint_counts(found, share)
        assert fits(counts, joint(rewritten(TABLE, share)))
        assert is_refuted(counts, joint(rewritten(TABLE, share - 0.1)))
        assert is_refuted(counts, joint(rewritten(EXACT.nan_to_num(), share)))
    # Only what is masked is computed, and a call on a part of the batch counts as its share.
    assert network.num_rows == int((start.xt == V).sum())


@pytest.mark.parametrize("reading", ["score", "normalized"])
@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor()], ids=["euler", "analytic"])
def test_grid(predictor: ScorePredictor, reading: str) -> None:
    """Three steps from the time of each text on: the probabilities of leaving MASK are those of its own grid."""
    process, schedule, num_steps = AbsorbingProcess(V), GeometricSchedule(0.02, 2.5), 3
    network = TableNetwork(from_table(TABLE), V, reading)  # type: ignore[arg-type]
    start = started(process, schedule)
    found = after(StageSampler(network, process, schedule, L), predictor, start, num_steps)

    def expected(share: float, steps: int) -> Tensor:
        first = float(schedule.time_at(-torch.log1p(-torch.tensor(share, dtype=torch.float64))))
        times = torch.linspace(first, 1e-5, steps + 1, dtype=torch.float64)
        sigma, dsigma = schedule(times)
        moved = -torch.expm1(-sigma)
        leave = 1 - moved[1:] / moved[:-1]
        if isinstance(predictor, EulerPredictor):
            leave = (times[:-1] - times[1:]) * (dsigma / torch.expm1(sigma))[:-1]
        rows = [
            oracle.grid_law(TABLE, leave.tolist(), V, L, start=oracle.masked_states(text, share, V))
            for text in TEXTS.tolist()
        ]
        return joint(torch.stack(rows))

    for share in (0.3, 0.8):
        assert fits(joint_counts(found, share), expected(share, num_steps))
        assert is_refuted(joint_counts(found, share), expected(share - 0.1, num_steps))
    # Power: at small noise the number of steps hardly matters, at large noise it does.
    assert is_refuted(joint_counts(found, 0.8), expected(0.8, 1))


def test_uniform_process() -> None:
    """Against the product of the kernels of its steps."""
    process, schedule, num_steps, share = UniformProcess(V), LogLinearSchedule(0.2), 4, 0.6
    states = oracle.all_states(V, L)
    rates = oracle.uniform_rates(V)

    def log_score_of(sigma: float) -> Tensor:
        return oracle.scores(LAW @ oracle.joint_kernel(rates, sigma, L), V, L).log()

    sigma = -torch.log1p(-torch.tensor(share))
    u = Draws(1, "noise").uniform_pair(INDEX[:, None], 0, torch.arange(L))
    noised = process.sample_xt(TEXTS[BEFORE], sigma.expand(NUM_TEXTS), u)
    start = Start(noised, schedule.time_at(sigma).expand(NUM_TEXTS))
    sampler = StageSampler(UniformTableNetwork(log_score_of, V, L), process, schedule, L)
    found = after(sampler, TweediePredictor(), start, num_steps)

    kernel = oracle.joint_kernel(rates, float(sigma), L)
    times = torch.linspace(float(start.t[0]), 1e-5, num_steps + 1)
    for k, time in enumerate(times):
        t = time.expand(len(states))
        log_score = log_score_of(float(schedule(time).sigma))
        if k == num_steps:
            probs = denoise_probs(process, log_score, states, schedule(t).sigma)
        else:
            probs = TweediePredictor().step_probs(process, schedule, log_score, states, t, times[k + 1].expand(len(t)))
        probs = probs.clamp_min(0) / probs.clamp_min(0).sum(-1, keepdim=True)
        kernel = kernel @ (probs[:, 0, :, None] * probs[:, 1, None, :]).flatten(1)
    counts = torch.bincount(BEFORE * V**L + found, minlength=V ** (2 * L))
    assert fits(counts, joint(kernel))
    assert is_refuted(counts, joint(LAW.expand(V**L, -1)))
