"""What a layout must leave room for: pinned text, and the words of an outline between those that are known.

A gap may have some sizes only, and a token may stand in some places only. Gaps that are independent of each other have
an exact law given both and given their sum: with d new tokens before a place, a gap of size g leads from d to d + g, so
probabilities of reaching the end are summed from right to left and from left to right, as for required words. Gaps are
still drawn one after another in a random order, each from its law given what is asked, the others taken as independent
given those that are known: a layout drawn so has room for what is asked, always.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
        room: for gaps in which words must stand beside pinned text, whether they can if the gap leads from d to d';
            the same for all texts.
    """

    sizes: Bool[Tensor, "B G S"]
    places: Bool[Tensor, "B n S"]
    room: Mapping[int, Bool[Tensor, "S S"]] = field(default_factory=dict)

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
        between = [_between(ids, of_text) for ids, of_text in zip(z.tolist(), words or [], strict=False)]
        for row, gaps in zip(sizes, between, strict=False):
            for allowed, gap in zip(row, gaps, strict=True):
                allowed[: gap.num_tokens] = False
                if gap.is_exact:
                    allowed[gap.num_tokens + 1 :] = False
        place = torch.arange(length)[:, None] + torch.arange(num_labels)
        pins = torch.full((length + num_labels - 1,), -1)
        pins[list(pinned)] = torch.tensor(list(pinned.values()), dtype=pins.dtype)
        found = pins[place].to(z.device)
        room = {}
        if pinned and between:
            assert all(gaps == between[0] for gaps in between), "an outline is one text, and so is what is made of it"
            room = {
                number: gap.room(number, pins.tolist(), num_labels).to(z.device)
                for number, gap in enumerate(between[0])
                if gap.num_tokens > 0
            }
        return cls(sizes.to(z.device), (found == -1) | (found == z[..., None]), room)

    def log_law(self, log_laws: Float[Tensor, "B G S"], gap: Int[Tensor, " B"]) -> Float[Tensor, "B S"]:
        """The log law of one gap of every text given the rules and the sum S - 1, from laws of independent gaps.

            P(gap i = g | rules) = sum over d of A_i(d) p_i(g) B_{i+1}(d + g) / B_0(0)

        with A and B the probabilities of coming to d and of going on from there.

        Args:
            log_laws: of every gap by itself; -inf for all sizes but one makes it known.
            gap: number of the gap of each text.

        Raises:
            ConfigError: there is no such layout.
        """
        num_texts, num_gaps, num_labels = log_laws.shape
        every = torch.arange(num_texts, device=log_laws.device)
        log_laws = log_laws.double().masked_fill(~self.sizes, -torch.inf)
        ahead = self._ahead(log_laws)
        label = torch.arange(num_labels, device=log_laws.device)
        before = torch.where(label == 0, 0.0, -torch.inf).to(log_laws).expand(num_texts, -1)
        reached = [before]
        for i in range(num_gaps - 1):
            before = torch.logsumexp(before[..., None] + self._move(log_laws, i), dim=1)
            reached.append(before)
        through = torch.stack(reached, 1)[every, gap, :, None] + torch.stack(ahead, 1)[every, gap + 1, None]
        allowed = torch.stack([self._allowed(i, num_labels) for i in range(num_gaps)])
        through = through.masked_fill(~allowed[gap] | ~self._stands(num_labels)[every, gap, None], -torch.inf)
        sums = [torch.logsumexp(through.diagonal(size, 1, 2), dim=-1) for size in range(num_labels)]
        return F.log_softmax(torch.stack(sums, dim=-1) + log_laws[every, gap], dim=-1)

    def require_possible(self) -> None:
        """Checks that there is a layout of every text that leaves room for what is asked.

        Raises:
            ConfigError: there is none.
        """
        uniform = torch.zeros(self.sizes.shape, dtype=torch.float64, device=self.sizes.device)
        self._ahead(uniform.masked_fill(~self.sizes, -torch.inf))

    def _ahead(self, log_laws: Float[Tensor, "B G S"]) -> list[Tensor]:
        """Log probability of coming to the end from every d before every gap, and after the last one: (B, S) each.

        Raises:
            ConfigError: a text has no layout.
        """
        ahead = [torch.zeros_like(log_laws[:, 0])]
        for i in reversed(range(log_laws.shape[1])):
            ahead.append(torch.logsumexp(self._move(log_laws, i) + ahead[-1][:, None], dim=-1))
        if (ahead[-1][:, 0] == -torch.inf).any():
            raise ConfigError(
                "the text of the stage before cannot be laid out around what is pinned or required: its words do not "
                "fit between; pin less, or elsewhere"
            )
        return ahead[::-1]

    def _move(self, log_laws: Float[Tensor, "B G S"], gap: int) -> Float[Tensor, "B S S"]:
        """The law of a gap as one of moves from d (rows) to d + g (columns), with those that the rules allow."""
        num_labels = log_laws.shape[-1]
        label = torch.arange(num_labels, device=log_laws.device)
        size = (label[None] - label[:, None]).clamp_min(0)
        is_allowed = self._allowed(gap, num_labels) & self._stands(num_labels)[:, gap, None]
        return log_laws[:, gap][:, size].masked_fill(~is_allowed, -torch.inf)

    def _stands(self, num_labels: int) -> Bool[Tensor, "B G S"]:
        """Whether what follows a gap may stand after d new tokens: a token, or the end after all of them."""
        end = torch.arange(num_labels, device=self.places.device) == num_labels - 1
        return torch.cat([self.places, end.expand(len(self.places), 1, -1)], dim=1)

    def _allowed(self, gap: int, num_labels: int) -> Bool[Tensor, "S S"]:
        """Whether a gap may lead from d to d'; never back, and only where its words have room."""
        forward = torch.ones(num_labels, num_labels, dtype=torch.bool, device=self.sizes.device).triu()
        room = self.room.get(gap)
        return forward if room is None else forward & room


