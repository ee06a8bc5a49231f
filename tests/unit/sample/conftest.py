"""A cascade of two stages of random weights, for tests of what is done with what it draws."""

import pytest

from cascaded_dllm.sample.cascade import Cascade
from tests.unit.sample.random_cascade import random_cascade


@pytest.fixture(scope="module")
def drawn_from() -> Cascade:
    return random_cascade((3, 6), vocab_size=270)
