"""The law of a placed stage by enumeration: every layout, every order of its gaps, every order of its new tokens."""

import itertools
import math

import torch
from torch import Tensor

from cascaded_dllm.model.layout import LayoutModel
from cascaded_dllm.model.score_model import ScoreModel
from tests.reference import enumerate as oracle

Gaps = tuple[int, ...]


def layouts(num_gaps: int, num_new: int) -> list[Gaps]:
    """All gaps that sum to `num_new`."""
    return [gaps for gaps in itertools.product(range(num_new + 1), repeat=num_gaps) if sum(gaps) == num_new]


def places(gaps: Gaps) -> list[int]:
    """Where the tokens between the gaps stand."""
    return [sum(gaps[: i + 1]) + i for i in range(len(gaps) - 1)]


def gap_law(model: LayoutModel, z: list[int], known: dict[int, int], gap: int) -> list[float]:
    """The law of one hidden gap, written out: softmax over what is possible, or what is left for the last one."""
    num_gaps, num_new = len(z) + 1, model.config.num_new
    left = num_new - sum(known.values())
    if len(known) == num_gaps - 1:
        return [float(label == left) for label in range(num_new + 1)]
    labels = torch.tensor([[known.get(i, model.hidden_label) for i in range(num_gaps)]])
    with torch.no_grad():
        logits = model(torch.tensor([z]), labels)[0, gap].tolist()
    weights = [math.exp(logit) if label <= left else 0.0 for label, logit in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


def order_nats(model: LayoutModel, z: list[int], gaps: Gaps) -> list[float]:
    """-log p(gaps) in every order in which they can be revealed."""
    found = []
    for order in itertools.permutations(range(len(gaps))):
        known: dict[int, int] = {}
        nats = 0.0
        for gap in order:
            nats -= math.log(gap_law(model, z, known, gap)[gaps[gap]])
            known[gap] = gaps[gap]
        found.append(nats)
    return found


def layout_law(model: LayoutModel, z: list[int]) -> dict[Gaps, float]:
    """The probability of every layout of `z`: the mean over all orders."""
    every = layouts(len(z) + 1, model.config.num_new)
    return {
        gaps: sum(math.exp(-nats) for nats in order_nats(model, z, gaps)) / math.factorial(len(gaps)) for gaps in every
    }


def conditionals(model: ScoreModel, vocab_size: int, length: int) -> Tensor:
    """p(x0 | unmasked tokens) of every state, as a table for `enumerate`."""
    states = oracle.all_states(vocab_size + 1, length)
    with torch.no_grad():
        sigma = torch.ones(len(states), dtype=model.vocab_embed.embedding.dtype)
        logits = model.logits(model.hidden(states, sigma))
    return torch.softmax(logits[..., :vocab_size].double(), -1)


def placed_state(z: list[int], gaps: Gaps, mask_id: int) -> list[int]:
    """The text in which only `z` stands, in its places."""
    state = [mask_id] * (len(z) + sum(gaps))
    for place, token in zip(places(gaps), z, strict=True):
        state[place] = token
    return state
