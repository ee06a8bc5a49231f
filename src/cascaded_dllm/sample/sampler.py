"""Sampling one stage: the loop over time, as a generator of states that others watch, draw or store.

Under the absorbing process a step splits exactly into two draws, whether a position leaves MASK and to which token,
so nothing of the size of the vocabulary exists but the logits of the rows that need them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states, sample_tokens
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process, UniformProcess
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.ddit import Rows
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.conditioning import Conditioning, require_guidable
from cascaded_dllm.sample.predictors import (
    FirstHittingPredictor,
    GridPredictor,
    Predictor,
    denoise_probs,
)

_ROW_CHUNK_ELEMENTS = 1 << 24
"""Logits held at once, 64 MB in float32."""


@dataclass(frozen=True, slots=True)
class SamplerState:
    """A batch of texts on their way from noise to text.

    Attributes:
        xt: ids, (B, L); MASK where nothing is decided yet.
        step: steps done, 0 before the first.
        num_steps: steps in all, the final denoising included.
        nfe: network calls so far; a call on a part of the batch counts as its share.
    """

    xt: Int[Tensor, "B L"]
    step: int
    num_steps: int
    nfe: float


@dataclass(frozen=True, slots=True)
class Start:
    """Texts that are noised in part, to begin with in place of pure noise.

    Attributes:
        xt: ids, (B, L); what is not noised stays under the absorbing process.
        t: time that each text is noised to, (B,).
    """

    xt: Int[Tensor, "B L"]
    t: Float[Tensor, " B"]


def require_usable(predictor: Predictor, process: Process, num_steps: int) -> None:
    """Checks what `StageSampler.states` is given, for callers who learn of a mistake too late there.

    Raises:
        ConfigError: `num_steps` is less than 1, or the predictor does not exist for this process.
    """
    if num_steps < 1:
        raise ConfigError(f"steps is {num_steps}; it must be at least 1, for example 128")
    if isinstance(process, UniformProcess) and isinstance(predictor, FirstHittingPredictor):
        raise ConfigError(
            "predictor first_hitting needs the absorbing process, this model has the uniform one; "
            "choose euler or analytic"
        )


@dataclass(frozen=True, slots=True)
class StageSampler:
    """One stage, ready to be sampled.

    Attributes:
        model: the network, in evaluation mode.
        process: forward process it was trained with.
        schedule: noise schedule it was trained with.
        length: tokens it writes.
        t_end: time at which the steps stop and the final denoising takes over.
        prefix_length: tokens of the stage before, 0 for none; a prefix of another length is refused. None: any.
        trained_with: what was done to its prefixes in training, which decides whether it can be guided.
    """

    model: ScoreModel
    process: Process
    schedule: Schedule
    length: int
    t_end: float = 1e-5
    prefix_length: int | None = None
    trained_with: PrefixSettings = TRUE_PREFIXES

    def states(
        self,
        prefix: Int[Tensor, "B P"] | None,
        *,
        predictor: Predictor,
        num_steps: int,
        draws: Draws,
        sample_index: Int[Tensor, " B"],
        start: Start | None = None,
        guidance: float = 0.0,
    ) -> Iterator[SamplerState]:
        """States from noise to finished texts; the last one holds no MASK.

        Args:
            prefix: ids of the stage before, or None.
            predictor: how a step is taken.
            num_steps: steps of the time grid, before the final denoising; first hitting has no grid and ignores it.
            draws: the stream of random numbers.
            sample_index: number of each text; its random numbers depend on it and not on the batch.
            start: texts to begin with; pure noise if None.
            guidance: weight of classifier-free guidance; 0 is none, everything else takes two calls in place of one.

        Raises:
            ConfigError: `num_steps` is less than 1, the predictor does not exist for this process, the prefix has
                another length than in training, or the stage cannot be guided.
        """
        require_usable(predictor, self.process, num_steps)
        found = 0 if prefix is None else prefix.shape[1]
        if self.prefix_length is not None and found != self.prefix_length:
            raise ConfigError(
                f"the prefix has {found} tokens, this stage was trained on {self.prefix_length}; give it what the "
                "stage before writes"
            )
        require_guidable(guidance, self.trained_with, found)
        given = Conditioning.encode(self.model, prefix, target_length=self.length, guidance=guidance)
        if isinstance(self.process, UniformProcess):
            assert not isinstance(predictor, FirstHittingPredictor)
            yield from self._uniform(self.process, given, predictor, num_steps, draws, sample_index, start)
        elif isinstance(predictor, FirstHittingPredictor):
            yield from self._first_hitting(self.process, given, draws, sample_index, start)
        else:
            yield from self._absorbing(self.process, given, predictor, num_steps, draws, sample_index, start)

    def _absorbing(
        self,
        process: AbsorbingProcess,
        given: Conditioning,
        predictor: GridPredictor,
        num_steps: int,
        draws: Draws,
        sample_index: Tensor,
        start: Start | None,
    ) -> Iterator[SamplerState]:
        """Steps on a time grid, then the final denoising of what is still MASK."""
        xt = self._first_texts(process, sample_index, start)
        nfe = 0.0
        yield SamplerState(xt.clone(), 0, num_steps + 1, nfe)
        times = self._grid(num_steps, sample_index, start)
        for step in range(num_steps + 1):
            rows = Rows(*torch.nonzero(xt == process.mask_id, as_tuple=True))
            u = draws.uniform_pair(sample_index[rows.batch], step, rows.position)
            t = times[step]
            if step == num_steps:
                nfe += self._unmask(xt, rows, u, t, given)
            else:
                factor = predictor.unmask_factor(self.schedule, t, times[step + 1])
                nfe += self._leave_mask(xt, rows, u, t, factor, given)
            yield SamplerState(xt.clone(), step + 1, num_steps + 1, nfe)

    @torch.inference_mode()
    def _leave_mask(
        self,
        xt: Tensor,
        rows: Rows,
        u: tuple[Tensor, Tensor],
        t: Float[Tensor, " B"],
        factor: Float[Tensor, " B"],
        given: Conditioning,
    ) -> float:
        """One step in place: P(leave MASK) = factor * sum of scores, then the token from softmax(logits).

        With normalized scores their sum is 1 / expm1(sigma) without asking the network, which is then called only
        for the texts that change: the law is the same, and a text costs at most one call a token.

        Returns:
            Network calls, as the share of the batch that was computed.
        """
        sigma = self.schedule(t).sigma
        if self.model.config.parameterization == "normalized":
            leaves, fresh = _split(u, (factor / torch.expm1(sigma))[rows.batch])
            return self._unmask(xt, Rows(rows.batch[leaves], rows.position[leaves]), fresh, t, given)
        if len(rows.batch) == 0:
            return 0.0
        batch, local = _active(rows)
        hidden, unconditional = given.hidden(self.model, xt, sigma[batch], batch, local)
        log_scale = self.model.log_scale(sigma)[rows.batch]
        for chunk in self._chunks(len(hidden)):
            logits = self._token_logits(hidden[chunk])
            total = torch.exp(torch.logsumexp(logits, -1) - log_scale[chunk])
            leaves, fresh = _split((u[0][chunk], u[1][chunk]), factor[rows.batch[chunk]] * total)
            other = None if unconditional is None else self._token_logits(unconditional[chunk][leaves])
            token = sample_tokens(given.guided(logits[leaves], other), fresh)
            xt[rows.batch[chunk][leaves], rows.position[chunk][leaves]] = token
        return given.num_calls * len(batch) / len(xt)

    @torch.inference_mode()
    def _unmask(
        self, xt: Tensor, rows: Rows, u: tuple[Tensor, Tensor], t: Float[Tensor, " B"], given: Conditioning
    ) -> float:
        """Fill the positions `rows` of `xt` in place with tokens from softmax(logits) at the times `t`.

        Returns:
            Network calls, as the share of the batch that was computed.
        """
        if len(rows.batch) == 0:
            return 0.0
        batch, local = _active(rows)
        hidden, unconditional = given.hidden(self.model, xt, self.schedule(t[batch]).sigma, batch, local)
        for chunk in self._chunks(len(hidden)):
            other = None if unconditional is None else self._token_logits(unconditional[chunk])
            logits = given.guided(self._token_logits(hidden[chunk]), other)
            xt[rows.batch[chunk], rows.position[chunk]] = sample_tokens(logits, (u[0][chunk], u[1][chunk]))
        return given.num_calls * len(batch) / len(xt)

    def _first_hitting(
        self,
        process: AbsorbingProcess,
        given: Conditioning,
        draws: Draws,
        sample_index: Tensor,
        start: Start | None,
    ) -> Iterator[SamplerState]:
        """One token a text and call, in a uniformly random order, at exact times."""
        length = self.length
        xt = self._first_texts(process, sample_index, start)
        num_masked = (xt == process.mask_id).sum(-1)
        num_steps = length if start is None else int(num_masked.max())
        nfe = 0.0
        yield SamplerState(xt.clone(), 0, num_steps, nfe)
        position = torch.arange(length, device=xt.device)
        # What is not masked comes last in the order, and its turn never comes.
        place = draws.uniform_pair(sample_index[:, None], 0, position)[0] + (xt != process.mask_id)
        order = place.argsort(dim=-1)
        first = torch.ones(len(xt), device=xt.device) if start is None else start.t
        log_move_prob = torch.log(-torch.expm1(-self.schedule(first).sigma))
        for step in range(num_steps):
            # Counters beyond the positions of the text belong to the times.
            wait, _ = draws.uniform_pair(sample_index, step + 1, torch.full_like(sample_index, length))
            left = num_masked - step
            log_move_prob = log_move_prob + torch.log(wait).to(log_move_prob) / left.clamp_min(1)
            # Where noise all but saturates, rounding may put the first time beyond the end.
            t = self.schedule.time_at(-torch.log1p(-log_move_prob.exp())).clamp_max(1)
            (batch,) = torch.nonzero(left > 0, as_tuple=True)
            rows = Rows(batch, order[batch, step])
            nfe += self._unmask(xt, rows, draws.uniform_pair(sample_index[batch], step + 1, rows.position), t, given)
            yield SamplerState(xt.clone(), step + 1, num_steps, nfe)

    def _uniform(
        self,
        process: UniformProcess,
        given: Conditioning,
        predictor: GridPredictor,
        num_steps: int,
        draws: Draws,
        sample_index: Tensor,
        start: Start | None,
    ) -> Iterator[SamplerState]:
        """Steps on a time grid in which every position may jump."""
        position = torch.arange(self.length, device=sample_index.device)
        if start is None:
            noise, _ = draws.uniform_pair(sample_index[:, None], 0, position)
            xt = (noise * process.num_states).long().clamp_max(process.num_states - 1)
        else:
            xt = start.xt
        yield SamplerState(xt, 0, num_steps + 1, 0.0)
        times = self._grid(num_steps, sample_index, start)
        for step in range(num_steps + 1):
            t = times[step]
            with torch.inference_mode():
                log_score = self.model(xt, self.schedule(t).sigma, given.prefix)
            if step == num_steps:
                probs = denoise_probs(process, log_score, xt, self.schedule(t).sigma)
            else:
                probs = predictor.step_probs(process, self.schedule, log_score, xt, t, times[step + 1])
            u, _ = draws.uniform_pair(sample_index[:, None], step + 1, position)
            xt = sample_states(probs, u)
            yield SamplerState(xt, step + 1, num_steps + 1, step + 1.0)

    def _first_texts(self, process: AbsorbingProcess, sample_index: Tensor, start: Start | None) -> Int[Tensor, "B L"]:
        """A copy of the given texts, or nothing but MASK."""
        if start is not None:
            return start.xt.clone()
        return torch.full((len(sample_index), self.length), process.mask_id, device=sample_index.device)

    def _grid(self, num_steps: int, sample_index: Tensor, start: Start | None) -> Float[Tensor, "n B"]:
        """Times of `num_steps` equal steps from the beginning of every text to `t_end`, both ends included."""
        times = torch.linspace(1, self.t_end, num_steps + 1, device=sample_index.device)[:, None]
        if start is not None:
            # The same grid, shrunk to what is left of the way.
            times = self.t_end + (times - self.t_end) * (start.t.clamp_min(self.t_end) - self.t_end) / (1 - self.t_end)
        return times.expand(-1, len(sample_index))

    def _token_logits(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        return self.model.logits(hidden)[:, : self.model.config.vocab_size]

    def _chunks(self, num_rows: int) -> Iterator[slice]:
        size = max(1, _ROW_CHUNK_ELEMENTS // self.model.config.num_states)
        for start in range(0, num_rows, size):
            yield slice(start, start + size)


def _split(
    u: tuple[Float[Tensor, " M"], Float[Tensor, " M"]], prob: Float[Tensor, " M"]
) -> tuple[Bool[Tensor, " M"], tuple[Float[Tensor, " m"], Float[Tensor, " m"]]]:
    """Which rows have the event of probability `prob`, and two numbers for those that are uniform given that.

    The first of `u` decides; below its threshold it is uniform up to the threshold only, so it is stretched again.
    """
    prob = prob.to(u[0].dtype).clamp_max(1)
    happens = u[0] < prob
    return happens, (u[0][happens] / prob[happens], u[1][happens])


def _active(rows: Rows) -> tuple[Int[Tensor, " b"], Rows]:
    """The sequences that `rows` touch, and the rows numbered within them."""
    batch, local = torch.unique(rows.batch, return_inverse=True)
    return batch, Rows(local, rows.position)
