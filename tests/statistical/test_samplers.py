"""The real `StageSampler` on a network that answers from a table: 20,000 texts against the law they must have.

Tables of random conditionals belong to no law, so that it matters in which order and how many at a time tokens appear:
the expected laws are enumerated step by step (`grid_law`) or order by order (`any_order_law`).
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.sample.predictors import (
    AncestralPredictor,
    EulerPredictor,
    FirstHittingPredictor,
    Predictor,
    RemaskPredictor,
    ScorePredictor,
    SurestPredictor,
    TweediePredictor,
    denoise_probs,
)
from cascaded_dllm.sample.required import Word
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import Start
from cascaded_dllm.sample.token_law import UNCHANGED, TokenLaw
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
GRID = [EulerPredictor(), TweediePredictor(), AncestralPredictor(), RemaskPredictor(0.7)]
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
    law: TokenLaw = UNCHANGED,
    words: list[Word] | None = None,
    first: list[Word] | None = None,
    start: list[int] | None = None,
    num_texts: int = NUM_TEXTS,
) -> tuple[Tensor, TableNetwork]:
    network = TableNetwork(conditionals, vocab_size, reading)
    sampler = StageSampler(network, AbsorbingProcess(vocab_size), schedule or LogLinearSchedule(), length)
    *_, last = sampler.states(
        None,
        predictor=predictor,
        num_steps=num_steps,
        draws=Draws(2, "samplers"),
        sample_index=torch.arange(num_texts),
        law=law,
        required=None if words is None else [words] * num_texts,
        words=None if first is None else [first] * num_texts,
        start=None if start is None else Start(torch.tensor([start] * num_texts), torch.ones(num_texts)),
    )
    return last.xt, network


def counts(texts: Tensor, vocab_size: int = V) -> Tensor:
    index = sum(texts[:, i] * vocab_size ** (texts.shape[1] - 1 - i) for i in range(texts.shape[1]))
    return torch.bincount(index, minlength=vocab_size ** texts.shape[1])


@functools.cache
def expected_grid_law(predictor: Predictor, schedule: Schedule, num_steps: int) -> Tensor:
    """Written out from the formulas of the step: Euler (t - s) dsigma / expm1(sigma), Tweedie 1 - m_s / m_t."""
    times = torch.linspace(1, 1e-5, num_steps + 1, dtype=torch.float64)
    sigma, dsigma = schedule(times)
    moved = -torch.expm1(-sigma)
    if isinstance(predictor, RemaskPredictor):
        m_t, m_s = moved[:-1], moved[1:]
        again = predictor.eta * (m_s / (1 - m_t)).clamp_max(1)
        leave = ((1 - m_s) - (1 - again) * (1 - m_t)) / m_t
        return oracle.grid_law(TABLE, leave.tolist(), V, L, again_probs=again.tolist())
    if isinstance(predictor, EulerPredictor):
        leave = (times[:-1] - times[1:]) * (dsigma / torch.expm1(sigma))[:-1]
    else:
        leave = 1 - moved[1:] / moved[:-1]
    return oracle.grid_law(TABLE, leave.tolist(), V, L)


@EACH_READING
@pytest.mark.parametrize("schedule", [LogLinearSchedule(), MILD], ids=["loglinear", "geometric"])
@pytest.mark.parametrize("predictor", GRID, ids=lambda predictor: predictor.name)
def test_few_steps(predictor: Predictor, schedule: Schedule, reading: Reading) -> None:
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
    ("predictor", "num_steps"),
    [
        pytest.param(EulerPredictor(), 256, marks=pytest.mark.slow),  # For log-linear noise it is the next one.
        (TweediePredictor(), 256),
        (AncestralPredictor(), 256),
        (FirstHittingPredictor(), 1),
    ],
)
def test_exact_network_writes_the_data(predictor: Predictor, num_steps: int, reading: Reading) -> None:
    texts, _ = sampled(from_table(EXACT), predictor, reading=reading, num_steps=num_steps)
    assert fits(counts(texts), LAW)
    assert is_refuted(counts(texts), 0.97 * LAW + 0.03 / len(LAW))


@EACH_READING
@pytest.mark.parametrize("per_call", [2, 3, 5])
def test_several_tokens_a_call(per_call: int, reading: Reading) -> None:
    """Groups of a random order; the last one may be smaller. Not the law of one token a call."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=31)
    texts, network = sampled(from_table(table), FirstHittingPredictor(per_call), reading=reading, length=length)
    assert fits(counts(texts), oracle.any_order_law(table, V, length, per_call))
    # Power: neither more a call nor fewer.
    for other in {1, 2, 3} - {min(per_call, length)}:
        assert is_refuted(counts(texts), oracle.any_order_law(table, V, length, other))
    assert len(network.noise) == math.ceil(length / per_call)
    assert network.num_rows == length * NUM_TEXTS


