"""A cascade of random weights whose texts hold everything that a page can be given: parts of characters, and ends."""

import pytest

from cascaded_dllm.sample.cascade import Cascade
from tests.unit.sample.random_cascade import random_cascade


@pytest.fixture(scope="session")
def cascade() -> Cascade:
    return random_cascade((5, 8, 12), vocab_size=290)
