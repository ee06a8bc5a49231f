"""What a layout must leave room for: pinned text, and words of an outline between the tokens of the stage before.

Only some sizes of a gap are allowed, and only some places of a token. The law of independent gaps given these rules
and given their sum is exact: with d new tokens before a gap of size g there are d + g after it, so the probabilities of
reaching a place and of reaching the end from there are summed in one pass each, as for required words. Gaps are still
drawn one after another in a random order, each from its law given the rules, with the hidden gaps taken as independent
given the known ones. A layout that is drawn in this way always obeys the rules.
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
        room: for gaps in which words must stand where text is pinned: whether they have room in a gap with d new tokens
            before it and d' after it. The same for all texts.
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
            num_labels: number of sizes that a gap can have.
            pinned: ids of the longer text by position; a token of `z` may stand where the same token is pinned.
            words: for each text, the words that it must contain in order, the tokens of `z` among them; None if it must
                contain nothing but `z`.

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

        with A_i(d) the probability of d new tokens before gap i, and B_i(d) that of reaching the end from there.

        Args:
            log_laws: log law of every gap by itself; a known gap has -inf for all sizes but its own.
            gap: for each text, the number of the gap.

        Raises:
            ConfigError: no layout obeys the rules.
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
        """Checks that every text has a layout that obeys the rules.

        Raises:
            ConfigError: a text has none.
        """
        uniform = torch.zeros(self.sizes.shape, dtype=torch.float64, device=self.sizes.device)
        self._ahead(uniform.masked_fill(~self.sizes, -torch.inf))

    def _ahead(self, log_laws: Float[Tensor, "B G S"]) -> list[Tensor]:
        """Log probability of reaching the end from every d before every gap, and after the last gap: (B, S) each.

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
        """The log law of a gap as that of a move from d (rows) to d + g (columns); -inf where the rules forbid it."""
        num_labels = log_laws.shape[-1]
        label = torch.arange(num_labels, device=log_laws.device)
        size = (label[None] - label[:, None]).clamp_min(0)
        is_allowed = self._allowed(gap, num_labels) & self._stands(num_labels)[:, gap, None]
        return log_laws[:, gap][:, size].masked_fill(~is_allowed, -torch.inf)

    def _stands(self, num_labels: int) -> Bool[Tensor, "B G S"]:
        """Whether d new tokens may stand before what follows a gap: a token, or the end, before which all stand."""
        end = torch.arange(num_labels, device=self.places.device) == num_labels - 1
        return torch.cat([self.places, end.expand(len(self.places), 1, -1)], dim=1)

    def _allowed(self, gap: int, num_labels: int) -> Bool[Tensor, "S S"]:
        """Whether a gap may lead from d to d': d' is not smaller, and the words of the gap have room."""
        forward = torch.ones(num_labels, num_labels, dtype=torch.bool, device=self.sizes.device).triu()
        room = self.room.get(gap)
        return forward if room is None else forward & room


@dataclass(frozen=True, slots=True)
class _Gap:
    """What must stand in a gap before, between or after the tokens of `z`.

    Attributes:
        pieces: in order, runs of tokens that stay together: whole words, and the remaining tokens of the words that the
            tokens of `z` around the gap belong to.
        follows: whether the first piece belongs to the word of the token before, and so comes right after it.
        precedes: whether the last piece belongs to the word of the token after, and so comes right before it.
        is_exact: whether both tokens belong to one word, so that nothing else may stand between them.
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
            number: number of the gap, which begins at the position `number` + d.
            pins: the pinned id at every position, -1 where nothing is pinned.
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
    """Whether the tokens can stand from position `first` on, given what is pinned there."""
    there = pins[first : first + len(piece)]
    return len(there) == len(piece) and all(pin in (-1, token) for pin, token in zip(there, piece, strict=True))


def _between(z: Sequence[int], words: Sequence[Word]) -> list[_Gap]:
    """What must stand in every gap around `z`, whose tokens are found in the words, in order.

    Raises:
        ConfigError: they are not.
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
            # Nothing may be inserted inside a word, so the gap is exact if `last` is this word.
            gaps.append(_Gap(tuple(pieces.values()), last in pieces, number in pieces, number == last))
            pieces, last, wanted = {}, number, next(rest, None)
    if wanted is not None:
        raise ConfigError(
            f"the text of the stage before holds the id {wanted}, which the required words do not hold in its place; "
            "give the stage the text that it is made of"
        )
    return [*gaps, _Gap(tuple(pieces.values()), last in pieces, False, False)]
