"""All figures of a set of texts, written or real: what `cdllm evaluate samples` shows in a column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.evaluate.figures import (
    Figure,
    diversity_figures,
    keyword_figures,
    likeness_figures,
    mean_figure,
    overlap_figures,
    perplexity_figures,
)
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.evaluate.mauve import MIN_TEXTS, mauve
from cascaded_dllm.evaluate.text_features import TextFeatures
from cascaded_dllm.text.listing import shown_ids
from cascaded_dllm.text.tokenizer import Tokenizer

PRESETS = ("per_sequence", "corpus")
"""Generative perplexities, named after what they compute."""


@dataclass(frozen=True, slots=True)
class MeasuredTexts:
    """Texts in all forms that figures are counted from; row i of everything belongs to text i.

    Attributes:
        windows: the tokens of every text, the ends of text that fill its window included.
        ids: the same without these.
        texts: `ids`, decoded.
        stages: whole windows by the number of their stage, the last one `windows`; empty where no stages are known.
        are_cut: whether earlier stages were cut out of the windows and not written, see `overlap_figures`.
    """

    windows: tuple[Int[Tensor, "_"], ...]
    ids: tuple[Int[Tensor, "_"], ...]
    texts: tuple[str, ...]
    stages: Mapping[int, Int[Tensor, "B _"]] = field(default_factory=dict)
    are_cut: bool = False

    @classmethod
    def of_windows(
        cls,
        windows: Sequence[Int[Tensor, "_"]],
        tokenizer: Tokenizer,
        stages: Mapping[int, Int[Tensor, "B _"]] | None = None,
    ) -> "MeasuredTexts":
        """Texts of known tokens."""
        ids = tuple(_without_fill(window, tokenizer.eos_id) for window in windows)
        texts = tuple(tokenizer.decode(row.tolist()) for row in ids)
        return cls(tuple(windows), ids, texts, stages or {})

    @classmethod
    def of_stages(cls, stages: Mapping[int, Int[Tensor, "B _"]], tokenizer: Tokenizer) -> "MeasuredTexts":
        """Texts that were written in stages, or cut into them."""
        return cls.of_windows(tuple(stages[max(stages)]), tokenizer, stages)

    @classmethod
    def of_texts(cls, texts: Sequence[str], tokenizer: Tokenizer) -> "MeasuredTexts":
        """Texts as files hold them, with ends of text spelt out; tokenized anew."""
        windows = [torch.tensor(shown_ids(text, tokenizer), dtype=torch.int64) for text in texts]
        return cls.of_windows(windows, tokenizer)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What texts are measured with; by default nothing, for figures of the texts alone.

    Attributes:
        judge: gives the perplexities; None for no perplexities.
        presets: which perplexities.
        features: vectors that MAUVE compares by; None for no MAUVE.
        keywords: what every text should hold.
        device: where the judge computes.
        seed: of MAUVE's clusters.
    """

    judge: Judge | None = None
    presets: Sequence[str] = PRESETS
    features: TextFeatures | None = None
    keywords: Sequence[str] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0


def sample_figures(
    texts: MeasuredTexts, measures: Measures | None = None, *, reference: MeasuredTexts | None = None
) -> list[Figure]:
    """Every figure of `texts`, in the order in which they are shown; no text is left out.

    A figure without a value for these texts is there with the reason. For the figures of a reference, call this again
    with the reference as `texts` and the same measures.

    Args:
        texts: any number.
        measures: what to measure besides counts, diversity and overlap.
        reference: real texts that MAUVE compares with; None for no MAUVE.

    Raises:
        MissingExtraError: MAUVE is asked for, and scikit-learn is not installed.
    """
    measures = measures or Measures()
    return [
        *_counts(texts),
        *_judged(texts, measures),
        *(
            []
            if measures.features is None or reference is None
            else _mauve(texts, reference, measures.features, measures.seed)
        ),
        *diversity_figures(texts.windows),
        *likeness_figures(texts.ids),
        *overlap_figures(texts.stages, are_cut=texts.are_cut),
        *keyword_figures(texts.texts, measures.keywords),
    ]


def _counts(texts: MeasuredTexts) -> list[Figure]:
    lengths = [len(row) for row in texts.ids]
    return [
        Figure("num_texts", float(len(texts)), "texts; none is left out"),
        Figure("num_empty_texts", float(lengths.count(0)), "texts without a token"),
        mean_figure(
            "tokens_per_text_mean",
            torch.tensor(lengths, dtype=torch.float64),
            "tokens of a text without the ends of text that fill its window; mean over texts",
            "there is no text",
        ),
    ]


def _judged(texts: MeasuredTexts, measures: Measures) -> list[Figure]:
    if measures.judge is None:
        return []
    with measures.judge.on(measures.device):
        nats = measures.judge.token_nats(texts.texts)
    return perplexity_figures(nats, measures.presets)


def _mauve(texts: MeasuredTexts, reference: MeasuredTexts, features: TextFeatures, seed: int) -> list[Figure]:
    """MAUVE and its clusters, if there are enough texts on both sides."""
    found, reason = None, ""
    if min(len(texts), len(reference)) < MIN_TEXTS:
        reason = f"it needs {MIN_TEXTS} texts on each side, and there are {len(texts)} and {len(reference)}"
    else:
        found = mauve(features(texts.texts), features(reference.texts), seed=seed)
    return [
        Figure(
            "mauve",
            None if found is None else found.score,
            "area under the divergence frontier of texts and reference in k-means clusters of their features; two sets "
            "of one law have about 0.96; it depends on features, and scatters where texts are few",
            reason,
            None if found is None else found.error,
        ),
        Figure(
            "mauve_num_clusters",
            None if found is None else float(found.num_clusters),
            "clusters of MAUVE, one for ten texts of the smaller side",
            reason,
        ),
    ]


def _without_fill(window: Int[Tensor, "_"], eos_id: int) -> Int[Tensor, "_"]:
    """The window up to its last token that is not an end of text."""
    (places,) = (window != eos_id).nonzero(as_tuple=True)
    return window[: int(places[-1]) + 1 if len(places) else 0]
