"""Words that the user asks for, written before all else: the place of each is drawn, one word after another.

In a call, the network gives every masked position a law of its own. These laws say where a word may stand, but not yet
what goes with it. Words that wait until the text around them is written come into a text that has no place for them.
Written first, they are what the rest of the text is written around.

The place of a word is drawn from the law of the masked positions, given that this word and those after it can be read
in order (`required`) behind the word before. The word is written, and the network is asked again for the next one. If
the next words are then less probable than the call before expected, the places so far were worse than they looked. So
several placings are drawn, and one is chosen with a probability proportional to

    product over words k of P(words from k on are read, given those before k) / P(the same, expected at word k - 1)

which is sampling importance resampling (Rubin 1987). With more placings, the law of the places comes nearer to that of
the network, the product over words of P(word is first read at its place, given the words before). The rest of the text
is then written from its law given the words, by any predictor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.sample.required import RequiredWords, Word
from cascaded_dllm.sample.state import Start
from cascaded_dllm.sample.writing import TokenWriter, masked_rows, sigma_of_masks

_PASSED = -2
"""Stands for every token up to the end of the word that was written last, where no other word may be read."""
_PLACINGS, _CALLS = 8, 64
"""The most placings that are drawn, and the most calls that they may take; a single placing may take more."""


def num_placings(num_words: int) -> int:
    """The number of placings that are drawn for this many words."""
    return max(1, min(_PLACINGS, _CALLS // num_words)) if num_words else 1


@dataclass(frozen=True, slots=True)
class FirstWords:
    """Writes words into texts before all else.

    Attributes:
        writer: asks the network.
        words: words of every text, in order; the caller has checked that there is room for them.
        schedule: noise schedule, which gives the noise that goes with a number of masked positions.
        num_noised: positions that are masked at time 1.
    """

    writer: TokenWriter
    words: Sequence[Sequence[Word]]
    schedule: Schedule
    num_noised: int

    def written(self, start: Start) -> tuple[Start, float]:
        """The texts with their words, and the mean number of network calls for each text.

        Args:
            start: the texts to begin with, which may already hold some of the words.
        """
        num_calls = [num_placings(len(of_text)) * len(of_text) for of_text in self.words]
        turns = range(max(num_placings(len(of_text)) for of_text in self.words))
        placings, log_weights = zip(*(self._placing(start.xt, turn) for turn in turns), strict=True)
        # The choice has a step of its own, after those of all words.
        last = torch.tensor(num_calls, device=start.xt.device)
        u, _ = self.writer.path_draws.uniform_pair(self.writer.sample_index, last, torch.zeros_like(last))
        log_weight = torch.stack(log_weights, dim=-1)
        chosen = sample_states((log_weight - log_weight.amax(-1, keepdim=True)).exp(), u)
        every = torch.arange(len(chosen), device=chosen.device)
        nfe = self.writer.conditioning.num_calls * sum(num_calls) / len(num_calls)
        return Start(torch.stack(placings)[chosen, every], start.t), nfe

    def _placing(self, xt: Int[Tensor, "B L"], turn: int) -> tuple[Int[Tensor, "B L"], Float[Tensor, " B"]]:
        """The texts with their words at drawn places, and the log weight of this placing.

        A text that has fewer placings stays without words, with a log weight of -inf.

        Args:
            xt: the texts before their words are written.
            turn: number of the placing.
        """
        xt, device = xt.clone(), xt.device
        # The number of placings of a text must not depend on the other texts of the batch.
        words = [of_text if turn < num_placings(len(of_text)) else () for of_text in self.words]
        has_turn = torch.tensor([turn < num_placings(len(of_text)) for of_text in self.words], device=device)
        begin = torch.zeros(len(xt), dtype=torch.long, device=device)
        log_weight, expected = torch.zeros(2, len(xt), device=device).unbind()
        position = torch.arange(xt.shape[1], device=device)
        for number in range(max(map(len, words))):
            with_more = [text for text, of_text in enumerate(words) if len(of_text) > number]
            texts, now = torch.tensor(with_more, device=device), [words[text][number] for text in with_more]
            rest = RequiredWords.build([of_text[number:] for of_text in words], device)
            behind = xt.masked_fill(position < begin[:, None], _PASSED)
            asking, mask_id = replace(self.writer, required=rest), self.writer.mask_id
            sigma = sigma_of_masks(xt[texts], mask_id, self.schedule, num_noised=self.num_noised)
            answer = asking.ask(xt, texts, masked_rows(xt[texts], mask_id), sigma)
            step = torch.tensor([turn * len(words[text]) + number for text in with_more], device=device)
            path = asking.path(behind, answer, step)
            read = torch.where(behind[texts] == mask_id, path.token, behind[texts]).tolist()
            log_weight[texts] += (path.log_reach[0][:, 0] - expected[texts]).to(log_weight)
            first = map(_place, read, now, begin[texts].tolist())
            place, size = (torch.tensor([*numbers], device=device) for numbers in (first, map(len, now)))
            begin[texts] = end = place + size
            token = torch.tensor([token for word in now for token in word], device=device)
            row = torch.arange(len(texts), device=device).repeat_interleave(size)
            before = (size.cumsum(0) - size)[row]
            xt[texts[row], place[row] + torch.arange(len(token), device=device) - before] = token
            # After the word, the automaton is in the state in which the next word begins.
            reached = torch.stack([*path.log_reach])[end, torch.arange(len(texts), device=device), size]
            expected[texts] = reached.to(expected)
        return xt, log_weight.masked_fill(~has_turn, -torch.inf)


def _place(tokens: Sequence[int], word: Word, begin: int) -> int:
    """The first position from `begin` on at which `word` stands; the text must contain it there."""
    places = range(begin, len(tokens) - len(word) + 1)
    return next(place for place in places if tuple(tokens[place : place + len(word)]) == tuple(word))
