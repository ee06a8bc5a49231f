"""Comparisons with the grammar behind the stories of the quickstart: with its entropy, and by what it accepts."""

from collections.abc import Sequence

import torch

from cascaded_dllm.cli.console import console, visible
from cascaded_dllm.evaluate.likelihood import JointBound, mean_and_error
from cascaded_dllm.text.stories import StoryGrammar


def compare_with_grammar(bound: JointBound, stories: Sequence[str]) -> dict[str, object]:
    """Compares a bound with the true surprisal of the same windows and the entropy of the grammar; shown and returned.

    If overrides lead to windows that are not whole stories, no comparison is possible; the result is then empty.

    Args:
        bound: the bound on some windows.
        stories: the texts of these windows.
    """
    grammar = StoryGrammar()
    truth = -torch.tensor([grammar.log_prob(story) for story in stories], dtype=torch.float64)
    if not bool(truth.isfinite().all()):
        console.print(
            "no comparison with the true entropy: with these stage_lengths and data.packing a window is not one story"
        )
        return {}
    excess, error = mean_and_error(bound.nll_nats - truth)
    ratio = float(bound.nll_nats.mean() / truth.mean())
    console.print(
        f"true entropy of the grammar {grammar.entropy:.3f} nats a story, of these stories {float(truth.mean()):.3f}\n"
        f"the bound is [bold]{ratio:.3f}[/] times the truth: {excess:+.3f} +- {error:.3f} nats a story above it; "
        f"terms that are left out add at most {bound.omitted_nats:.3f}\n"
        f"(tokens still unmasked at t = 1, and the integral below t = 0.001)",
        markup=True,
    )
    return {
        "entropy_nats": grammar.entropy,
        "true_nats_of_windows": float(truth.mean()),
        "bound_over_truth": ratio,
        "excess_nats": excess,
        "excess_standard_error_nats": error,
    }


def accepted_share(texts: Sequence[str]) -> dict[str, object]:
    """The share of texts that the grammar accepts, and the number of distinct ones; shows why it rejects the others.

    Reasons are shown for the first two rejected texts.
    """
    grammar = StoryGrammar()
    rejected = [text for text in texts if not grammar.accepts(text)]
    share = 1 - len(rejected) / len(texts)
    distinct = len(set(texts))
    console.print(
        f"[bold]{share:.1%}[/] of {len(texts)} texts belong to the grammar; {distinct} of all are distinct", markup=True
    )
    for text in rejected[:2]:
        console.print(f"rejected: {visible(text)}\n  {grammar.explain(text)}", style="dim")
    return {"accepted_share": share, "num_samples": len(texts), "distinct_texts": distinct}