@EACH_READING
@pytest.mark.parametrize("per_call", [1, 2])
@pytest.mark.parametrize("measure", ["confidence", "entropy"])
def test_surest_first(measure: Literal["confidence", "entropy"], per_call: int, reading: Reading) -> None:
    length = 3
    table = oracle.random_conditionals(V, length, seed=5)
    # With nothing written yet the measures rank the positions 2, 1, 0 and 0, 2, 1.
    table[-1] = torch.tensor([[0.5, 0.49, 0.01], [0.55, 0.225, 0.225], [0.6, 0.2, 0.2]])
    expected = oracle.surest_first_law(table, V, length, measure, per_call)
    predictor = SurestPredictor(measure, per_call)
    texts, network = sampled(from_table(table), predictor, reading=reading, length=length)
    assert fits(counts(texts), expected)
    assert len(network.noise) == math.ceil(length / per_call)
    # Power: neither the other measure, nor another number a call, nor a random order has this law.
    other = "entropy" if measure == "confidence" else "confidence"
    assert is_refuted(counts(texts), oracle.surest_first_law(table, V, length, other, per_call))
    assert is_refuted(counts(texts), oracle.surest_first_law(table, V, length, measure, 3 - per_call))
    assert is_refuted(counts(texts), oracle.any_order_law(table, V, length, per_call))