@dataclass(frozen=True, slots=True)
class _Gap:
    """What must stand between two tokens that are known.

    Attributes:
        pieces: tokens that stand next to each other, in order: words, and the rest of those that the tokens around
            belong to.
        follows: whether the first piece belongs to the word of the token before, and so comes right after it.
        precedes: whether the last one belongs to the word of the token after.
        is_exact: whether both tokens belong to one word, so that nothing else stands between them.
    """

    pieces: tuple[tuple[int, ...], ...]
    follows: bool
    precedes: bool
    is_exact: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of all pieces."""
        return sum(map(len, self.pieces))

    def room(self, number: int, pins: Sequence[int], num_labels: int) -> Bool[Tensor, "S S"]:
        """Whether the pieces have room beside pinned text if the gap leads from d to d' new tokens.

        Args:
            number: of the gap, which begins at the position `number` + d.
            pins: the pinned id at every position, -1 where none is.
            num_labels: S.
        """
        middle = list(self.pieces)
        right = middle.pop() if self.precedes else ()
        left = middle.pop(0) if self.follows and middle else ()
        found = torch.zeros(num_labels, num_labels, dtype=torch.bool)
        for d in range(num_labels):
            first = number + d + len(left)
            if not _fits(left, number + d, pins):
                continue
            for piece in middle:
                first = next((p for p in range(first, len(pins)) if _fits(piece, p, pins)), len(pins)) + len(piece)
            for after in range(d, num_labels):
                last = number + after - len(right)
                is_whole = not self.is_exact or after - d == self.num_tokens
                found[d, after] = is_whole and last >= first and _fits(right, last, pins)
        return found


def _fits(piece: Sequence[int], first: int, pins: Sequence[int]) -> bool:
    """Whether tokens can stand from position `first` on, where some may be pinned already."""
    there = pins[first : first + len(piece)]
    return len(there) == len(piece) and all(pin in (-1, token) for pin, token in zip(there, piece, strict=True))


def _between(z: Sequence[int], words: Sequence[Word]) -> list[_Gap]:
    """What must stand in every gap around `z`, which is a part of the words.

    Raises:
        ConfigError: it is not.
    """
    gaps: list[_Gap] = []
    pieces: dict[int, tuple[int, ...]] = {}
    last = None
    rest = iter(z)
    wanted = next(rest, None)
    for number, word in enumerate(words):
        for token in word:
            if token != wanted:
                pieces[number] = (*pieces.get(number, ()), token)
                continue
            # Inside of a word nothing may be added.
            gaps.append(_Gap(tuple(pieces.values()), last in pieces, number in pieces, number == last))
            pieces, last, wanted = {}, number, next(rest, None)
    if wanted is not None:
        raise ConfigError(
            f"the text of the stage before holds the id {wanted}, which the required words do not hold in its place; "
            "give the stage the text that it is made of"
        )
    return [*gaps, _Gap(tuple(pieces.values()), last in pieces, False, False)]
