"""The real `StageSampler` on a network that answers from a table: 20,000 texts against the law they must have.

Tables of random conditionals belong to no law, so that it matters in which order and how many at a time tokens appear:
the expected laws are enumerated step by step (`grid_law`) or order by order (`any_order_law`).
"""

import functools
from typing import Literal

import pytest
import torch
from torch import Tensor

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
from tests.reference import enumerate as oracle
from tests.statistical.chi_square import fits, is_refuted
from tests.statistical.table_network import Conditionals, TableNetwork, UniformTableNetwork, from_table

V, L = 3, 2
NUM_TEXTS = 20_000
TABLE = oracle.random_conditionals(V, L, seed=11)
LAW = oracle.random_law(V**L, seed=6)
EXACT = oracle.exact_conditionals(LAW, V, L)
MILD = GeometricSchedule(0.02, 2.5)
Reading = Literal["score", "normalized"]
EACH_READING = pytest.mark.parametrize("reading", ["score", "normalized"])


def sampled(
    conditionals: Conditionals,
    predictor: Predictor,
    *,
    reading: Reading,
    num_steps: int = 1,
    schedule: Schedule | None = None,
    vocab_size: int = V,
    length: int = L,
) -> tuple[Tensor, TableNetwork]:
    network = TableNetwork(conditionals, vocab_size, reading)
    sampler = StageSampler(network, AbsorbingProcess(vocab_size), schedule or LogLinearSchedule(), length)
    *_, last = sampler.states(
        None, predictor=predictor, num_steps=num_steps, draws=Draws(2, "samplers"), sample_index=torch.arange(NUM_TEXTS)
    )
    return last.xt, network


def counts(texts: Tensor, vocab_size: int = V) -> Tensor:
    index = sum(texts[:, i] * vocab_size ** (texts.shape[1] - 1 - i) for i in range(texts.shape[1]))
    return torch.bincount(index, minlength=vocab_size ** texts.shape[1])


@functools.cache
def expected_grid_law(predictor: ScorePredictor, schedule: Schedule, num_steps: int) -> Tensor:
    """Written out from the formulas of the step: Euler (t - s) dsigma / expm1(sigma), Tweedie 1 - m_s / m_t."""
    times = torch.linspace(1, 1e-5, num_steps + 1, dtype=torch.float64)
    sigma, dsigma = schedule(times)
    moved = -torch.expm1(-sigma)
    if isinstance(predictor, EulerPredictor):
        leave = (times[:-1] - times[1:]) * (dsigma / torch.expm1(sigma))[:-1]
    else:
        leave = 1 - moved[1:] / moved[:-1]
    return oracle.grid_law(TABLE, leave.tolist(), V, L)


@EACH_READING
@pytest.mark.parametrize("schedule", [LogLinearSchedule(), MILD], ids=["loglinear", "geometric"])
@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor()], ids=["euler", "analytic"])
def test_few_steps(predictor: ScorePredictor, schedule: Schedule, reading: Reading) -> None:
    """Four steps, where many tokens leave together and the law is far from any order."""
    texts, _ = sampled(from_table(TABLE), predictor, reading=reading, num_steps=4, schedule=schedule)
    found = counts(texts)
    assert fits(found, expected_grid_law(predictor, schedule, 4))
    # Power: one step less is told apart, and so is the law of infinitely many.
    assert is_refuted(found, expected_grid_law(predictor, schedule, 3))
    assert is_refuted(found, oracle.any_order_law(TABLE, V, L))


@EACH_READING
@pytest.mark.parametrize("length", [1, 2, 3])
def test_first_hitting_is_any_order(length: int, reading: Reading) -> None:
    table = oracle.random_conditionals(V, length, seed=20 + length)
    texts, network = sampled(from_table(table), FirstHittingPredictor(), reading=reading, length=length)
    assert fits(counts(texts), oracle.any_order_law(table, V, length))
    assert (len(network.noise), network.num_rows) == (length, length * NUM_TEXTS)
    # Power: in this law the order matters enough for any two orders to be told apart.
    if length > 1:
        assert is_refuted(counts(texts), left_to_right_law(table, length))


def left_to_right_law(table: Tensor, length: int) -> Tensor:
    law = torch.ones(V**length, dtype=torch.float64)
    for i, text in enumerate(oracle.all_states(V, length).tolist()):
        for position in range(length):
            seen = oracle.index_of([*text[:position], *[V] * (length - position)], V + 1)
            law[i] *= table[seen, position, text[position]]
    return law


