"""Runs of neighbouring tokens of many texts, numbered: what diversity, repetition and self-BLEU are counted from."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

TokenTexts: TypeAlias = Int[Tensor, "B L"] | Sequence[Int[Tensor, "_"]]
"""The tokens of every text: of one length as rows, or of any."""


class RunCounts(NamedTuple):
    """How often every run occurs in every text that has it, one entry for each such pair.

    Attributes:
        text: number of the text, rising.
        code: number of the run.
        times: how often it is there, at least 1.
    """

    text: Int[Tensor, " E"]
    code: Int[Tensor, " E"]
    times: Int[Tensor, " E"]


class TokenRuns(NamedTuple):
    """All runs of n neighbouring tokens of some texts, in order; none spans two texts.

    Attributes:
        code: a number for every run, the same for the same tokens.
        text: number of the text that each is in.
        per_text: how many every text has.
    """

    code: Int[Tensor, " R"]
    text: Int[Tensor, " R"]
    per_text: Int[Tensor, " B"]

    def counts(self) -> RunCounts:
        """How often every text has every one of its runs."""
        size = int(self.code.max()) + 1 if len(self.code) else 1
        pairs, times = (self.text * size + self.code).unique(return_counts=True)
        return RunCounts(pairs // size, pairs % size, times)


def token_runs(texts: TokenTexts, n: int) -> TokenRuns:
    """The runs of `n` tokens of every text, in time and memory that grow with the number of tokens alone."""
    rows = list(texts)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    tokens = torch.cat([row.cpu() for row in rows]) if rows else torch.zeros(0, dtype=torch.int64)
    text = torch.arange(len(rows)).repeat_interleave(lengths)
    first = tokens.unique(return_inverse=True)[1]
    num_tokens = int(first.max()) + 1 if len(first) else 1
    code = first
    for size in range(2, n + 1):
        # A run is a run of one token less and its last token; new numbers keep the product small.
        code = (code[:-1] * num_tokens + first[size - 1 :]).unique(return_inverse=True)[1]
    is_within = text[: len(code)] == text[n - 1 :]
    return TokenRuns(code[is_within], text[: len(code)][is_within], (lengths - n + 1).clamp_min(0))
