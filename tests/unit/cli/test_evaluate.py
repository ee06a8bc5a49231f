"""What is said of a bound: to people, and to programs."""

import math

import pytest
import torch

from cascaded_dllm.cli.evaluate import bound_line, bound_table
from cascaded_dllm.evaluate.bound_summary import bound_summary
from cascaded_dllm.evaluate.likelihood import JointBound, StageBound


def stage(number, *values):
    return StageBound(number, torch.tensor(values, dtype=torch.float64), 0.25, 9.0)


WHOLE = JointBound((stage(1, 1, 3), stage(2, 10, 30)), 5, 2)
PART = JointBound((stage(1, 1, 3), stage(2, 10, 30)), 5, 3)
FLAT = JointBound((stage(1, 20, 40),), 5, 1)
JOINT_KEYS = {
    "bound_nats_per_window",
    "standard_error_nats",
    "bound_nats_per_token",
    "bound_ppl",
    "omitted_nats_per_window_at_most",
}


@pytest.mark.parametrize(
    ("bound", "names"),
    [(WHOLE, ["1 of 2", "2 of 2", "joint"]), (PART, ["1 of 3", "2 of 3"]), (FLAT, ["flat"])],
    ids=["whole", "part", "flat"],
)
def test_rows(bound, names):
    table = bound_table(bound)
    assert list(table.columns[0].cells) == names
    assert list(table.columns[1].cells)[: len(bound.stages)] == ["2.000", "20.000"] if bound is not FLAT else ["30.000"]


def test_a_single_window_has_no_error():
    assert list(bound_table(JointBound((stage(1, 22.0),), 5, 1)).columns[2].cells) == ["-"]


@pytest.mark.parametrize("bound", [WHOLE, FLAT])
def test_summary_of_a_whole_model(bound):
    summary = bound_summary(bound)
    assert summary.keys() >= JOINT_KEYS
    assert summary["bound_nats_per_token"] == float(bound.nll_nats.mean()) / 5
    assert (summary["num_windows"], summary["num_stages"]) == (2, bound.num_stages)


def test_summary_of_a_part():
    summary = bound_summary(PART)
    assert not summary.keys() & JOINT_KEYS
    assert [entry["bound_nats_per_window"] for entry in summary["stages"]] == [2, 20]


def test_numbers_that_json_has_not():
    summary = bound_summary(JointBound((stage(1, 1e4),), 5, 1))
    assert (summary["standard_error_nats"], summary["bound_ppl"]) == (None, None)


def test_line():
    expected = f"4.4000 nats/token, perplexity at most {math.exp(4.4):.2f}, on 2 windows of 5 tokens, 3 times each"
    assert bound_line(WHOLE, 3) == expected
    assert bound_line(JointBound((stage(1, 22.0),), 5, 1), 1).endswith("on 1 window of 5 tokens, 1 time each")
    assert bound_line(PART, 3).startswith(
        "on 2 windows of 5 tokens, 3 times each; no bound on whole texts: only 2 of 3 stages are"
    )