@pytest.mark.slow
@EACH_READING
@pytest.mark.parametrize("measure", ["confidence", "entropy"])
@pytest.mark.parametrize("temperature", [0.0, 0.05, 3.0])
def test_surest_first_at_a_temperature(
    temperature: float, measure: Literal["confidence", "entropy"], reading: Reading
) -> None:
    """The order is that of the network's own law: at temperature zero all would be equally sure."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=5)
    table[-1] = torch.tensor([[0.5, 0.49, 0.01], [0.55, 0.225, 0.225], [0.6, 0.2, 0.2]])
    law = TokenLaw(temperature=temperature)
    drawn = changed(table, law)
    texts, _ = sampled(from_table(table), SurestPredictor(measure), reading=reading, length=length, law=law)
    assert fits(counts(texts), oracle.surest_first_law(table, V, length, measure, 1, drawn))
    # Power: a random order has another law.
    assert is_refuted(counts(texts), oracle.any_order_law(drawn, V, length))
    if temperature == 0:
        assert len(texts.unique(dim=0)) == 1


def test_masking_again_costs_calls() -> None:
    """Written tokens are written anew, which the exact network has no need of; its law is left nearly as it is."""
    rows = []
    for eta in (0.0, 0.2):
        texts, network = sampled(from_table(EXACT), RemaskPredictor(eta), reading="normalized", num_steps=64)
        assert oracle.total_variation(counts(texts) / NUM_TEXTS, LAW) < 0.03
        rows.append(network.num_rows / NUM_TEXTS)
    assert rows[0] == L
    assert rows[1] > 1.5 * L


@EACH_READING
@pytest.mark.parametrize(
    "law",
    [
        TokenLaw(temperature=0.5),
        TokenLaw(top_k=2),
        TokenLaw(top_p=0.7),
        TokenLaw(temperature=0.0),
        TokenLaw(temperature=2.0, top_k=2, top_p=0.9),
    ],
    ids=str,
)
def test_law_of_a_token_is_changed(law: TokenLaw, reading: Reading) -> None:
    """First hitting with the change is first hitting with the changed table, written out."""
    texts, _ = sampled(from_table(TABLE), FirstHittingPredictor(), reading=reading, law=law)
    assert fits(counts(texts), oracle.any_order_law(changed(TABLE, law), V, L))
    assert is_refuted(counts(texts), oracle.any_order_law(TABLE, V, L))


def changed(table: Tensor, law: TokenLaw, always: Sequence[int] = ()) -> Tensor:
    """The table with its laws changed, of which the tokens `always` are not cut off."""
    tempered = table ** (1 / law.temperature if law.temperature else 1)
    tempered /= tempered.sum(-1, keepdim=True)
    ordered, order = tempered.sort(-1, descending=True)
    ordered[..., 1 if law.temperature == 0 else law.top_k or V :] = 0
    ordered /= ordered.sum(-1, keepdim=True)
    is_kept = torch.zeros_like(tempered).scatter(-1, order, (ordered.cumsum(-1) - ordered < law.top_p).to(table)) > 0
    is_kept &= torch.zeros_like(tempered).scatter(-1, order, ordered) > 0
    is_kept[..., list(always)] = True
    kept = tempered * is_kept
    return kept / kept.sum(-1, keepdim=True)


WORDS: list[list[Word]] = [[(0,)], [(0,), (1,)], [(1, 0)], [(0, 0), (0,)], [(0, 1, 0)], []]


@pytest.mark.parametrize(("reading", "per_call"), [("score", 1), ("normalized", 2)])
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_required_words(words: list[Word], per_call: int, reading: Reading) -> None:
    """Every call is drawn from the law of the masked positions given the words; all texts contain them."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=8)
    expected = oracle.required_law(table, words, V, length, per_call, [V] * length)
    predictor = FirstHittingPredictor(per_call)
    texts, _ = sampled(from_table(table), predictor, reading=reading, length=length, words=words)
    assert all(oracle.contains_in_order(text, words) for text in texts.unique(dim=0).tolist())
    assert fits(counts(texts), expected)
    if 0 < sum(map(len, words)) < length:
        # Power: it is not the law of unconditioned texts, those without the words thrown away.
        kept = torch.tensor([oracle.contains_in_order(text, words) for text in oracle.all_states(V, length).tolist()])
        free = oracle.any_order_law(table, V, length, per_call) * kept
        assert is_refuted(counts(texts), free / free.sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    "law", [TokenLaw(top_k=2), TokenLaw(top_k=1), TokenLaw(top_p=0.5), TokenLaw(temperature=0.6, top_p=0.8)], ids=str
)
@pytest.mark.parametrize("words", [[(0,)], [(1,), (0,)], [(2, 0)]], ids=str)
def test_required_words_of_a_changed_law(words: list[Word], law: TokenLaw) -> None:
    """What is cut off is never written, but for the words themselves."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=8)
    of_words = changed(table, law, always=[token for word in words for token in word])
    texts, _ = sampled(
        from_table(table), FirstHittingPredictor(2), reading="normalized", length=length, words=words, law=law
    )
    assert fits(counts(texts), oracle.required_law(of_words, words, V, length, 2, [V] * length))
    assert is_refuted(counts(texts), oracle.required_law(table, words, V, length, 2, [V] * length))


@pytest.mark.parametrize("temperature", [0.0, 1e-39])
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_words_stand_where_they_cost_least(words: list[Word], temperature: float) -> None:
    """The most probable of the texts that contain them, if all is written in one call."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=8)
    law = oracle.required_law(table, words, V, length, length, [V] * length)
    texts, _ = sampled(
        from_table(table),
        FirstHittingPredictor(length),
        reading="normalized",
        length=length,
        words=words,
        law=TokenLaw(temperature=temperature),
        num_texts=20,
    )
    assert counts(texts).nonzero().flatten().tolist() == [int(law.argmax())]


@pytest.mark.slow
@EACH_READING
@pytest.mark.parametrize("predictor", [*GRID, SurestPredictor("entropy", 2)], ids=lambda predictor: predictor.name)
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_required_words_whatever_the_predictor(words: list[Word], predictor: Predictor, reading: Reading) -> None:
    table = oracle.random_conditionals(V, 3, seed=8)
    texts, _ = sampled(from_table(table), predictor, reading=reading, num_steps=4, length=3, words=words, num_texts=500)
    assert all(oracle.contains_in_order(text, words) for text in texts.unique(dim=0).tolist())
    assert len(texts.unique(dim=0)) > 1 or sum(map(len, words)) == 3


FIRST: list[list[Word]] = [[(0,)], [(0,), (1,)], [(1, 0)], [(0,), (0,)], [(2,), (0, 1)], [(0, 1, 0)], []]
QUICK_FIRST = ([(0,)], [(1, 0)])


