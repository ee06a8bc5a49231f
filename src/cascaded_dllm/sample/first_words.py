"""Words that a person asks for, written before all else: the place of each is drawn, one word after another.

At a call the network gives every masked position a law of its own. It says where a word may stand, and not yet what
goes with it. Words that wait until what is around them has been written find a text that has no place for them, and
stand in it where they do not belong. Written first, they are what the rest of the text is written to.

The place of a word is drawn from the law of the masked positions given that this word and those after it are read there
in order (`required`), behind the word before. With the word written the network is asked for the next one. What is left
is then written from its law given the words, by any predictor.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.sample.required import RequiredWords, Word
from cascaded_dllm.sample.state import Start
from cascaded_dllm.sample.writing import TokenWriter, masked_rows, sigma_of_masks

_PASSED = -2
"""In place of every token before the end of the word that was written last: no word is read there."""


def write_first(
    writer: TokenWriter, words: Sequence[Sequence[Word]], start: Start, schedule: Schedule, *, num_noised: int
) -> tuple[Start, float]:
    """The texts with their words, and the network calls that it took, one a word.

    Args:
        writer: of tokens.
        words: of every text, in order; there must be room for them.
        start: where the texts begin; a word may stand in it already.
        schedule: of the noise, which says how noisy a text is that has so many masked positions.
        num_noised: positions that are masked at time 1.
    """
    xt, nfe = start.xt.clone(), 0.0
    begin = [0] * len(words)
    position = torch.arange(xt.shape[1], device=xt.device)
    for step in range(max(map(len, words))):
        with_more = [text for text, of_text in enumerate(words) if len(of_text) > step]
        texts = torch.tensor(with_more, device=xt.device)
        rest = RequiredWords.build([of_text[step:] for of_text in words], xt.device)
        behind = xt.masked_fill(position < torch.tensor(begin, device=xt.device)[:, None], _PASSED)
        asking = replace(writer, required=rest)
        sigma = sigma_of_masks(xt[texts], writer.mask_id, schedule, num_noised=num_noised)
        answer = asking.ask(xt, texts, masked_rows(xt[texts], writer.mask_id), sigma)
        path = asking.path(behind, answer, torch.full_like(texts, step))
        read = torch.where(behind[texts] == writer.mask_id, path.token, behind[texts]).tolist()
        for text, tokens in zip(with_more, read, strict=True):
            word = words[text][step]
            place = _place(tokens, word, begin[text])
            begin[text] = place + len(word)
            xt[text, place : begin[text]] = torch.tensor(word, device=xt.device)
        nfe += writer.nfe(texts)
    return Start(xt, start.t), nfe


def _place(tokens: Sequence[int], word: Word, begin: int) -> int:
    """Where a word begins that is known to stand in a text, from `begin` on."""
    places = range(begin, len(tokens) - len(word) + 1)
    return next(place for place in places if tuple(tokens[place : place + len(word)]) == tuple(word))
