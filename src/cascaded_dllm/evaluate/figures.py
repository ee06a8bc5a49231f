"""Figures of texts that were written in stages, by their names: overlap, diversity, and what a judge says."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.evaluate.diversity import distinct_ngram_share, mean_token_entropy_nats
from cascaded_dllm.evaluate.generative_ppl import Judge, num_empty, ppl_corpus, ppl_per_sequence
from cascaded_dllm.evaluate.overlap import multiset_overlap_per_text, ordered_coverage_per_text


def stage_figures(stages: Mapping[int, Int[Tensor, "B _"]]) -> dict[str, float]:
    """How much later stages keep of the ones before, and how varied the texts of the last one are.

    Args:
        stages: ids by the number of their stage, in order; row i of each belongs to text i.
    """
    figures: dict[str, float] = {}
    for (before, prefix), (after, target) in itertools.pairwise(stages.items()):
        name = f"mean_stage{before}_in_stage{after}"
        figures[f"multiset_overlap_{name}"] = float(multiset_overlap_per_text(prefix, target).mean())
        figures[f"ordered_coverage_{name}"] = float(ordered_coverage_per_text(prefix, target).mean())
    written = stages[max(stages)]
    figures["token_entropy_nats_mean"] = mean_token_entropy_nats(written)
    for n, name in enumerate(("unigram", "bigram", "trigram"), start=1):
        figures[f"distinct_{name}_share"] = distinct_ngram_share(written, n)
    return figures


def judged_figures(judge: Judge, texts: Sequence[str], device: torch.device) -> dict[str, float]:
    """Both generative perplexities, where there is a text that has one, and what they were counted over.

    Args:
        judge: a causal language model.
        texts: all of them; none is left out.
        device: where it reads them.
    """
    with judge.on(device):
        nats = judge.token_nats(texts)
    found = {
        "generative_ppl_per_sequence": ppl_per_sequence(nats),
        "generative_ppl_corpus": ppl_corpus(nats),
        "num_empty_texts": float(num_empty(nats)),
        "num_judged_tokens": float(sum(map(len, nats))),
    }
    return {name: value for name, value in found.items() if value is not None}
