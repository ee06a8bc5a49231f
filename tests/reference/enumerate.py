"""Slow and obvious oracles: every state is listed, every sum is written out, float64 throughout.

Nothing here imports the package, so that a fault of the package cannot hide in its own test. A text of L tokens over
V words is a row of `all_states(V, L)`; with MASK = V the states are those of `all_states(V + 1, L)`. A law is a vector
over states. Rate matrices act from the left on states and from the right on laws: Q[i, j] is the rate i -> j.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor


def absorbing_rates(vocab_size: int) -> Tensor:
    """Every token turns into MASK at rate 1; MASK stays."""
    rates = torch.zeros(vocab_size + 1, vocab_size + 1, dtype=torch.float64)
    for token in range(vocab_size):
        rates[token, token] = -1
        rates[token, vocab_size] = 1
    return rates


def uniform_rates(num_states: int) -> Tensor:
    """Every token jumps to each state, itself included, at rate 1 / N."""
    rates = torch.full((num_states, num_states), 1 / num_states, dtype=torch.float64)
    return rates - torch.eye(num_states, dtype=torch.float64)


def kernel(rates: Tensor, sigma: float) -> Tensor:
    """K[i, j] = p(xt = j | x0 = i) after total noise sigma."""
    return matrix_exp(sigma * rates)


def matrix_exp(matrix: Tensor) -> Tensor:
    """The matrix exponential to 2e-15.

    As a batch of two, because torch 2.13 approximates a single matrix of norm 0.02 to 0.1 with an error of up to 1e-10.
    """
    return torch.linalg.matrix_exp(torch.stack([matrix, matrix]))[0]


def joint_kernel(rates: Tensor, sigma: float, length: int) -> Tensor:
    """The kernel of `length` tokens that are noised independently."""
    one = kernel(rates, sigma)
    joint = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(length):
        joint = torch.kron(joint, one)
    return joint


def all_states(num_states: int, length: int) -> Tensor:
    """All texts, in lexicographic order, one a row."""
    return torch.tensor(list(itertools.product(range(num_states), repeat=length)))


def index_of(state: list[int], num_states: int) -> int:
    """The row of `all_states` that holds `state`."""
    index = 0
    for token in state:
        index = index * num_states + token
    return index


def random_law(size: int, seed: int) -> Tensor:
    """A law without zeros, some states far more probable than others."""
    weights = torch.from_numpy(np.random.default_rng(seed).gamma(0.7, size=size)) + 1e-3
    return weights / weights.sum()


def with_mask(law: Tensor, vocab_size: int, length: int) -> Tensor:
    """The same law of texts, over the states that also know MASK."""
    wider = torch.zeros((vocab_size + 1) ** length, dtype=torch.float64)
    for probability, state in zip(law, all_states(vocab_size, length).tolist(), strict=True):
        wider[index_of(state, vocab_size + 1)] = probability
    return wider


def scores(law: Tensor, num_states: int, length: int) -> Tensor:
    """score[x, l, y] = law(x with x_l replaced by y) / law(x)."""
    states = all_states(num_states, length).tolist()
    result = torch.empty(len(states), length, num_states, dtype=torch.float64)
    for i, state in enumerate(states):
        for position in range(length):
            for token in range(num_states):
                changed = [*state[:position], token, *state[position + 1 :]]
                result[i, position, token] = law[index_of(changed, num_states)] / law[i]
    return result


def score_entropy(rates: Tensor, sigma: float, score: Tensor, xt: int, x0: int) -> float:
    """Lou et al. 2024, Eq. 9-10, at one position: the sum over y != xt, term by term."""
    probability = kernel(rates, sigma)[x0]
    total = 0.0
    for y in range(len(rates)):
        if y != xt and rates[y, xt] > 0:
            ratio = float(probability[y] / probability[xt])
            constant = ratio * (math.log(ratio) - 1) if ratio > 0 else 0.0
            cross = ratio * math.log(score[y]) if ratio > 0 else 0.0
            total += float(rates[y, xt]) * (float(score[y]) - cross + constant)
    return total


def entropy(law: Tensor) -> float:
    """H in nats."""
    return -sum(p * math.log(p) for p in law.tolist() if p > 0)


def mutual_information(law: Tensor, transition: Tensor) -> float:
    """I(x0; xt) for x0 from `law` and xt from the row x0 of `transition`."""
    noisy = (law @ transition).tolist()
    total = 0.0
    for p, row in zip(law.tolist(), transition.tolist(), strict=True):
        for conditional, marginal in zip(row, noisy, strict=True):
            if p * conditional > 0:
                total += p * conditional * math.log(conditional / marginal)
    return total


def total_variation(first: Tensor, second: Tensor) -> float:
    """Half the sum of absolute differences."""
    return float((first - second).abs().sum()) / 2


def gauss_legendre(num_nodes: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [low, high]; exact for polynomials of degree 2 `num_nodes` - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    half = (high - low) / 2
    return torch.from_numpy(low + half * (nodes + 1)), torch.from_numpy(weights * half)


def exact_conditionals(law: Tensor, vocab_size: int, length: int) -> Tensor:
    """c[state, l, v] = p(x_l = v | tokens of `state` that are not MASK) for every state with masks."""
    texts = all_states(vocab_size, length).tolist()
    states = all_states(vocab_size + 1, length).tolist()
    result = torch.zeros(len(states), length, vocab_size, dtype=torch.float64)
    for i, state in enumerate(states):
        for text, probability in zip(texts, law, strict=True):
            if all(seen in (vocab_size, token) for seen, token in zip(state, text, strict=True)):
                for position, token in enumerate(text):
                    result[i, position, token] += probability
    return result / result.sum(-1, keepdim=True)


def random_conditionals(vocab_size: int, length: int, seed: int) -> Tensor:
    """A table like `exact_conditionals` that belongs to no law: what a network is like before it has learnt."""
    shape = ((vocab_size + 1) ** length, length, vocab_size)
    weights = torch.from_numpy(np.random.default_rng(seed).gamma(0.7, size=shape)) + 1e-2
    return weights / weights.sum(-1, keepdim=True)


def any_order_law(conditionals: Tensor, vocab_size: int, length: int, per_call: int = 1) -> Tensor:
    """The law of texts unmasked one token at a time in a uniformly random order: the mean over all L! orders.

    With independent continuous waiting times two tokens never leave MASK together, so this is the law of the reverse
    process itself, whatever its speed, for a network that does not see the time. With several tokens `per_call`, those
    that follow each other in the order are drawn independently given the text before them.
    """
    orders = list(itertools.permutations(range(length)))
    law = torch.zeros(vocab_size**length, dtype=torch.float64)
    for i, text in enumerate(all_states(vocab_size, length).tolist()):
        for order in orders:
            state = [vocab_size] * length
            probability = 1.0
            for first in range(0, length, per_call):
                rows = conditionals[index_of(state, vocab_size + 1)]
                for position in order[first : first + per_call]:
                    probability *= float(rows[position, text[position]])
                    state[position] = text[position]
            law[i] += probability / len(orders)
    return law


def surest_first_law(
    conditionals: Tensor, vocab_size: int, length: int, measure: str, per_call: int, drawn: Tensor | None = None
) -> Tensor:
    """The law of texts in which the positions whose law is surest are written first, ties to the left.

    Where tokens come from changed laws, these are `drawn`, another table.
    """
    drawn = conditionals if drawn is None else drawn

    def doubt(row: Tensor) -> float:
        return -float(row.max()) if measure == "confidence" else entropy(row)

    law = torch.zeros(vocab_size**length, dtype=torch.float64)
    for i, text in enumerate(all_states(vocab_size, length).tolist()):
        state, probability = [vocab_size] * length, 1.0
        while vocab_size in state:
            place = index_of(state, vocab_size + 1)
            rows = conditionals[place]
            masked = [position for position in range(length) if state[position] == vocab_size]
            for position in sorted(masked, key=lambda p: doubt(rows[p]))[:per_call]:
                probability *= float(drawn[place, position, text[position]])
                state[position] = text[position]
        law[i] = probability
    return law


def contains_in_order(text: list[int], words: list[tuple[int, ...]]) -> bool:
    """Whether the words stand in the text one after another, each whole: the first place of each is the best."""
    begin = 0
    for word in words:
        places = [i for i in range(begin, len(text) - len(word) + 1) if tuple(text[i : i + len(word)]) == word]
        if not places:
            return False
        begin = places[0] + len(word)
    return True


def required_law(
    conditionals: Tensor, words: list[tuple[int, ...]], vocab_size: int, length: int, per_call: int, state: list[int]
) -> Tensor:
    """The law of texts that contain `words`, from `state` on, its masked positions written in a random order.

    At every call the masked positions are independent given the text so far; that law, given that the words are there,
    is what the positions of the call are drawn from.
    """
    law = torch.zeros(vocab_size**length, dtype=torch.float64)
    masked = [position for position, token in enumerate(state) if token == vocab_size]
    if not masked:
        law[index_of(state, vocab_size)] = 1
        return law
    rows = conditionals[index_of(state, vocab_size + 1)]
    completions: list[tuple[list[int], float]] = []
    for choice in itertools.product(range(vocab_size), repeat=len(masked)):
        text = list(state)
        for position, token in zip(masked, choice, strict=True):
            text[position] = token
        if contains_in_order(text, words):
            completions.append((text, math.prod(float(rows[p, text[p]]) for p in masked)))
    total = sum(probability for _, probability in completions)
    groups = list(itertools.combinations(masked, min(per_call, len(masked))))
    for group in groups:
        after: dict[tuple[int, ...], float] = {}
        for text, probability in completions:
            written = tuple(text[p] if p in group else token for p, token in enumerate(state))
            after[written] = after.get(written, 0.0) + probability / total
        for written, probability in after.items():
            law += (
                probability
                / len(groups)
                * required_law(conditionals, words, vocab_size, length, per_call, list(written))
            )
    return law


def words_first_law(
    conditionals: Tensor,
    words: list[tuple[int, ...]],
    vocab_size: int,
    length: int,
    per_call: int,
    state: list[int],
    num_placings: int,
) -> Tensor:
    """The law of texts into which `words` are written one after another, and then the rest in a random order.

    Of so many placings one is taken with a probability proportional to its weight; see `placings`.
    """
    found = placings(conditionals, words, vocab_size, length, state)
    law = torch.zeros(vocab_size**length, dtype=torch.float64)
    # By how often each placing comes: it does not matter in which order.
    for counts in itertools.product(range(num_placings + 1), repeat=len(found)):
        if sum(counts) != num_placings:
            continue
        chance = float(math.factorial(num_placings))
        for count, (_, probability, _) in zip(counts, found, strict=True):
            chance *= probability**count / math.factorial(count)
        total = sum(count * weight for count, (_, _, weight) in zip(counts, found, strict=True))
        for count, (written, _, weight) in zip(counts, found, strict=True):
            rest = required_law(conditionals, [], vocab_size, length, per_call, written)
            law += chance * count * weight / total * rest
    return law


def placings(
    conditionals: Tensor,
    words: list[tuple[int, ...]],
    vocab_size: int,
    length: int,
    state: list[int],
    begin: int = 0,
) -> list[tuple[list[int], float, float]]:
    """Texts with the words at their places, what each is drawn with, and its weight.

    A word stands where it is read first, from `begin` on, in a text of independent positions given that it and the
    words behind it are read there; the next one behind it, given the word. Every word multiplies the weight by the
    probability of reading the words from it on, over the one that was expected of them when the word before was
    written.
    """
    if not words:
        return [(state, 1.0, 1.0)]
    masked = [position for position, token in enumerate(state) if token == vocab_size]
    rows = conditionals[index_of(state, vocab_size + 1)]

    def readable(wanted: list[tuple[int, ...]], first: int) -> dict[int, float]:
        """P(the words are read from `first` on), by the place at which the first of them is."""
        found: dict[int, float] = {}
        for choice in itertools.product(range(vocab_size), repeat=len(masked)):
            text = list(state)
            for position, token in zip(masked, choice, strict=True):
                text[position] = token
            if contains_in_order(text[first:], wanted):
                size = len(wanted[0]) if wanted else 0
                places = (p for p in range(first, length) if tuple(text[p : p + size]) == wanted[0])
                place = next(places) if wanted else first
                found[place] = found.get(place, 0.0) + math.prod(float(rows[p, text[p]]) for p in masked)
        return found

    here = readable(words, begin)
    total = sum(here.values())
    result = []
    for place, probability in here.items():
        end = place + len(words[0])
        written = [words[0][p - place] if place <= p < end else token for p, token in enumerate(state)]
        expected = sum(readable(words[1:], end).values())
        for text, chance, weight in placings(conditionals, words[1:], vocab_size, length, written, end):
            result.append((text, probability / total * chance, total / expected * weight))
    return result


def denoising_integral(conditionals: Tensor, text: list[int], vocab_size: int) -> float:
    """The bound of one text: the integral of r dsigma times the cross-entropy at masked positions, move_prob in (0, 1).

    With m = move_prob it is the integral of dm / m times the mean over masks, and the integral of
    m^(k-1) (1-m)^(L-k) is 1 / (k binomial(L, k)).
    """
    length = len(text)
    total = 0.0
    for masked in itertools.product([False, True], repeat=length):
        count = sum(masked)
        if count:
            state = [vocab_size if hidden else token for hidden, token in zip(masked, text, strict=True)]
            rows = conditionals[index_of(state, vocab_size + 1)]
            lost = -sum(math.log(rows[i, text[i]]) for i in range(length) if masked[i])
            total += lost / (count * math.comb(length, count))
    return total


def masked_states(text: list[int], move_prob: float, vocab_size: int) -> Tensor:
    """The law of a text whose tokens have turned into MASK, each with probability `move_prob`."""
    law = torch.zeros((vocab_size + 1) ** len(text), dtype=torch.float64)
    for hidden in itertools.product([False, True], repeat=len(text)):
        state = [vocab_size if is_hidden else token for is_hidden, token in zip(hidden, text, strict=True)]
        count = sum(hidden)
        law[index_of(state, vocab_size + 1)] += move_prob**count * (1 - move_prob) ** (len(text) - count)
    return law


def completion_law(conditionals: Tensor, state: list[int], vocab_size: int) -> Tensor:
    """The law of texts when the masked tokens of `state` are written one at a time in a uniformly random order."""
    masked = [position for position, token in enumerate(state) if token == vocab_size]
    law = torch.zeros(vocab_size ** len(state), dtype=torch.float64)
    if not masked:
        law[index_of(state, vocab_size)] = 1
        return law
    for position in masked:
        for token in range(vocab_size):
            after = [*state[:position], token, *state[position + 1 :]]
            probability = float(conditionals[index_of(state, vocab_size + 1), position, token]) / len(masked)
            law += probability * completion_law(conditionals, after, vocab_size)
    return law


def grid_law(
    conditionals: Tensor,
    leave_probs: list[float],
    vocab_size: int,
    length: int,
    start: Tensor | None = None,
    again_probs: list[float] | None = None,
) -> Tensor:
    """The law of texts when every position leaves MASK on its own with the probability of each step, then all do.

    `leave_probs` are those of the steps before the last one, `again_probs` those of written tokens to be masked again;
    `start` is the law to begin with, all MASK if None.
    """
    states = all_states(vocab_size + 1, length).tolist()
    law = torch.zeros(len(states), dtype=torch.float64)
    law[-1] = 1
    law = law if start is None else start
    again_probs = [0.0] * len(leave_probs) if again_probs is None else again_probs
    for leave, again in [*zip(leave_probs, again_probs, strict=True), (1.0, 0.0)]:
        after = torch.zeros_like(law)
        for i, state in enumerate(states):
            options = [
                [(token, 1 - again), (vocab_size, again)]
                if token != vocab_size
                else [(vocab_size, 1 - leave), *((y, leave * float(conditionals[i, p, y])) for y in range(vocab_size))]
                for p, token in enumerate(state)
            ]
            for choice in itertools.product(*options):
                probability = math.prod(p for _, p in choice)
                after[index_of([token for token, _ in choice], vocab_size + 1)] += law[i] * probability
        law = after
    return law[torch.tensor([max(state) < vocab_size for state in states])]
