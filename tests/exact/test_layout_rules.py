"""Laws of gaps given what layouts must leave room for, against the enumeration of all layouts."""

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.sample.layout import draw_gaps
from cascaded_dllm.sample.layout_rules import LayoutRules
from cascaded_dllm.sample.required import RequiredWords
from tests.reference import placed as reference
from tests.statistical.chi_square import fits, is_refuted
from tests.unit.model.tiny import tiny_placed

N, NEW = 3, 4
LAYOUTS = reference.layouts(N + 1, NEW)


def marginals(log_laws: Tensor, rules: LayoutRules) -> Tensor | None:
    """Of one text: the probability of every size of every gap over all layouts that are allowed."""
    found = torch.zeros(N + 1, NEW + 1, dtype=torch.float64)
    for gaps in LAYOUTS:
        stands = [place - i for i, place in enumerate(reference.places(gaps))]
        if not all(rules.sizes[0, i, g] for i, g in enumerate(gaps)):
            continue
        if not all(rules.places[0, i, d] for i, d in enumerate(stands)):
            continue
        prob = math.exp(sum(float(log_laws[0, i, g]) for i, g in enumerate(gaps)))
        for i, g in enumerate(gaps):
            found[i, g] += prob
    return found / found[0].sum() if found.sum() > 0 else None


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 1.0]))
def test_law_of_independent_gaps_is_exact(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_laws = torch.randn(1, N + 1, NEW + 1, generator=generator, dtype=torch.float64).log_softmax(-1)
    rules = LayoutRules(
        torch.rand(1, N + 1, NEW + 1, generator=generator) < share,
        torch.rand(1, N, NEW + 1, generator=generator) < share,
    )
    expected = marginals(log_laws, rules)
    if expected is None:
        with pytest.raises(ConfigError, match="cannot be laid out around what is pinned or required"):
            rules.log_law(log_laws, torch.tensor([0]))
        return
    for gap in range(N + 1):
        found = rules.log_law(log_laws, torch.tensor([gap]))
        torch.testing.assert_close(found[0].exp(), expected[gap], rtol=1e-9, atol=1e-12)


def test_known_gaps_leave_one_size() -> None:
    """With all gaps known but one, it is what is left."""
    log_laws = torch.full((1, N + 1, NEW + 1), -torch.inf)
    log_laws[0, [0, 1, 3], [1, 0, 2]] = 0
    log_laws[0, 2] = -math.log(NEW + 1)
    free = LayoutRules.build(torch.zeros(1, N, dtype=torch.long), NEW + 1, pinned={})
    assert free.log_law(log_laws, torch.tensor([2]))[0].exp().tolist() == [0, 1, 0, 0, 0]


def test_rules_of_pins() -> None:
    """A token may stand on a pinned one that is the same, and nowhere else on what is pinned."""
    rules = LayoutRules.build(torch.tensor([[5, 6, 7]]), NEW + 1, pinned={0: 5, 3: 6})
    assert rules.sizes.all()
    # Token i stands at i + d.
    assert (~rules.places[0]).nonzero().tolist() == [[0, 3], [2, 1]]


def test_rules_of_words() -> None:
    """Between known tokens stand those of the words, and inside of a word no others."""
    words = [[(9, 5), (8,), (6, 4, 7)], [(5,), (6,), (7,)]]
    rules = LayoutRules.build(torch.tensor([[5, 6, 7], [5, 6, 7]]), NEW + 1, pinned={}, words=words)
    allowed = [[row.nonzero()[:, 0].tolist() for row in text] for text in rules.sizes]
    everything = list(range(NEW + 1))
    assert allowed == [[everything[1:], everything[1:], [1], everything], [everything] * 4]
    assert rules.places.all()
    with pytest.raises(ConfigError, match="holds the id 6, which the required words do not hold in its place"):
        LayoutRules.build(torch.tensor([[5, 6, 7]]), NEW + 1, pinned={}, words=[[(6, 5), (7,)]])


@pytest.mark.parametrize("words", [[(9, 5), (8,), (6, 4, 7)], [(5,), (8, 8), (6,), (7, 2)], [(5, 6), (7,)]])
@pytest.mark.parametrize("pinned", [{}, {2: 1}, {1: 5, 5: 1}, {3: 8}, {0: 9, 6: 2}])
def test_a_layout_leaves_room_exactly_where_the_fill_can_be_written(
    words: list[tuple[int, ...]], pinned: dict[int, int]
) -> None:
    """Beside pins, against the automaton of the words on every layout."""
    z = torch.tensor([[5, 6, 7]])
    rules = LayoutRules.build(z, NEW + 1, pinned=pinned, words=[words])
    automaton, mask_id, num_possible = RequiredWords.build([words]), 99, 0
    for gaps in LAYOUTS:
        stands = reference.places(gaps)
        text = [pinned.get(place, mask_id) for place in range(N + NEW)]
        is_free = all(text[place] in (mask_id, token) for place, token in zip(stands, z[0].tolist(), strict=True))
        for place, token in zip(stands, z[0].tolist(), strict=True):
            text[place] = token
        can_be_written = is_free and bool(automaton.are_possible(torch.tensor([text]), mask_id))
        before, keeps = 0, True
        for gap, size in enumerate(gaps):
            keeps &= bool(rules.sizes[0, gap, size])
            keeps &= gap not in rules.room or bool(rules.room[gap][before, before + size])
            before += size
            keeps &= gap == N or bool(rules.places[0, gap, before])
        # The automaton may find the words elsewhere, but whatever keeps the rules can be written.
        assert can_be_written or not keeps, (gaps, text)
        num_possible += keeps
    if num_possible:
        rules.require_possible()
    else:
        with pytest.raises(ConfigError, match="cannot be laid out around what is pinned or required"):
            rules.require_possible()
    if not pinned:
        assert num_possible > 0


def test_drawn_layouts_follow_the_law_of_the_rules() -> None:
    """Gap after gap in a random order, each from the network's laws given the rules; no other layout is drawn."""
    model, num_texts = tiny_placed(N, NEW, vocab_size=9).layout, 20_000
    z = torch.tensor([[5, 6, 7]])
    rules = LayoutRules.build(z, NEW + 1, pinned={0: 5, 3: 6, 6: 1})
    many = z.expand(num_texts, -1)
    hidden = torch.full((num_texts, N + 1), model.hidden_label)
    for_all = LayoutRules(rules.sizes.expand(num_texts, -1, -1), rules.places.expand(num_texts, -1, -1))
    gaps = draw_gaps(model, many, hidden, draws=Draws(1, "rules"), sample_index=torch.arange(num_texts), rules=for_all)
    exact = law_under_rules(model, z, rules)
    found = torch.tensor([(gaps == torch.tensor(gap)).all(-1).sum() for gap in exact])
    assert int(found.sum()) == num_texts
    law = torch.tensor(list(exact.values()), dtype=torch.float64)
    assert fits(found, law / law.sum())
    assert is_refuted(found, torch.full_like(law, 1 / len(law)))
    with pytest.raises(ConfigError, match="pin less, or elsewhere"):
        LayoutRules.build(z, NEW + 1, pinned=dict.fromkeys((0, 1, 2, 3, 5), 8)).require_possible()


def law_under_rules(model: LayoutModel, z: Tensor, rules: LayoutRules) -> dict[reference.Gaps, float]:
    """The probability of every layout that is allowed: over all orders, each gap from its enumerated marginal."""

    @functools.cache
    def laws(known: tuple[tuple[int, int], ...]) -> Tensor | None:
        labels = torch.full((1, N + 1), model.hidden_label)
        for gap, size in known:
            labels[0, gap] = size
        with torch.no_grad():
            log_laws = model(z, labels).log_softmax(-1)
        for gap, size in known:
            log_laws[0, gap] = torch.where(torch.arange(NEW + 1) == size, 0.0, -torch.inf)
        return marginals(log_laws, rules)

    total = dict.fromkeys(LAYOUTS, 0.0)
    orders = list(itertools.permutations(range(N + 1)))
    for gaps in LAYOUTS:
        for order in orders:
            prob = 1 / len(orders)
            known: tuple[tuple[int, int], ...] = ()
            for gap in order:
                found = laws(known)
                prob *= 0.0 if found is None else float(found[gap, gaps[gap]])
                if prob == 0:
                    break
                known = tuple(sorted((*known, (gap, gaps[gap]))))
            total[gaps] += prob
    return {gaps: prob for gaps, prob in total.items() if prob > 0}


def law_of_few_calls(model: LayoutModel, z: list[int], per_call: int) -> Tensor:
    """The probability of every layout where `per_call` gaps are drawn from one answer, over all orders."""

    @functools.cache
    def law_of(known: tuple[tuple[int, int], ...], gap: int) -> list[float]:
        return reference.gap_law(model, z, dict(known), gap)

    total = dict.fromkeys(LAYOUTS, 0.0)
    orders = list(itertools.permutations(range(N + 1)))
    for gaps in LAYOUTS:
        for order in orders:
            prob = 1.0
            known: dict[int, int] = {}
            asked: dict[int, int] = {}
            for turn, gap in enumerate(order):
                if turn % per_call == 0:
                    asked = dict(known)
                left = NEW - sum(known.values())
                if len(known) == N:
                    prob *= float(gaps[gap] == left)
                else:
                    law = law_of(tuple(sorted(asked.items())), gap)
                    possible = [p if size <= left else 0.0 for size, p in enumerate(law)]
                    prob *= possible[gaps[gap]] / sum(possible)
                known[gap] = gaps[gap]
            total[gaps] += prob / len(orders)
    return torch.tensor(list(total.values()), dtype=torch.float64)


def several_gaps_model() -> LayoutModel:
    return tiny_placed(N, NEW, vocab_size=9, seed=2, dtype=torch.float64).layout


@functools.cache
def law_of_calls(count: int) -> Tensor:
    return law_of_few_calls(several_gaps_model(), [5, 6, 7], count)


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 2, 3])
def test_several_gaps_of_a_call(per_call: int) -> None:
    model, num_texts = several_gaps_model(), 24_000
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    gaps = draw_gaps(
        model,
        torch.tensor([[5, 6, 7]]).expand(num_texts, -1),
        torch.full((num_texts, N + 1), model.hidden_label),
        draws=Draws(5, "few"),
        sample_index=torch.arange(num_texts),
        gaps_per_call=per_call,
    )
    assert len(calls) == -(-N // per_call)
    found = torch.tensor([(gaps == torch.tensor(gap)).all(-1).sum() for gap in LAYOUTS])
    assert fits(found, law_of_calls(per_call))
    assert is_refuted(found, torch.full((len(LAYOUTS),), 1 / len(LAYOUTS), dtype=torch.float64))
    if per_call == 3:
        assert is_refuted(found, law_of_calls(1)), "a network whose gaps are independent would prove nothing"
