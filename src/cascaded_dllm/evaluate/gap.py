"""The exposure gap of a stage: figures on generated prefixes minus those on true ones, without need of a true text.

A stage is trained on prefixes of real texts and used on prefixes that the stages before have written. A generated
prefix has no true text, hence no likelihood, so the texts that the stage writes on both kinds of prefix are compared.
The two sets of texts are independent, so a difference has an interval over the texts of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.evaluate.diversity import distinct_share_and_error
from cascaded_dllm.evaluate.generative_ppl import TokenNats
from cascaded_dllm.evaluate.intervals import (
    LEVEL,
    Interval,
    PerText,
    bootstrap_difference,
    bootstrap_interval,
    normal_interval,
)
from cascaded_dllm.evaluate.overlap import ordered_coverage_per_text
from cascaded_dllm.rng import numpy_generator

GAP_DEFINITIONS = {
    "judge_nats_per_token": "nats of the judge over all texts / its tokens; the exponential is a corpus perplexity",
    "token_entropy_nats": "entropy of the tokens of a text under their own frequencies, mean over texts",
    "distinct_bigram_share_per_text": "different pairs of neighbouring tokens / all pairs of a text, mean over texts",
    "distinct_bigram_share": "different pairs of neighbouring tokens / all pairs, over all texts together",
    "distinct_trigram_share": "different triples of neighbouring tokens / all triples, over all texts together",
    "ordered_coverage": "share of the prefix that stands in the text in its order, mean over texts",
    "stage_bound_nats_per_token": "bound of the stage on the text given its prefix / tokens of the text",
    "prefix_bound_nats_per_token": "sum of the bounds of the stages before on the prefix / tokens of the prefix",
}
"""What the figures are, for those who read them without this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSample:
    """Texts of one stage on one kind of prefix, and what was measured on each.

    Attributes:
        prefix: ids of the stage before.
        target: ids of the texts.
        stage_nats: bound of the stage on each text given its prefix.
        prefix_nats: sum of the bounds of the stages before, on each prefix and its shorter versions.
        judged: nats of the tokens of each text under a judge; None without one.
    """

    prefix: Int[Tensor, "B P"]
    target: Int[Tensor, "B L"]
    stage_nats: Float[Tensor, " B"]
    prefix_nats: Float[Tensor, " B"]
    judged: list[TokenNats] | None = None


@dataclass(frozen=True, slots=True)
class GapFigure:
    """One figure under both kinds of prefix.

    Attributes:
        name: a key of `GAP_DEFINITIONS`.
        real: of real texts on their own prefixes, for comparison.
        true_prefix: of texts that the stage wrote on true prefixes.
        generated_prefix: of texts that it wrote on generated ones.
        gap: `generated_prefix` minus `true_prefix`.
    """

    name: str
    real: Interval
    true_prefix: Interval
    generated_prefix: Interval
    gap: Interval


@dataclass(frozen=True, slots=True)
class StageGap:
    """The gap of one stage.

    Attributes:
        stage: 2..K.
        figures: in the order of `GAP_DEFINITIONS`, without those that fewer than 2 texts of some kind have.
    """

    stage: int
    figures: tuple[GapFigure, ...]

    def __getitem__(self, name: str) -> GapFigure:
        return next(figure for figure in self.figures if figure.name == name)


def stage_gap(
    stage: int,
    *,
    real: StageSample,
    true_prefix: StageSample,
    generated_prefix: StageSample,
    num_resamples: int,
    seed: int,
    level: float = LEVEL,
) -> StageGap:
    """The gap of a stage, figure by figure.

    Args:
        stage: 2..K.
        real: real texts on their prefixes.
        true_prefix: texts of the stage on true prefixes.
        generated_prefix: on generated ones, independent of the others.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        level: of every interval by itself.
    """
    samples = (real, true_prefix, generated_prefix)
    per_text = [per_text_figures(sample) for sample in samples]
    distinct = [_distinct_figures(sample.target) for sample in samples]
    figures = []
    for number, name in enumerate(GAP_DEFINITIONS):
        if all(name in found for found in distinct):
            figures.append(_jackknifed(name, [found[name] for found in distinct], level))
        elif all(name in found for found in per_text):
            generator = numpy_generator(seed, "gap-bootstrap", stage, number)
            figures.append(_bootstrapped(name, [found[name] for found in per_text], num_resamples, generator, level))
    return StageGap(stage, tuple(figures))


def per_text_figures(sample: StageSample) -> dict[str, PerText]:
    """The figures that are quotients of sums over texts, by name; without those that fewer than 2 texts have."""
    target, length = sample.target, sample.target.shape[1]
    counts = (target[:, :, None] == target[:, None, :]).sum(-1).double()
    found = {
        "token_entropy_nats": PerText.mean(torch.log(length / counts).mean(-1)),
        "ordered_coverage": PerText.mean(ordered_coverage_per_text(sample.prefix, target)),
        "stage_bound_nats_per_token": PerText.mean(sample.stage_nats / length),
        "prefix_bound_nats_per_token": PerText.mean(sample.prefix_nats / sample.prefix.shape[1]),
    }
    if length >= 2:
        shares = [len(runs.unique(dim=0)) / len(runs) for runs in target.unfold(1, 2, 1)]
        found["distinct_bigram_share_per_text"] = PerText.mean(torch.tensor(shares, dtype=torch.float64))
    if sample.judged is not None:
        nats = np.array([float(of_text.sum()) for of_text in sample.judged])
        found["judge_nats_per_token"] = PerText(nats, np.array([float(len(of_text)) for of_text in sample.judged]))
    return {name: figure.counted for name, figure in found.items() if len(figure.counted) >= 2}


def _distinct_figures(target: Int[Tensor, "B L"]) -> dict[str, tuple[float, float]]:
    """Shares of distinct runs over all texts, with their standard errors; none for runs longer than the texts."""
    names: Mapping[int, str] = {2: "distinct_bigram_share", 3: "distinct_trigram_share"}
    found = {name: distinct_share_and_error(target, n) for n, name in names.items()}
    return {name: (share, error) for name, (share, error) in found.items() if share is not None and error is not None}


def _bootstrapped(
    name: str, samples: list[PerText], num_resamples: int, generator: np.random.Generator, level: float
) -> GapFigure:
    real, on_true, on_generated = (bootstrap_interval(s, num_resamples, generator, level=level) for s in samples)
    _, first, second = samples
    gap = bootstrap_difference(first, second, num_resamples, generator, level=level)
    return GapFigure(name, real, on_true, on_generated, gap)


def _jackknifed(name: str, samples: list[tuple[float, float]], level: float) -> GapFigure:
    real, on_true, on_generated = (normal_interval(share, error, level=level) for share, error in samples)
    _, (true_share, true_error), (share, error) = samples
    gap = normal_interval(share - true_share, float(np.hypot(true_error, error)), level=level)
    return GapFigure(name, real, on_true, on_generated, gap)