@EACH_READING
@pytest.mark.parametrize(
    ("predictor", "num_steps"), [(EulerPredictor(), 256), (TweediePredictor(), 256), (FirstHittingPredictor(), 1)]
)
def test_exact_network_writes_the_data(predictor: Predictor, num_steps: int, reading: Reading) -> None:
    texts, _ = sampled(from_table(EXACT), predictor, reading=reading, num_steps=num_steps)
    assert fits(counts(texts), LAW)
    assert is_refuted(counts(texts), 0.97 * LAW + 0.03 / len(LAW))


def test_first_hitting_times() -> None:
    """With n masks left m_next / m is distributed as u^(1/n): its n-th power is uniform, step by step."""
    cells = 40
    even = torch.full((cells,), 1 / cells, dtype=torch.float64)
    for schedule in (LogLinearSchedule(), GeometricSchedule()):
        _, network = sampled(
            from_table(oracle.random_conditionals(V, 3, seed=1)),
            FirstHittingPredictor(),
            reading="normalized",
            schedule=schedule,
            length=3,
        )
        before = -torch.expm1(-schedule(torch.ones(NUM_TEXTS)).sigma.double())
        for left, sigma in zip((3, 2, 1), network.noise, strict=True):
            moved = -torch.expm1(-sigma.double())
            # Rounded to float32, two times may be the same.
            ratio = (moved / before).clamp_max(1 - 1e-9)
            assert fits(torch.bincount((ratio**left * cells).long(), minlength=cells), even)
            assert is_refuted(torch.bincount((ratio ** (left + 1) * cells).long(), minlength=cells), even)
            before = moved


@EACH_READING
@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor(), FirstHittingPredictor()])
def test_words_in_several_blocks_of_columns(predictor: Predictor, reading: Reading) -> None:
    """Words that are tokens 0, 128 and 256 of 384: what decides when a position moves must not choose its token."""
    spread = 128
    texts, _ = sampled(from_table(TABLE, spread=spread), predictor, reading=reading, num_steps=3, vocab_size=spread * V)
    assert (texts % spread == 0).all()
    if isinstance(predictor, FirstHittingPredictor):
        expected = oracle.any_order_law(TABLE, V, L)
    else:
        expected = expected_grid_law(predictor, LogLinearSchedule(), 3)
    assert fits(counts(texts // spread), expected)


@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor()], ids=["euler", "analytic"])
def test_uniform_process(predictor: ScorePredictor) -> None:
    """Against the product of the kernels of its steps, from uniform noise on."""
    process, schedule, num_steps = UniformProcess(V), LogLinearSchedule(0.2), 6
    states = oracle.all_states(V, L)

    @functools.cache
    def log_score_of(sigma: float) -> Tensor:
        noisy = LAW @ oracle.joint_kernel(oracle.uniform_rates(V), sigma, L)
        return oracle.scores(noisy, V, L).log()

    times = torch.linspace(1, 1e-5, num_steps + 1)
    law = torch.full((V**L,), V**-L, dtype=torch.float64)
    laws = [law]
    for k, time in enumerate(times):
        t = time.expand(len(states))
        log_score = log_score_of(float(schedule(time).sigma))
        if k == num_steps:
            probs = denoise_probs(process, log_score, states, schedule(t).sigma)
        else:
            probs = predictor.step_probs(process, schedule, log_score, states, t, times[k + 1].expand(len(states)))
        probs = probs.clamp_min(0) / probs.clamp_min(0).sum(-1, keepdim=True)
        law = law @ (probs[:, 0, :, None] * probs[:, 1, None, :]).flatten(1)
        laws.append(law)

    sampler = StageSampler(UniformTableNetwork(log_score_of, V, L), process, schedule, L)
    states_seen = list(
        sampler.states(
            None,
            predictor=predictor,
            num_steps=num_steps,
            draws=Draws(4, "uniform"),
            sample_index=torch.arange(NUM_TEXTS),
        )
    )
    assert len(states_seen) == num_steps + 2
    for k, state in enumerate(states_seen):
        assert fits(counts(state.xt), laws[k]), f"after step {k}"
    assert is_refuted(counts(states_seen[-1].xt), laws[0])
    assert is_refuted(counts(states_seen[-2].xt), laws[-3])
