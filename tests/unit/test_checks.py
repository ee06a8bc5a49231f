"""One wording for each kind of mistake, with the value, the limit and what may have been meant."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, assert_type

import numpy as np
import pytest
import torch

from cascaded_dllm.checks import (
    one_of,
    plain_number,
    require_at_least,
    require_between_0_and_1,
    require_share,
    require_whole,
)
from cascaded_dllm.errors import ConfigError

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")


def test_choice_comes_back_as_the_one_that_it_is() -> None:
    found = one_of("weights", "".join(["e", "ma"]), WEIGHTS)
    assert_type(found, Weights)
    assert found == "ema"
    assert one_of("--model", "small", {"tiny": 1, "small": 2}) == "small"


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("best", "", "dtype is 'best'; it must be one of float32, bfloat16"),
        (None, "", "dtype is None; it must be one of float32, bfloat16"),
        ("bfloat61", "", "dtype is 'bfloat61'; it must be one of float32, bfloat16; did you mean bfloat16?"),
        ("FLOAT32", "", "dtype is 'FLOAT32'; it must be one of float32, bfloat16; did you mean float32?"),
        ("", "or null", "dtype is ''; it must be one of float32, bfloat16, or null"),
        ("float", "or null", "dtype is 'float'; it must be one of float32, bfloat16, or null; did you mean float32?"),
    ],
)
def test_no_choice(value: str | None, hint: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        one_of("dtype", value, ("float32", "bfloat16"), hint=hint)


@pytest.mark.parametrize(("value", "least"), [(1, 1), (2, 1), (0, 0), (1.5, 1), (math.inf, 1), (-1, -2)])
def test_at_least(value: float, least: int) -> None:
    require_at_least("steps", value, least)


@pytest.mark.parametrize(
    ("value", "least", "hint", "message"),
    [
        (0, 1, "", "steps is 0; it must be at least 1"),
        (0.5, 1, "", "steps is 0.5; it must be at least 1"),
        (-1, 0, "", "steps is -1; it must be at least 0"),
        (math.nan, 0, "", "steps is nan; it must be at least 0"),
        (-math.inf, 0, "", "steps is -inf; it must be at least 0"),
        (0, 1, "for example 128", "steps is 0; it must be at least 1, for example 128"),
    ],
)
def test_too_little(value: float, least: int, hint: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        require_at_least("steps", value, least, hint=hint)


def test_too_much() -> None:
    """A limit for every whole number, and a lower one where it is given; none for other numbers."""
    require_at_least("steps", 10**12, 1)
    require_at_least("rate", 1e30, 1)
    with pytest.raises(ConfigError, match=r"^steps is 1000000000001; it must be at most 1000000000000$"):
        require_at_least("steps", 10**12 + 1, 1)
    with pytest.raises(ConfigError, match=r"^workers is 7; it must be at most 6$"):
        require_at_least("workers", 7, 1, most=6, hint="one a core")


@pytest.mark.parametrize("value", [0.0, 0.5, math.nextafter(1, 0)])
def test_below_1(value: float) -> None:
    require_share("dropout", value)


@pytest.mark.parametrize("value", [1.0, -0.1, math.nan, math.inf, -math.inf])
def test_not_below_1(value: float) -> None:
    with pytest.raises(ConfigError, match=f"^dropout is {value}; it must be at least 0 and less than 1$"):
        require_share("dropout", value)


@pytest.mark.parametrize("value", [math.nextafter(0, 1), 0.5, math.nextafter(1, 0)])
def test_between_0_and_1(value: float) -> None:
    require_between_0_and_1("t_min", value)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan, math.inf, -math.inf])
def test_not_between_0_and_1(value: float) -> None:
    with pytest.raises(ConfigError, match=f"^t_min is {value}; it must lie between 0 and 1$"):
        require_between_0_and_1("t_min", value)
    with pytest.raises(ConfigError, match=f"^t_min is {value}; it must lie between 0 and 1, 0.001 is usual$"):
        require_between_0_and_1("t_min", value, hint="0.001 is usual")


@pytest.mark.parametrize("value", [1, 2, np.int64(3), np.array(3), torch.tensor(3)])
def test_whole(value: Any) -> None:
    require_whole("steps", value, 1)
    require_whole("seed", -value)


def test_whole_without_limits() -> None:
    require_whole("seed", 10**30)


@pytest.mark.parametrize(
    "value",
    [
        *(2.0, 2.5, True, None, math.nan, math.inf, "2", [2], np.float32(2), torch.ones(2)),
        *(np.True_, torch.tensor(True)),
    ],
)
def test_not_whole(value: Any) -> None:
    for least, limit in ((None, ""), (1, " of at least 1")):
        message = f"steps is {value!r}; it must be a whole number{limit}, for example 128"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            require_whole("steps", value, least, hint="for example 128")


def test_whole_and_too_little() -> None:
    with pytest.raises(ConfigError, match=r"^steps is 0; it must be at least 1, for example 128$"):
        require_whole("steps", np.int64(0), 1, hint="for example 128")


def test_number() -> None:
    for value in (1, 0.5, True, -math.inf):
        assert plain_number("eta", value) is value
    assert math.isnan(plain_number("eta", math.nan))
    for half in (np.float32(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal("0.5")):
        found = plain_number("eta", half)
        assert (type(found), found) == (float, 0.5)
    for value in (None, "0.5", b"1", [0.5], np.ones(2), torch.ones(2), Fraction(10**400), 1j):
        with pytest.raises(ConfigError, match=f"^{re.escape(f'eta is {value!r}; it must be a number')}$"):
            plain_number("eta", value)
