"""Words that a text must contain in order, and the law of the text given that it does.

A text contains the words if they stand in it one after another, each whole, with anything in between. Whether it does
is decided by an automaton that reads the text from left to right (Knuth, Morris & Pratt 1977, with words in sequence),
so for positions that are independent of each other the law given the words is exact and cheap: probabilities of
reaching the end are summed from right to left, then one path is drawn from left to right. A diffusion step writes
positions independently given the text so far, and conditioned in this way it never writes what the words cannot be
completed from. docs/sampling.md explains what that means for the law of the whole text.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.numerics import log_add

Word = tuple[int, ...]
"""Token ids that stand next to each other."""

_NONE = -1
_ROUNDING = 1e-6
"""Error of a sum of probabilities in float32."""
_AT_ONCE = 1 << 20
"""Moves that are drawn from at once, which bounds memory."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way of reading the required words at every position.

    Attributes:
        token: the id that the path puts there; -1 for any but those of `excluded`, (B, L).
        excluded: ids that would have led elsewhere, -1 where there are fewer and where the token is known, (B, L, A).
        log_reach: log P(all words are read at the end) from every state before every position and at the end, (B, S)
            each, of the law that the path is drawn from.
    """

    token: Int[Tensor, "B L"]
    excluded: Int[Tensor, "B L A"]
    log_reach: Sequence[Float[Tensor, "B S"]]


@dataclass(frozen=True, slots=True)
class RequiredWords:
    """The automata of a batch of texts: S states, at most A tokens that matter in each.

    Attributes:
        tokens: ids that matter in a state, -1 where there are fewer, (B, S, A).
        target: the state that each leads to, (B, S, A).
        otherwise: the state that any other token leads to, (B, S).
        end: the state in which all words have been read, (B,).
    """

    tokens: Int[Tensor, "B S A"]
    target: Int[Tensor, "B S A"]
    otherwise: Int[Tensor, "B S"]
    end: Int[Tensor, " B"]

    @classmethod
    def build(cls, words: Sequence[Sequence[Word]], device: torch.device | str = "cpu") -> "RequiredWords":
        """The automata for the words of every text, in their order.

        Raises:
            ConfigError: a word has no token.
        """
        keys = [tuple(map(tuple, of_text)) for of_text in words]
        # Texts often require the same words.
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        tables = [_automaton(key) for key in number]
        num_states = max(len(table) for table in tables)
        width = max(1, *(len(moves) for table in tables for moves, _ in table))
        shape = (len(tables), num_states, width)
        tokens, target = torch.full(shape, _NONE), torch.zeros(shape, dtype=torch.long)
        otherwise = torch.arange(num_states).repeat(len(tables), 1)
        for text, table in enumerate(tables):
            for state, (moves, default) in enumerate(table):
                otherwise[text, state] = default
                for place, (token, after) in enumerate(moves.items()):
                    tokens[text, state, place], target[text, state, place] = token, after
        end = torch.tensor([len(table) - 1 for table in tables])
        kind = torch.tensor([number[key] for key in keys], device=device)
        return cls(*(tensor.to(device) for tensor in (tokens, target, otherwise, end))).select(kind)

    def select(self, index: Int[Tensor, " b"]) -> "RequiredWords":
        """Those of some of the texts."""
        return RequiredWords(self.tokens[index], self.target[index], self.otherwise[index], self.end[index])

    def are_possible(self, xt: Int[Tensor, "B L"], mask_id: int) -> Bool[Tensor, " B"]:
        """Whether the masked positions of each text leave room for its words."""
        free = torch.zeros(*xt.shape, *self.tokens.shape[1:], device=xt.device)
        # Any probability below 1 / A will do: it only matters what is zero.
        log_probs = (free - torch.tensor(2.0 * self.tokens.shape[-1]).log()).masked_fill(self._absent, -torch.inf)
        return self._log_reach(self._of_text(log_probs, xt, mask_id))[0].gather(1, self._start)[:, 0] > -torch.inf

    def draw(
        self,
        log_probs: Float[Tensor, "B L S A"],
        xt: Int[Tensor, "B L"],
        u: Float[Tensor, "B L"],
        *,
        mask_id: int,
    ) -> Path:
        """A path from the law of the masked positions, independent of each other, given that all words are read.

            P(path) = product over positions of P(token or class of tokens) / P(all words are read)

        Args:
            log_probs: of the tokens that matter, in every state, at every position; only masked ones are looked at.
                With them the words must be possible (`are_possible` judges the room alone).
            xt: the texts so far.
            u: one uniform number a position.
            mask_id: of MASK.
        """
        moves = self._of_text(log_probs.to(u.dtype), xt, mask_id)
        reach = self._log_reach(moves)
        state, every = self._start[:, 0], torch.arange(len(xt), device=xt.device)
        visited, chosen = torch.empty_like(xt), torch.empty_like(xt)
        block = max(1, _AT_ONCE // max(1, math.prod(self._after.shape)))
        for first in range(0, xt.shape[1], block):
            # What is chosen in every state, so that from position to position only the state has to be looked up.
            positions = slice(first, first + block)
            choices = self._choices(moves[:, positions], reach[1:][positions], u[:, positions])
            after = self._after[:, None].expand(*choices.shape, -1).gather(-1, choices[..., None])[..., 0]
            for place in range(choices.shape[1]):
                visited[:, first + place], chosen[:, first + place] = state, choices[every, place, state]
                state = after[every, place, state]
        wanted = self.tokens[every[:, None], visited]
        token = torch.nn.functional.pad(wanted, (0, 1), value=_NONE).gather(-1, chosen[..., None])[..., 0]
        return Path(token, wanted.masked_fill(token[..., None] != _NONE, _NONE), reach)

    def _choices(
        self, moves: Float[Tensor, "B l S C"], reach: Sequence[Float[Tensor, "B S"]], u: Float[Tensor, "B l"]
    ) -> Int[Tensor, "B l S"]:
        """The move that is drawn in every state before some positions, with one uniform number a position.

        Args:
            moves: log probabilities at these positions.
            reach: log P(all words are read at the end) behind each of them.
            u: the numbers.
        """
        beyond = torch.stack([*reach], dim=1).gather(2, self._after.flatten(1)[:, None].expand(-1, len(reach), -1))
        log_law = moves + beyond.view(moves.shape)
        largest = log_law.amax(-1, keepdim=True)
        # Where the end is out of reach nothing has a law; no path that began where it is in reach comes there.
        weights = torch.where(largest > -torch.inf, log_law - largest, 0.0).exp()
        return sample_states(weights, u[..., None].expand(weights.shape[:-1]))

    @property
    def _after(self) -> Int[Tensor, "B S C"]:
        """The state that every move leads to, any other token last."""
        return torch.cat([self.target, self.otherwise[..., None]], dim=-1)

    @property
    def _absent(self) -> Bool[Tensor, "B 1 S A"]:
        return (self.tokens == _NONE)[:, None]

    @property
    def _start(self) -> Int[Tensor, "B 1"]:
        return torch.zeros_like(self.end)[:, None]

    def _of_text(self, log_probs: Tensor, xt: Tensor, mask_id: int) -> Float[Tensor, "B L S C"]:
        """Log probabilities of the moves of every state, C = A + 1 with any other token last; written ones are sure."""
        log_probs = log_probs.masked_fill(self._absent, -torch.inf)
        other = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp_min(0)
        # What rounding leaves of nothing must not be chosen: it may be that no other token is left.
        other = torch.where(other < _ROUNDING, 0.0, other).log()
        is_it = (xt[:, :, None, None] == self.tokens[:, None]).to(log_probs)
        written = torch.cat([is_it, 1 - is_it.sum(-1, keepdim=True)], dim=-1).log()
        is_masked = (xt == mask_id)[:, :, None, None]
        return torch.where(is_masked, torch.cat([log_probs, other], dim=-1), written)

    def _log_reach(self, moves: Float[Tensor, "B L S C"]) -> list[Tensor]:
        """log P(all words are read at the end) from every state before every position, (B, S) each; Eq. of `draw`."""
        num_states = self.otherwise.shape[1]
        is_end = torch.arange(num_states, device=moves.device) == self.end[:, None]
        reach = [torch.where(is_end, 0.0, -torch.inf).to(moves)]
        after = self._after.flatten(1)
        for position in reversed(range(moves.shape[1])):
            beyond = reach[-1].gather(1, after).view(moves[:, position].shape)
            # Of a handful of moves, in a third of the time that logsumexp takes for so few.
            reach.append(functools.reduce(log_add, (moves[:, position] + beyond).unbind(-1)))
        return reach[::-1]


def _automaton(words: Sequence[Word]) -> list[tuple[dict[int, int], int]]:
    """For every state the tokens that matter with the state they lead to, and the state for all others.

    A state is a place in the words laid end to end: those before it are read, and so is a beginning of the next one.
    """
    states: list[tuple[dict[int, int], int]] = []
    for word in words:
        if not word:
            raise ConfigError("a required word has no token; leave out words that are empty or only blanks")
        begin = len(states)
        for read in range(len(word)):
            moves = {token: begin + _overlap(word, (*word[:read], token)) for token in dict.fromkeys(word)}
            states.append(({token: after for token, after in moves.items() if after > begin}, begin))
    states.append(({}, len(states)))
    return states


def _overlap(word: Word, read: Word) -> int:
    """Length of the longest beginning of `word` that `read` ends with."""
    longest = min(len(word), len(read))
    return next(size for size in range(longest, -1, -1) if read[len(read) - size :] == word[:size])
