"""Asking the network about masked positions and writing tokens there, for all samplers of the absorbing process."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_tokens
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import NonFiniteScoresError
from cascaded_dllm.model.copy_head import States
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.conditioning import Conditioning
from cascaded_dllm.sample.predictors import SurestPredictor
from cascaded_dllm.sample.required import Path, RequiredWords
from cascaded_dllm.sample.token_law import TokenLaw

_ROW_CHUNK_ELEMENTS = 1 << 24
"""Most logits that are held at once: 64 MB in float32."""

Pair = tuple[Float[Tensor, "_"], Float[Tensor, "_"]]
"""Two uniform numbers for each row."""


class Writing(NamedTuple):
    """The masked positions that one call writes, and what it needs for that.

    Attributes:
        texts: numbers of the texts that take part, within the batch.
        rows: the positions to be written, texts numbered within `texts`.
        sigma: for each text, the noise that the network gets.
        step: for each text, the step of the random numbers of required words.
        u: two uniform numbers for each row.
    """

    texts: Int[Tensor, " b"]
    rows: Rows
    sigma: Float[Tensor, " b"]
    step: Int[Tensor, " b"]
    u: Pair


@dataclass(frozen=True, slots=True)
class Answer:
    """The network's answer about masked positions of some texts: states, from which logits are read in parts.

    Attributes:
        texts: numbers of the texts, within the batch.
        rows: the positions, texts numbered within `texts`.
        states: state of every row.
        unconditional: the same without the prefix, for guidance; None without guidance.
    """

    texts: Int[Tensor, " b"]
    rows: Rows
    states: States
    unconditional: States | None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows.batch)


@dataclass(frozen=True, slots=True)
class TokenWriter:
    """Writes tokens of one stage.

    Attributes:
        model: the network.
        conditioning: what it is conditioned on.
        law: how its law is changed.
        required: automata of the words that the texts must contain; None for none.
        mask_id: id of MASK.
        path_draws: stream of random numbers for the places of these words.
        sample_index: number of each text.
    """

    model: ScoreModel
    conditioning: Conditioning
    law: TokenLaw
    required: RequiredWords | None
    mask_id: int
    path_draws: Draws
    sample_index: Int[Tensor, " B"]

    def nfe(self, texts: Int[Tensor, " b"]) -> float:
        """Network calls of asking about these texts, counted as their share of the batch; twice that with guidance."""
        return self.conditioning.num_calls * len(texts) / len(self.sample_index)

    @torch.inference_mode()
    def ask(self, xt: Int[Tensor, "B L"], texts: Int[Tensor, " b"], rows: Rows, sigma: Float[Tensor, " b"]) -> Answer:
        """The network's answer about `rows` of `texts` at noise `sigma`."""
        return Answer(texts, rows, *self.conditioning.states(self.model, xt, sigma, texts, rows))

    def write(self, xt: Int[Tensor, "B L"], writing: Writing) -> None:
        """Asks the network about some masked positions of the batch, and writes tokens there, in place."""
        texts, rows, sigma, step, u = writing
        if self.required is None:
            self.fill(xt, self.ask(xt, texts, rows, sigma), slice(None), u, step)
            return
        masked = masked_rows(xt[texts], self.mask_id)
        is_written = torch.zeros_like(xt[texts], dtype=torch.bool)
        is_written[rows.batch, rows.position] = True
        self.fill(xt, self.ask(xt, texts, masked, sigma), is_written[masked.batch, masked.position], u, step)

    @torch.inference_mode()
    def fill(
        self,
        xt: Int[Tensor, "B L"],
        answer: Answer,
        kept: Bool[Tensor, " M"] | slice,
        u: Pair,
        step: Int[Tensor, " b"],
    ) -> None:
        """Writes tokens at some rows of an answer, in place; where there is no law, MASK stays (`require_written`).

        Args:
            xt: the texts of the batch.
            answer: the network's answer; with required words, about all masked positions of its texts.
            kept: the rows of the answer that are written.
            u: two uniform numbers for each of them.
            step: for each text, the step of the random numbers of required words.
        """
        rows = Rows(answer.rows.batch[kept], answer.rows.position[kept])
        states, unconditional = answer.states.select(kept), _part(answer.unconditional, kept)
        path = None if self.required is None else self.path(xt, answer, step)
        for chunk in self._chunks(len(rows.batch)):
            part = Rows(rows.batch[chunk], rows.position[chunk])
            texts = answer.texts[part.batch]
            logits = self._kept(states.select(chunk), _part(unconditional, chunk), texts)
            if path is not None:
                logits = _without(logits, path.excluded[part.batch, part.position])
            token = sample_tokens(logits, (u[0][chunk], u[1][chunk]))
            token = torch.where(token < 0, self.mask_id, token)
            if path is not None:
                fixed = path.token[part.batch, part.position]
                token = torch.where(fixed >= 0, fixed, token)
            xt[texts, part.position] = token

    @torch.inference_mode()
    def sureness(self, answer: Answer, predictor: SurestPredictor) -> Float[Tensor, " M"]:
        """How sure the network is of every row, by its own law: at temperature 0 it would be sure of everything."""
        chunks = self._chunks(len(answer))
        laws = (self._guided(answer.states.select(chunk), _part(answer.unconditional, chunk)) for chunk in chunks)
        return torch.cat([answer.states.hidden.new_empty(0), *map(predictor.sureness, laws)])

    @torch.inference_mode()
    def log_total(self, answer: Answer) -> Float[Tensor, " M"]:
        """Log of the sum of exp(logits) over all tokens for every row, with the prefix and without guidance."""
        assert answer.states.copies is None, "a copy head is of normalized networks, whose sums are known"
        return self.model.log_total(answer.states.hidden)

    @torch.inference_mode()
    def path(self, xt: Int[Tensor, "B L"], answer: Answer, step: Int[Tensor, " b"]) -> Path:
        """A path of the required words, drawn for all masked positions together even if only some are written.

        Args:
            xt: the texts of the batch as the automata read them, which may differ from those that were asked about.
            answer: the network's answer about all masked positions of its texts.
            step: for each text, the step of the random numbers.

        Raises:
            NonFiniteScoresError: the network answers with NaN or infinity.
        """
        assert self.required is not None, "nothing is required"
        required, texts = self.required.select(answer.texts), xt[answer.texts]
        states, width = required.tokens.shape[1:]
        log_probs = torch.zeros(*texts.shape, states, width, device=xt.device)
        for chunk in self._chunks(len(answer)):
            batch, position = answer.rows.batch[chunk], answer.rows.position[chunk]
            logits = self._kept(answer.states.select(chunk), _part(answer.unconditional, chunk), answer.texts[batch])
            matters = required.tokens[batch].clamp_min(0).flatten(1)
            found = torch.log_softmax(logits, -1).gather(1, matters)
            log_probs[batch, position] = found.view(len(found), states, width).to(log_probs)
        if num_lost := int(log_probs.isnan().any(-1).any(-1).sum()):
            raise no_law(num_lost, texts)
        position = torch.arange(xt.shape[1], device=xt.device)
        u, _ = self.path_draws.uniform_pair(self.sample_index[answer.texts][:, None], step[:, None], position)
        return required.draw(log_probs, texts, u, mask_id=self.mask_id)

    def _kept(self, states: States, unconditional: States | None, texts: Int[Tensor, " M"]) -> Float[Tensor, "M V"]:
        """Logits of the law that tokens are drawn from, in which required words of the row's text are never cut off."""
        always = None if self.required is None else self.required.tokens[texts].flatten(1)
        return self.law.cut(self.law.tempered(self._guided(states, unconditional)), always)

    def _guided(self, states: States, unconditional: States | None) -> Float[Tensor, "M V"]:
        """Logits of the network's own law, with guidance if there is any."""
        other = None if unconditional is None else self._logits(unconditional)
        return self.conditioning.guided(self._logits(states), other)

    def _logits(self, states: States) -> Float[Tensor, "M V"]:
        return self.model.read(states)[:, : self.model.config.vocab_size]

    def _chunks(self, num_rows: int) -> Iterator[slice]:
        size = max(1, _ROW_CHUNK_ELEMENTS // self.model.config.num_states)
        for start in range(0, num_rows, size):
            yield slice(start, start + size)


def require_written(xt: Int[Tensor, "B L"], mask_id: int) -> None:
    """Checks that texts are finished; they still have MASK where the network gave no law.

    Call it once for each batch, since it reads from the device.

    Raises:
        NonFiniteScoresError: a text has MASK.
    """
    if num_masked := int((xt == mask_id).sum()):
        raise no_law(num_masked, xt)


def no_law(num_positions: int, xt: Int[Tensor, "B L"]) -> NonFiniteScoresError:
    """The error for texts in which the network gives no law at `num_positions` positions."""
    return NonFiniteScoresError(
        f"the network answers with NaN or infinity at {num_positions} of {xt.numel()} positions, and no token can be "
        f"drawn from that; its weights may be broken, or its device ({xt.device}) fails: try an earlier checkpoint, "
        "float32 or another device"
    )


def masked_rows(xt: Int[Tensor, "B L"], mask_id: int) -> Rows:
    """The masked positions of all texts, text by text."""
    return Rows(*torch.nonzero(xt == mask_id, as_tuple=True))


def sigma_of_masks(xt: Int[Tensor, "b L"], mask_id: int, schedule: Schedule, *, num_noised: int) -> Float[Tensor, " b"]:
    """The noise at which each text is expected to have as many masked positions, of `num_noised` at time 1."""
    share = (xt == mask_id).sum(-1) / num_noised
    highest = schedule(torch.ones((), device=xt.device)).sigma
    # Where noise saturates, rounding may give infinite noise.
    return (-torch.log1p(share * torch.expm1(-highest))).clamp_max(highest)


def _part(states: States | None, kept: Tensor | slice) -> States | None:
    return None if states is None else states.select(kept)


def _without(logits: Float[Tensor, "M V"], excluded: Int[Tensor, "M A"]) -> Float[Tensor, "M V"]:
    """Logits with -inf for the excluded tokens; -1 excludes nothing."""
    spare = logits.shape[-1]
    wider = torch.nn.functional.pad(logits, (0, 1))
    return wider.scatter(-1, torch.where(excluded < 0, spare, excluded), -torch.inf)[:, :spare]
