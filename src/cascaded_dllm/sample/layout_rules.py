"""What a layout must leave room for: pinned text, and the words of an outline between those that are known.

A gap may have some sizes only, and a token may stand in some places only. Gaps that are independent of each other have
an exact law given both and given their sum: with d new tokens before a place, a gap of size g leads from d to d + g, so
probabilities of reaching the end are summed from right to left and from left to right, as for required words. Gaps are
still drawn one after another in a random order, each from its law given what is asked, the others taken as independent
given those that are known: a layout drawn so has room for what is asked, always.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.required import Word


@dataclass(frozen=True, slots=True)
class LayoutRules:
    """What is allowed in the layouts of a batch of texts: n tokens, G = n + 1 gaps, S sizes of a gap, 0 ... S - 1.

    Attributes:
        sizes: whether a gap may have a size.
        places: whether d new tokens may stand before a token, which then stands at its number + d.
    """

    sizes: Bool[Tensor, "B G S"]
    places: Bool[Tensor, "B n S"]

    @classmethod
    def build(
        cls,
        z: Int[Tensor, "B n"],
        num_labels: int,
        *,
        pinned: Mapping[int, int],
        words: Sequence[Sequence[Word]] | None = None,
    ) -> "LayoutRules":
        """The rules for texts that hold `z`, pinned text and words.

        Args:
            z: ids of the texts that are laid out.
            num_labels: sizes that a gap can have.
            pinned: ids of the longer text by position; a token of `z` may stand on one that is the same.
            words: of each text those that it must contain in order, of which the tokens of `z` are a part; None for
                no others than those of `z`.

        Raises:
            ConfigError: the tokens of `z` are not found in the words.
        """
        num_texts, length = z.shape
        sizes = torch.ones(num_texts, length + 1, num_labels, dtype=torch.bool)
        for row, of_text, ids in zip(sizes, words or [], z.tolist(), strict=False):
            for gap, (least, is_exact) in zip(row, _between(ids, of_text), strict=True):
                gap[:least] = False
                if is_exact:
                    gap[least + 1 :] = False
        place = torch.arange(length)[:, None] + torch.arange(num_labels)
        pins = torch.full((length + num_labels - 1,), -1)
        pins[list(pinned)] = torch.tensor(list(pinned.values()), dtype=pins.dtype)
        found = pins[place].to(z.device)
        return cls(sizes.to(z.device), (found == -1) | (found == z[..., None]))

    def log_law(self, log_laws: Float[Tensor, "B G S"]) -> Float[Tensor, "B G S"]:
        """The log law of every gap given the rules and the sum S - 1, from laws of gaps that are independent.

            P(gap i = g | rules) = sum over d of A_i(d) p_i(g) B_{i+1}(d + g) / B_0(0)

        with A and B the probabilities of coming to d and of going on from there.

        Args:
            log_laws: of every gap by itself; -inf for all sizes but one makes it known.

        Raises:
            ConfigError: there is no such layout.
        """
        num_labels = log_laws.shape[-1]
        # Token i allows some d after gap i, and the text as a whole only d = S - 1 after the last gap.
        end = torch.arange(num_labels, device=log_laws.device) == num_labels - 1
        allowed = torch.cat([self.places, end.expand(len(log_laws), 1, -1)], dim=1)
        moves = [
            _steps(law).masked_fill(~allowed[:, i, None], -torch.inf)
            for i, law in enumerate(log_laws.double().masked_fill(~self.sizes, -torch.inf).unbind(1))
        ]
        ahead = [torch.zeros(len(log_laws), num_labels, dtype=torch.float64, device=log_laws.device)]
        for move in reversed(moves):
            ahead.append(torch.logsumexp(move + ahead[-1][:, None], dim=-1))
        ahead.reverse()
        if (ahead[0][:, 0] == -torch.inf).any():
            raise ConfigError(
                "the text of the stage before cannot be laid out around what is pinned or required: its words do not "
                "fit between; pin less, or elsewhere"
            )
        before = torch.where(torch.arange(num_labels, device=log_laws.device) == 0, 0.0, -torch.inf).to(ahead[0])
        before = before.expand(len(log_laws), -1)
        laws = []
        for move, after in zip(moves, ahead[1:], strict=True):
            through = before[..., None] + move + after[:, None]
            laws.append(_by_size(through))
            before = torch.logsumexp(before[..., None] + move, dim=1)
        return F.log_softmax(torch.stack(laws, dim=1), dim=-1).to(log_laws)


def _between(z: Sequence[int], words: Sequence[Word]) -> list[tuple[int, bool]]:
    """For every gap around `z` the tokens of `words` that must stand there, and whether no others may.

    Raises:
        ConfigError: `z` is not a part of the words.
    """
    flat = [(token, number) for number, word in enumerate(words) for token in word]
    gaps, least, word = [], 0, -1
    rest = iter(z)
    wanted = next(rest, None)
    for token, number in flat:
        if token != wanted:
            least += 1
            continue
        # Inside of a word nothing may be added.
        gaps.append((least, number == word))
        least, word, wanted = 0, number, next(rest, None)
    if wanted is not None:
        raise ConfigError(
            f"the text of the stage before holds the id {wanted}, which the required words do not hold in its place; "
            "give the stage the text that it is made of"
        )
    return [*gaps, (least, False)]


def _steps(log_law: Float[Tensor, "B S"]) -> Float[Tensor, "B S S"]:
    """The law of a gap as one of moves from d (rows) to d + g (columns)."""
    label = torch.arange(log_law.shape[-1], device=log_law.device)
    size = label[None] - label[:, None]
    return log_law[:, size.clamp_min(0)].masked_fill(size < 0, -torch.inf)


def _by_size(log_moves: Float[Tensor, "B S S"]) -> Float[Tensor, "B S"]:
    """Moves from d to d + g, added up for every g."""
    diagonals = (log_moves.diagonal(size, 1, 2) for size in range(log_moves.shape[-1]))
    return torch.stack([torch.logsumexp(diagonal, dim=-1) for diagonal in diagonals], dim=-1)
