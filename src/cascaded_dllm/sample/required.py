"""Words that a text must contain in order, and the law of the text given that it does.

A text contains the words if they stand in it one after another, each whole, with anything in between. An automaton that
reads the text from left to right decides whether it does (Knuth, Morris & Pratt 1977, with words in sequence). So for
independent positions the law given the words is exact and cheap: the probabilities of reaching the end are summed from
right to left, then one path is drawn from left to right. A diffusion step writes positions independently given the text
so far. Conditioned in this way, it never writes tokens after which the words no longer fit. docs/sampling.md explains
what that means for the law of the whole text.
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
"""Rounding error of a sum of probabilities in float32."""
_AT_ONCE = 1 << 20
"""Most moves that are held at once when a path is drawn, which bounds memory."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way of reading the required words at every position.

    Attributes:
        token: the id that the path puts at a position; -1 for any id except those of `excluded`, (B, L).
        excluded: ids that would lead to another state; padded with -1, and all -1 where `token` is an id, (B, L, A).
        log_reach: log P(all words are read at the end) from every state, under the law that the path is drawn from:
            one (B, S) before every position, and one at the end.
    """

    token: Int[Tensor, "B L"]
    excluded: Int[Tensor, "B L A"]
    log_reach: Sequence[Float[Tensor, "B S"]]


@dataclass(frozen=True, slots=True)
class RequiredWords:
    """The automata of a batch of texts: S states, and at most A tokens that matter in a state.

    Attributes:
        tokens: ids that matter in a state, padded with -1, (B, S, A).
        target: the state that each of them leads to, (B, S, A).
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
        """The automata of some of the texts."""
        return RequiredWords(self.tokens[index], self.target[index], self.otherwise[index], self.end[index])

    def are_possible(self, xt: Int[Tensor, "B L"], mask_id: int) -> Bool[Tensor, " B"]:
        """Whether the masked positions of each text leave room for its words."""
        free = torch.zeros(*xt.shape, *self.tokens.shape[1:], device=xt.device)
        # Any probability below 1 / A will do: it only matters which ones are zero.
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
        """A path drawn from the law of independent masked positions, given that all words are read.

            P(path) = product over positions of P(token or class of tokens) / P(all words are read)

        Args:
            log_probs: log probabilities of the tokens that matter in every state, at every position; only masked
                positions are used. They must allow the words, which nothing checks: `are_possible` only checks the
                room.
            xt: the texts so far.
            u: one uniform number for each position.
            mask_id: id of MASK.
        """
        moves = self._of_text(log_probs.to(u.dtype), xt, mask_id)
        reach = self._log_reach(moves)
        state, every = self._start[:, 0], torch.arange(len(xt), device=xt.device)
        visited, chosen = torch.empty_like(xt), torch.empty_like(xt)
        block = max(1, _AT_ONCE // max(1, math.prod(self._after.shape)))
        for first in range(0, xt.shape[1], block):
            # Draws a move in every state, so that each position then only takes the one of its state.
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
        """A move for every state before some positions, drawn with one uniform number for each position.

        Args:
            moves: log probabilities of the moves at these positions.
            reach: log P(all words are read at the end) after each of these positions.
            u: the uniform numbers.
        """
        beyond = torch.stack([*reach], dim=1).gather(2, self._after.flatten(1)[:, None].expand(-1, len(reach), -1))
        log_law = moves + beyond.view(moves.shape)
        largest = log_law.amax(-1, keepdim=True)
        # A state from which the end cannot be reached has no law, and no drawn path comes to it.
        weights = torch.where(largest > -torch.inf, log_law - largest, 0.0).exp()
        return sample_states(weights, u[..., None].expand(weights.shape[:-1]))

    @property
    def _after(self) -> Int[Tensor, "B S C"]:
        """The state that every move leads to; C = A + 1, with that of any other token last."""
        return torch.cat([self.target, self.otherwise[..., None]], dim=-1)

    @property
    def _absent(self) -> Bool[Tensor, "B 1 S A"]:
        return (self.tokens == _NONE)[:, None]

    @property
    def _start(self) -> Int[Tensor, "B 1"]:
        return torch.zeros_like(self.end)[:, None]

    def _of_text(self, log_probs: Tensor, xt: Tensor, mask_id: int) -> Float[Tensor, "B L S C"]:
        """Log probabilities of the moves of every state, that of any other token last; written tokens are certain."""
        log_probs = log_probs.masked_fill(self._absent, -torch.inf)
        other = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp_min(0)
        # A remainder that is only rounding must not be chosen: perhaps there is no other token.
        other = torch.where(other < _ROUNDING, 0.0, other).log()
        is_it = (xt[:, :, None, None] == self.tokens[:, None]).to(log_probs)
        written = torch.cat([is_it, 1 - is_it.sum(-1, keepdim=True)], dim=-1).log()
        is_masked = (xt == mask_id)[:, :, None, None]
        return torch.where(is_masked, torch.cat([log_probs, other], dim=-1), written)

    def _log_reach(self, moves: Float[Tensor, "B L S C"]) -> list[Tensor]:
        """log P(all words are read at the end) from every state: one (B, S) before every position, one at the end."""
        num_states = self.otherwise.shape[1]
        is_end = torch.arange(num_states, device=moves.device) == self.end[:, None]
        reach = [torch.where(is_end, 0.0, -torch.inf).to(moves)]
        after = self._after.flatten(1)
        for position in reversed(range(moves.shape[1])):
            beyond = reach[-1].gather(1, after).view(moves[:, position].shape)
            # For a handful of moves, this takes a third of the time of logsumexp.
            reach.append(functools.reduce(log_add, (moves[:, position] + beyond).unbind(-1)))
        return reach[::-1]


def _automaton(words: Sequence[Word]) -> list[tuple[dict[int, int], int]]:
    """For every state, the tokens that matter with the states they lead to, and the state that all others lead to.

    A state is a place in the words laid end to end: the tokens before this place are read, so it says how many words,
    and how much of the next word.
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
