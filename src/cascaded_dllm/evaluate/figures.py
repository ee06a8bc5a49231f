"""Figures of texts with their names and definitions: overlap of stages, diversity, perplexity."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.evaluate.diversity import (
    distinct_share_and_error,
    repeated_ngram_share_per_text,
    token_entropy_nats_per_text,
)
from cascaded_dllm.evaluate.generative_ppl import (
    PPL_DEFINITIONS,
    Judge,
    TokenNats,
    num_empty,
    ppl_corpus_and_error,
    ppl_per_text,
)
from cascaded_dllm.evaluate.intervals import PerText, grouped_error, unseen_error
from cascaded_dllm.evaluate.keywords import keyword_coverage_per_text
from cascaded_dllm.evaluate.overlap import multiset_overlap_per_text, ordered_coverage_per_text
from cascaded_dllm.evaluate.self_bleu import MAX_N, mean_self_bleu
from cascaded_dllm.evaluate.token_runs import TokenTexts

REPEATED_N = 4
"""Tokens of a run whose repetition counts: seq-rep-4, as in Welleck et al. 2020."""


class Figure(NamedTuple):
    """A number about texts.

    Attributes:
        name: as in files.
        value: None where these texts have none.
        definition: what it is, for those who read it without this package.
        reason: why there is no value; empty if there is one.
        error: standard error of the value as an estimate for infinitely many such texts, from the scatter of these;
            None where it is unknown, as for fewer than 2 texts and for counts.
    """

    name: str
    value: float | None
    definition: str
    reason: str = ""
    error: float | None = None


def overlap_figures(stages: Mapping[int, Int[Tensor, "B _"]], *, are_cut: bool = False) -> list[Figure]:
    """How much every later stage keeps of the one before, as means over texts.

    Args:
        stages: ids by the number of their stage, in order; row i of each belongs to text i.
        are_cut: whether earlier stages were cut out of the later ones: then every text has 1, so would any other, and
            the error is 0.
    """
    return [
        figure
        for (before, prefix), (after, target) in itertools.pairwise(stages.items())
        for figure in _overlaps(
            f"stage{before}_in_stage{after}", prefix, target, mean_figure if are_cut else share_figure
        )
    ]


def _overlaps(
    pair: str, prefix: Int[Tensor, "B _"], target: Int[Tensor, "B _"], mean: Callable[..., Figure]
) -> list[Figure]:
    no_text = torch.zeros(0)
    return [
        mean(
            f"multiset_overlap_mean_{pair}",
            multiset_overlap_per_text(prefix, target) if len(prefix) else no_text,
            "share of the tokens of the earlier stage that are found in the later one, each token there counting once; "
            "mean over texts",
            "there is no text",
        ),
        mean(
            f"ordered_coverage_mean_{pair}",
            ordered_coverage_per_text(prefix, target) if len(prefix) else no_text,
            "length of the longest common subsequence of both stages over that of the earlier one; mean over texts",
            "there is no text",
        ),
    ]


def diversity_figures(windows: TokenTexts) -> list[Figure]:
    """How varied texts are, the ends of text that fill their windows included."""
    entropy = mean_figure(
        "token_entropy_nats_mean",
        token_entropy_nats_per_text(windows),
        "entropy of the tokens of a text under their own frequencies, in nats; mean over texts that have a token; ends "
        "of text that fill a window count as tokens",
        "no text has a token",
    )
    distinct = [
        _figure(
            f"distinct_{name}_share",
            distinct_share_and_error(windows, n),
            f"distinct-{n}: different runs of {n} tokens over all of them, over all texts together; it falls with "
            "their number; ends of text that fill a window count as tokens",
            f"no text has {n} tokens",
        )
        for n, name in enumerate(("unigram", "bigram", "trigram"), start=1)
    ]
    return [entropy, *distinct]


def likeness_figures(texts: TokenTexts) -> list[Figure]:
    """How much texts repeat themselves and one another, without the ends of text that fill their windows."""
    return [
        share_figure(
            f"seq_rep_{REPEATED_N}_mean",
            repeated_ngram_share_per_text(texts, REPEATED_N),
            f"1 - different runs of {REPEATED_N} tokens of a text over all of them (seq-rep-{REPEATED_N}); mean over "
            f"texts of at least {REPEATED_N} tokens; without the ends of text that fill a window",
            f"no text has {REPEATED_N} tokens",
        ),
        _figure(
            f"self_bleu_{MAX_N}_mean",
            (mean_self_bleu(texts), grouped_error(mean_self_bleu, texts)),
            f"BLEU-{MAX_N} of every text with all others as references, over tokens, with 0.1 for a count of matches "
            "that is 0; mean over texts; it grows with their number; without the ends of text that fill a window",
            "it compares a text with others, and there are fewer than 2",
        ),
    ]


def keyword_figures(texts: Sequence[str], keywords: Sequence[str]) -> list[Figure]:
    """The share of the keywords that texts hold; no figure without keywords."""
    if not keywords:
        return []
    return [
        share_figure(
            "keyword_coverage_mean",
            torch.tensor(keyword_coverage_per_text(texts, keywords), dtype=torch.float64),
            "share of the keywords that were asked for which a text holds as whole words, in any order; mean over "
            "texts",
            "there is no text",
        )
    ]


def perplexity_figures(nats: Sequence[TokenNats], presets: Iterable[str]) -> list[Figure]:
    """Generative perplexities, and the number of the judge's tokens behind them.

    Args:
        nats: -log p of every token of every text under the judge.
        presets: which perplexities: `per_sequence`, `corpus`.
    """
    found = []
    for preset in presets:
        name = f"generative_ppl_{preset}"
        definition, reason = PPL_DEFINITIONS[name], "no text has a token of the judge"
        if preset == "corpus":
            found.append(_figure(name, ppl_corpus_and_error(nats), definition, reason))
        else:
            found.append(mean_figure(name, ppl_per_text(nats), definition, reason))
    return [
        *found,
        Figure("num_judged_tokens", float(sum(map(len, nats))), "tokens of the judge in all texts"),
    ]


def described(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """Values, errors and reasons for no value, each by the names of the figures, as files hold them."""
    return {
        "figures": {figure.name: figure.value for figure in figures},
        "errors": {figure.name: figure.error for figure in figures if figure.error is not None},
        "reasons_for_none": {figure.name: figure.reason for figure in figures if figure.value is None},
    }


def values_of(figures: Iterable[Figure]) -> dict[str, float]:
    """The values by name, of the figures that have one."""
    return {figure.name: figure.value for figure in figures if figure.value is not None}


def stage_figures(stages: Mapping[int, Int[Tensor, "B _"]]) -> dict[str, float]:
    """How much later stages keep of the ones before, and how varied the texts of the last one are.

    Args:
        stages: ids by the number of their stage, in order; row i of each belongs to text i.
    """
    return values_of([*overlap_figures(stages), *diversity_figures(stages[max(stages)])])


def judged_figures(
    judge: Judge, texts: Sequence[str], device: torch.device, *, on_call: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Both generative perplexities, if any text has one, their errors, and the numbers of tokens and texts behind them.

    Args:
        judge: a causal language model.
        texts: all of them; none is left out.
        device: where the judge computes.
        on_call: called before every call of the judge; what it raises ends the work.
    """
    with judge.on(device):
        nats = judge.token_nats(texts, on_call=on_call)
    figures = perplexity_figures(nats, ("per_sequence", "corpus"))
    return {
        **values_of(figures),
        **{f"{figure.name}_standard_error": figure.error for figure in figures if figure.error is not None},
        "num_judged_texts": float(len(nats) - num_empty(nats)),
        "num_empty_texts": float(num_empty(nats)),
    }


