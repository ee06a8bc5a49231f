"""Temperature, top-k and top-p: what is kept, and what is refused. Their laws are tested in tests/statistical."""

from typing import Any

import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.token_law import UNCHANGED, TokenLaw

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]).log()


def kept(law: TokenLaw) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in law.cut(law.tempered(LOGITS))]


def test_what_is_kept() -> None:
    assert kept(TokenLaw()) == [[0, 1, 2, 3]] * 2
    assert kept(TokenLaw(top_k=2))[0] == [0, 1]
    assert [len(row) for row in kept(TokenLaw(top_k=3))] == [3, 3]
    assert kept(TokenLaw(top_k=9)) == [[0, 1, 2, 3]] * 2
    # The fewest tokens that reach the probability, the one that passes it included.
    assert kept(TokenLaw(top_p=0.79))[0] == [0, 1]
    assert kept(TokenLaw(top_p=0.81))[0] == [0, 1, 2]
    assert kept(TokenLaw(top_p=1e-9)) == [[0], [0]]
    assert [len(row) for row in kept(TokenLaw(temperature=0.0))] == [1, 1]
    # Of what the temperature leaves: at 0.5 the first two have 0.25 / 0.365 and 0.09 / 0.365.
    assert kept(TokenLaw(temperature=0.5, top_p=0.69))[0] == [0, 1]
    assert kept(TokenLaw(temperature=0.5, top_p=0.68))[0] == [0]


def test_the_smallest_temperature_takes_the_most_probable_token() -> None:
    """No number becomes infinite on the way."""
    tempered = TokenLaw(temperature=1e-45).tempered(LOGITS[:1] * 50 + 100)
    assert tempered.softmax(-1).tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_rounding_does_not_decide_at_temperature_0() -> None:
    """Required words are kept at any temperature; where they may stand equally well, the seed decides, in any batch."""
    logits = torch.tensor([[0.0, -3.0], [0.0, -3.0 - 1e-6]])
    assert logits[0, 1] != logits[1, 1]
    one, other = TokenLaw(temperature=0.0).tempered(logits).log_softmax(-1)
    # The difference of 1e-6 nats, divided by the lowest temperature, and the rounding of numbers near 3,000.
    torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_nothing_is_changed_by_default() -> None:
    law = TokenLaw()
    assert law == UNCHANGED
    assert law.is_unchanged
    assert law.cut(law.tempered(LOGITS)) is LOGITS
    for changed in (TokenLaw(temperature=0.9), TokenLaw(top_k=1), TokenLaw(top_p=0.9)):
        assert not changed.is_unchanged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0.1; it must be at least 0 and finite, 1 changes nothing"),
        ({"temperature": float("nan")}, r"temperature is nan"),
        ({"temperature": float("inf")}, r"temperature is inf"),
        ({"top_k": 0}, r"top_k is 0; it must be at least 1, or left out to keep all tokens"),
        ({"top_p": 0.0}, r"top_p is 0.0; it must be above 0 and at most 1, which keeps all tokens"),
        ({"top_p": 1.1}, r"top_p is 1.1"),
    ],
)
def test_numbers_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenLaw(**options)


def test_a_law_says_what_is_changed() -> None:
    assert str(TokenLaw(temperature=0.5, top_k=40)) == "temperature 0.5, top_k 40"
    assert str(TokenLaw()) == "the law of the network"
