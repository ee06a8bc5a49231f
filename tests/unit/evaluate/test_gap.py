"""The figures of a gap: what each is on texts small enough to count."""

import math

import pytest
import torch

from cascaded_dllm.evaluate.gap import GAP_DEFINITIONS, StageSample, per_text_figures, stage_gap


def made(target: list[list[int]], prefix: list[list[int]], **changes: object) -> StageSample:
    count = len(target)
    fields = {
        "prefix": torch.tensor(prefix),
        "target": torch.tensor(target),
        "stage_nats": torch.arange(count).double(),
        "prefix_nats": torch.arange(count).double() + 1,
    }
    return StageSample(**(fields | changes))  # type: ignore[arg-type]


TWO = made(
    [[1, 2, 1, 2], [3, 4, 5, 6]],
    [[1, 2], [6, 3]],
    judged=[torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([6.0], dtype=torch.float64)],
)


def test_figures_by_hand() -> None:
    found = {name: figure.estimate for name, figure in per_text_figures(TWO).items()}
    assert found == pytest.approx(
        {
            "judge_nats_per_token": 9 / 3,
            "token_entropy_nats": (math.log(2) + math.log(4)) / 2,
            "distinct_bigram_share_per_text": (2 / 3 + 1) / 2,
            "ordered_coverage": (1 + 1 / 2) / 2,
            "stage_bound_nats_per_token": (0 + 1) / 2 / 4,
            "prefix_bound_nats_per_token": (1 + 2) / 2 / 2,
        }
    )


def test_every_figure_has_a_definition() -> None:
    gap = stage_gap(2, real=TWO, true_prefix=TWO, generated_prefix=TWO, num_resamples=100, seed=0)
    assert [figure.name for figure in gap.figures] == list(GAP_DEFINITIONS)
    assert gap["distinct_bigram_share"].real.estimate == 5 / 6
    assert gap["distinct_trigram_share"].real.estimate == 1
    assert all(figure.gap.estimate == 0 for figure in gap.figures)


def test_a_gap_is_generated_minus_true() -> None:
    other = made([[1, 1, 1, 1], [3, 3, 3, 4]], [[1, 1], [3, 3]], stage_nats=torch.tensor([8.0, 9.0]).double())
    gap = stage_gap(3, real=TWO, true_prefix=TWO, generated_prefix=other, num_resamples=100, seed=0)
    assert gap.stage == 3
    # Without a judge of one kind there is no gap of its figure.
    assert [figure.name for figure in gap.figures] == list(GAP_DEFINITIONS)[1:]
    for figure in gap.figures:
        assert figure.gap.estimate == pytest.approx(
            figure.generated_prefix.estimate - figure.true_prefix.estimate, abs=1e-12
        )
        assert figure.gap.low <= figure.gap.estimate <= figure.gap.high
    assert gap["stage_bound_nats_per_token"].gap.estimate == pytest.approx(8 / 4)
    assert gap["distinct_bigram_share"].gap.estimate == pytest.approx(3 / 6 - 5 / 6)


def test_a_seed_decides_the_intervals() -> None:
    def low(seed: int) -> list[float]:
        texts = made([[i, i % 3, 1, i % 2] for i in range(30)], [[1, i % 3] for i in range(30)])
        gap = stage_gap(2, real=texts, true_prefix=texts, generated_prefix=texts, num_resamples=100, seed=seed)
        return [figure.gap.low for figure in gap.figures]

    assert low(1) == low(1)
    assert low(1) != low(2)


def test_texts_too_short_for_a_figure() -> None:
    short = made([[1], [2], [3]], [[1], [2], [3]], judged=[torch.ones(2).double(), torch.zeros(0), torch.zeros(0)])
    gap = stage_gap(2, real=short, true_prefix=short, generated_prefix=short, num_resamples=100, seed=0)
    names = [figure.name for figure in gap.figures]
    assert not [name for name in names if "gram" in name or "judge" in name]
    assert "token_entropy_nats" in names
