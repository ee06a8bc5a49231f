import dataclasses

import numpy as np
import pytest

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.errors import ConfigError
from tests.unit.model.unchecked import without_type_checks


def test_lengths_of_the_default_cascade():
    spec = CascadeSpec((32, 64, 128))
    assert (spec.num_stages, spec.window_length) == (3, 128)
    assert [spec.target_length(stage) for stage in (1, 2, 3)] == [32, 64, 128]
    assert [spec.prefix_length(stage) for stage in (1, 2, 3)] == [0, 32, 64]


def test_one_stage_is_a_cascade():
    spec = CascadeSpec((40,))
    assert (spec.num_stages, spec.window_length, spec.prefix_length(1), spec.target_length(1)) == (1, 40, 0, 40)


def test_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CascadeSpec((1, 2)).stage_lengths = (3,)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((), "stage_lengths is empty; a cascade needs at least 1 stage"),
        ((8, 10**20), r"^the longest stage is 100000000000000000000; it must be at most 1000000$"),
        ((0, 4), r"\(0, 4\) holds 0; every length must be a whole number of at least 1"),
        ((-8,), "holds -8"),
        ((True, 2), "holds True"),
        (5, r"^stage_lengths is 5; it must be a list, for example \(32, 64, 128\)$"),
        (None, r"^stage_lengths is None; it must be a list"),
        ((8, 8), r"\(8, 8\) has 8 after 8; lengths must strictly increase"),
        ((8, 4, 16), r"has 4 after 8"),
    ],
)
def test_rejects_what_is_no_cascade(lengths, message):
    with without_type_checks(), pytest.raises(ConfigError, match=message):
        CascadeSpec(lengths)


@pytest.mark.parametrize("stage", [0, -1, 4])
def test_rejects_a_stage_that_does_not_exist(stage):
    with pytest.raises(ConfigError, match=f"stage {stage} does not exist; .* has 1..3"):
        CascadeSpec((32, 64, 128)).target_length(stage)


@pytest.mark.parametrize("stage", [0, -1, 4, 5])
def test_rejects_a_stage_without_prefix_length(stage):
    with pytest.raises(ConfigError, match="does not exist"):
        CascadeSpec((32, 64, 128)).prefix_length(stage)


@without_type_checks()
def test_lengths_of_numpy() -> None:
    spec = CascadeSpec(tuple(np.array([4, 8])))
    assert (spec, [type(length) for length in spec.stage_lengths]) == (CascadeSpec((4, 8)), [int, int])