@pytest.mark.parametrize(("reading", "per_call"), [("score", 1), pytest.param("normalized", 2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "words",
    [words if words in QUICK_FIRST else pytest.param(words, marks=pytest.mark.slow) for words in FIRST],
    ids=str,
)
def test_words_before_all_else(words: list[Word], per_call: int, reading: Reading) -> None:
    """Their places one after another, eight times over, and then the rest from its own law given them."""
    length = 3
    table = oracle.random_conditionals(V, length, seed=8)
    texts, network = sampled(
        from_table(table), FirstHittingPredictor(per_call), reading=reading, length=length, first=words
    )
    assert all(oracle.contains_in_order(text, words) for text in texts.unique(dim=0).tolist())
    assert fits(counts(texts), oracle.words_first_law(table, words, V, length, per_call, [V] * length, 8))
    assert len(network.noise) == 8 * len(words) + math.ceil((length - sum(map(len, words))) / per_call)
    if 0 < sum(map(len, words)) < length:
        # Power: words that are written among all else have another law.
        among = oracle.required_law(table, words, V, length, per_call, [V] * length)
        assert is_refuted(counts(texts), among)
    if len(words) == 2 and sum(map(len, words)) < length:
        # One placing is told apart too.
        assert is_refuted(counts(texts), oracle.words_first_law(table, words, V, length, per_call, [V] * length, 1))


def test_words_first_find_a_text_that_has_a_place_for_them() -> None:
    """Where few texts are possible, words among all else make others; words first do so seldom."""
    length, words = 3, [(0,)]
    law = torch.full((V**length,), 1e-4, dtype=torch.float64)
    possible = [[0, 1, 2], [1, 2, 0], [2, 2, 1], [1, 1, 1], [2, 1, 1]]
    law[[oracle.index_of(text, V) for text in possible]] = 1.0
    exact = oracle.exact_conditionals(law / law.sum(), V, length)
    share = {}
    for how in ("words", "first"):
        texts, _ = sampled(
            from_table(exact), FirstHittingPredictor(), reading="normalized", length=length, **{how: words}
        )
        share[how] = sum((texts == torch.tensor(text)).all(-1).double().mean().item() for text in possible[:2])
    assert share["first"] > 0.99
    assert share["words"] < 0.9


@pytest.mark.slow
def test_words_that_stand_there_are_taken() -> None:
    """Text that is pinned may hold a word; the next one comes behind it, and nothing before it is read."""
    table = oracle.random_conditionals(V, 4, seed=8)
    start, words = [V, 0, V, V], [(0,), (1,)]
    texts, _ = sampled(
        from_table(table), FirstHittingPredictor(), reading="normalized", length=4, first=words, start=start
    )
    assert fits(counts(texts), oracle.words_first_law(table, words, V, 4, 1, start, 8))
    assert is_refuted(counts(texts), oracle.words_first_law(table, words[1:], V, 4, 1, start, 8))


@pytest.mark.slow
@EACH_READING
@pytest.mark.parametrize("predictor", [*GRID, SurestPredictor("entropy", 2)], ids=lambda predictor: predictor.name)
@pytest.mark.parametrize("words", FIRST, ids=str)
def test_words_first_whatever_the_predictor(words: list[Word], predictor: Predictor, reading: Reading) -> None:
    table = oracle.random_conditionals(V, 3, seed=8)
    texts, _ = sampled(from_table(table), predictor, reading=reading, num_steps=4, length=3, first=words, num_texts=500)
    assert all(oracle.contains_in_order(text, words) for text in texts.unique(dim=0).tolist())
    assert len(texts.unique(dim=0)) > 1 or sum(map(len, words)) == 3


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


@pytest.mark.slow
@EACH_READING
@pytest.mark.parametrize("predictor", [EulerPredictor(), TweediePredictor(), FirstHittingPredictor()])
def test_words_in_several_blocks_of_columns(predictor: Predictor, reading: Reading) -> None:
    """Words that are tokens 0, 128 and 256 of 384: what decides when a position moves must not choose its token."""
    spread = 128
    texts, _ = sampled(
        from_table(TABLE, spread=spread),
        predictor,
        reading=reading,
        num_steps=3,
        vocab_size=spread * V,
        num_texts=8_000,
    )
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