def share_figure(name: str, values: Float[Tensor, "_"], definition: str, reason: str) -> Figure:
    """The mean of a number from 0 to 1 of every text; if all are 0, or all are 1, the error is `unseen_error`.

    Args:
        name: as in files.
        values: of the texts that have one.
        definition: what it is.
        reason: why there is no value, should there be none.
    """
    figure = mean_figure(name, values, definition, reason)
    is_at_end = bool((values == 0).all() or (values == 1).all())
    return figure._replace(error=unseen_error(len(values))) if len(values) > 1 and is_at_end else figure


def mean_figure(name: str, values: Float[Tensor, "_"], definition: str, reason: str) -> Figure:
    """The mean of a number of every text, with its standard error.

    Args:
        name: as in files.
        values: of the texts that have one.
        definition: what it is.
        reason: why there is no value, should there be none.
    """
    sample = PerText.mean(values)
    return _figure(name, (sample.estimate, sample.error) if len(sample) else (None, None), definition, reason)


def _figure(name: str, found: tuple[float | None, float | None], definition: str, reason: str) -> Figure:
    """A figure with its error, or with the reason why it has no value; an infinite value is none: JSON lacks it."""
    value, error = found
    if value is not None and not math.isfinite(value):
        value, reason = None, "it is too large for a floating-point number"
    return Figure(name, value, definition, "", error) if value is not None else Figure(name, None, definition, reason)
