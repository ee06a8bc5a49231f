"""A cascade: stages sampled one after another, each on what the one before wrote."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.prefix_noise import noised_prefix
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import schedule_from_settings
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.pretrained import PretrainedStage, Weights, load_stage
from cascaded_dllm.sample.belonging import require_same_tokenizer, shared_packing, with_lengths, written_lengths
from cascaded_dllm.sample.conditioning import require_guidable, require_noisable
from cascaded_dllm.sample.drawing import DEFAULT_STEPS, Drawing
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import SamplerState, StageSampler, require_usable
from cascaded_dllm.text.tokenizer import Tokenizer


class CascadeState(NamedTuple):
    """One state of one batch on its way through the cascade.

    Attributes:
        stage: 1..K.
        first_sample: number of the first text of the batch.
        state: ids and progress within the stage.
    """

    stage: int
    first_sample: int
    state: SamplerState


@dataclass(frozen=True, slots=True)
class CascadeSamples:
    """Finished texts.

    Attributes:
        ids: per stage, ids of all texts, (num_samples, length of the stage), on the CPU.
        texts: per stage, the decoded texts.
        nfe: per stage, network calls a batch, averaged over batches; a guided step takes two.
        token_forwards: positions that went through a network, prefix included, over all texts and stages.
    """

    ids: tuple[Int[Tensor, "B _"], ...]
    texts: tuple[list[str], ...]
    nfe: tuple[float, ...]
    token_forwards: int


class CascadeBatch(NamedTuple):
    """Texts that are finished.

    Attributes:
        numbers: of the texts, in the order of the rows.
        samples: the texts themselves, and what this batch has cost.
    """

    numbers: tuple[int, ...]
    samples: CascadeSamples


@dataclass(frozen=True, slots=True)
class Cascade:
    """Stages in order, and the tokenizer they share. A flat model is a cascade of one stage.

    Attributes:
        stages: first stage first; the first ones of a longer cascade are a cascade too.
        tokenizer: of all stages.
        trained_lengths: all stage lengths of the cascade that the stages, or the flat model, were trained for; they
            decide which windows of a corpus belong to it.
        is_flat: the only stage is a flat model.
        packing: how documents were cut into the windows that the stages were trained on; empty if no checkpoint says.
        passed_over: damaged checkpoints that a run folder had beside the one that was loaded.
    """

    stages: tuple[StageSampler, ...]
    tokenizer: Tokenizer
    trained_lengths: tuple[int, ...]
    is_flat: bool = False
    packing: str = ""
    passed_over: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(
        cls,
        stages: Sequence[str | Path],
        *,
        lengths: Sequence[int] | None = None,
        tokenizer: str | Path | None = None,
        weights: Weights = "ema",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Cascade":
        """A cascade from one checkpoint, run folder or hub id a stage, first stage first.

        Args:
            stages: where the stages are.
            lengths: stage lengths, for checkpoints that do not say them: a SEDD model is a flat model of the last one.
            tokenizer: file, folder or hub id; by default the one stored beside the first stage's weights.
            weights: the moving average or the raw weights.
            device: where the networks go.
            dtype: of the matrix products of the trunk; the output layer and the probabilities stay in float32.

        Raises:
            CheckpointError: a checkpoint cannot be read, or the stages do not belong together.
            ConfigError: no stage is given, or `lengths` are none or others than those of a checkpoint.
        """
        if not stages:
            raise ConfigError("no stage is given; a cascade needs at least 1 checkpoint")
        loaded = [with_lengths(load_stage(source, weights=weights), lengths) for source in stages]
        source = tokenizer or loaded[0].tokenizer_path
        if source is None:
            raise CheckpointError(
                f"{loaded[0].folder} holds no tokenizer.json; name one with --tokenizer, for example gpt2"
            )
        shared = Tokenizer.load(source)
        used = written_lengths(loaded)
        packing = shared_packing(loaded)
        for stage in loaded:
            require_same_tokenizer(stage, shared)
            if dtype != torch.float32:
                stage.model.keep_trunk_in(dtype)
        samplers = tuple(
            stage_sampler(stage, length=length, prefix_length=prefix, device=device)
            for stage, length, prefix in zip(loaded, used, (0, *used[:-1]), strict=True)
        )
        settings = loaded[0].settings
        passed_over = tuple(fault for stage in loaded for fault in stage.passed_over)
        return cls(samplers, shared, settings.stage_lengths, settings.stage == 0, packing, passed_over)

    @property
    def stage_lengths(self) -> tuple[int, ...]:
        """Tokens every stage writes."""
        return tuple(stage.length for stage in self.stages)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.stages[0].model.vocab_embed.embedding.device

    def num_steps(self, predictor: str, steps: int | None) -> int | None:
        """Steps of the time grid of every stage; None for first hitting, which has none.

        Raises:
            ConfigError: the predictor is unknown, `steps` is given though it has no grid, or is less than 1.
        """
        return Drawing(steps=steps, predictor=predictor).num_steps()

    def generate(
        self,
        num_samples: int,
        *,
        steps: int | None = None,
        predictor: str = "first_hitting",
        seed: int = 0,
        batch_size: int = 32,
        guidance: float = 0.0,
        prefix_noise: float = 0.0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> CascadeSamples:
        """Texts of all stages; text i depends on `seed` and i, not on the batch it is drawn in.

        Args:
            num_samples: how many.
            steps: steps of the time grid of every stage, 128 if None; first hitting has no grid and takes None only.
            predictor: euler, analytic or first_hitting.
            seed: decides everything.
            batch_size: texts drawn together.
            guidance: weight of classifier-free guidance by the prefix, for stages trained with prefix dropout; 0 is
                none.
            prefix_noise: probability that a token that a later stage is given is replaced as in its training, for
                stages trained with prefix noise. What a stage wrote stays as it is.
            on_progress: told after every step the texts done, counted once a stage, and their number in all stages.

        Raises:
            ConfigError: a number is less than 1, the predictor is unknown or does not fit, or a stage was not trained
                for guidance or prefix noise.
        """
        drawing = Drawing(
            steps=steps,
            predictor=predictor,
            seed=seed,
            batch_size=batch_size,
            guidance=guidance,
            prefix_noise=prefix_noise,
        )
        drawing.require_sound(num_samples)
        parts = [part for _, part in self.batches(range(num_samples), drawing, on_progress=on_progress)]
        return CascadeSamples(
            tuple(torch.cat(stage) for stage in zip(*(part.ids for part in parts), strict=True)),
            tuple(list(itertools.chain(*stage)) for stage in zip(*(part.texts for part in parts), strict=True)),
            tuple(
                sum(part.nfe[k] * len(part.texts[k]) for part in parts) / num_samples for k in range(len(self.stages))
            ),
            sum(part.token_forwards for part in parts),
        )

    def batches(
        self,
        numbers: Sequence[int],
        drawing: Drawing,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[CascadeBatch]:
        """The texts of these numbers, a batch as soon as it is finished; text i is the same in any of them.

        Args:
            numbers: of the texts, in any order: those that are missing, for example.
            drawing: how they are drawn.
            on_progress: told after every step the texts done, counted once a stage, and their number in all stages.
            should_stop: asked after every step; if so, no more batches come, and the unfinished one is lost.

        Raises:
            ConfigError: a setting is out of range or does not fit the stages.
        """
        num_stages = len(self.stages)
        for start, batch in self._cut(numbers, drawing):
            ended: list[SamplerState] = []
            for _, _, state in self._states(batch, drawing):
                if on_progress is not None:
                    within = len(batch) * state.step // state.num_steps
                    on_progress(start * num_stages + len(ended) * len(batch) + within, len(numbers) * num_stages)
                if state.step == state.num_steps:
                    ended.append(state)
                if len(ended) < num_stages and should_stop is not None and should_stop():
                    return
            yield CascadeBatch(tuple(batch), self._finished(ended, drawing.guidance))

    def _finished(self, ended: Sequence[SamplerState], guidance: float) -> CascadeSamples:
        """A batch from the last state of every stage."""
        ids = tuple(state.xt.cpu() for state in ended)
        nfe = tuple(state.nfe for state in ended)
        return CascadeSamples(
            ids,
            tuple([self.tokenizer.decode(row) for row in stage.tolist()] for stage in ids),
            nfe,
            round(self._token_forwards(nfe, guidance) * len(ids[0])),
        )

    def stream(
        self,
        num_samples: int,
        *,
        steps: int | None = None,
        predictor: str = "first_hitting",
        seed: int = 0,
        batch_size: int = 32,
        guidance: float = 0.0,
        prefix_noise: float = 0.0,
    ) -> Iterator[CascadeState]:
        """The states that `generate` goes through, for those who want to watch; same arguments."""
        drawing = Drawing(
            steps=steps,
            predictor=predictor,
            seed=seed,
            batch_size=batch_size,
            guidance=guidance,
            prefix_noise=prefix_noise,
        )
        drawing.require_sound(num_samples)
        for _, batch in self._cut(range(num_samples), drawing):
            yield from self._states(batch, drawing)

    def _cut(self, numbers: Sequence[int], drawing: Drawing) -> Iterator[tuple[int, Sequence[int]]]:
        """Batches of the texts `numbers`, each with how many come before it, once all settings are checked."""
        self.require_drawable(drawing)
        for start in range(0, len(numbers), drawing.batch_size):
            yield start, numbers[start : start + drawing.batch_size]

    def _states(self, batch: Sequence[int], drawing: Drawing) -> Iterator[CascadeState]:
        """The way of one batch through the stages."""
        predictor = predictor_from_name(drawing.predictor)
        num_steps = drawing.num_steps() or DEFAULT_STEPS  # of no account for first hitting
        prefix = None
        index = torch.tensor(batch, device=self.device)
        for number, stage in enumerate(self.stages, start=1):
            if prefix is not None and drawing.prefix_noise > 0:
                draws = Draws(drawing.seed, f"sample-prefix-noise-{number}")
                prefix = _noised(prefix, stage, draws, sample_index=index, prob=drawing.prefix_noise)
            for state in stage.states(
                prefix,
                predictor=predictor,
                num_steps=num_steps,
                draws=Draws(drawing.seed, f"sample-stage-{number}"),
                sample_index=index,
                guidance=0.0 if prefix is None else drawing.guidance,
            ):
                yield CascadeState(number, batch[0], state)
            prefix = state.xt

    def require_drawable(self, drawing: Drawing) -> None:
        """Checks, before anything is drawn, that these stages can do what is asked.

        Raises:
            ConfigError: a setting is out of range or does not fit the stages.
        """
        drawing.require_sound(1)
        predictor, num_steps = predictor_from_name(drawing.predictor), drawing.num_steps() or DEFAULT_STEPS
        for stage in self.stages:
            require_usable(predictor, stage.process, num_steps)
        self._require_conditioning(drawing.guidance, drawing.prefix_noise)

    def _require_conditioning(self, guidance: float, prefix_noise: float) -> None:
        """Checks, before anything is drawn, that every later stage can be guided and given noised prefixes.

        Raises:
            ConfigError: a stage was not trained for it, there is no later stage, or a value is out of range.
        """
        prefixed = list(zip(self.stages[1:], self.stage_lengths, strict=False)) or [(self.stages[0], 0)]
        for stage, prefix_length in prefixed:
            require_guidable(guidance, stage.trained_with, prefix_length)
            require_noisable(prefix_noise, stage.trained_with, prefix_length)

    def _token_forwards(self, nfe: Sequence[float], guidance: float) -> float:
        """Positions computed for one text: the target in every call, the prefix in every call or, if kept, once.

        With guidance the empty prefix is kept as well.
        """
        prefixes = (0, *self.stage_lengths[:-1])
        num_kept = 1 if guidance == 0 else 2
        return sum(
            calls * (stage.length + prefix)
            if stage.model.config.prefix_attention == "joint"
            else calls * stage.length + num_kept * prefix
            for stage, prefix, calls in zip(self.stages, prefixes, nfe, strict=True)
        )


def stage_sampler(
    stage: PretrainedStage, *, length: int, prefix_length: int, device: str | torch.device
) -> StageSampler:
    """A stage from a checkpoint, on `device` and ready to be sampled."""
    settings = stage.settings
    return StageSampler(
        stage.model.to(device),
        process_from_name(settings.model.process, settings.model.vocab_size),
        schedule_from_settings(settings.noise),
        length,
        prefix_length=prefix_length,
        trained_with=settings.prefix,
    )


def _noised(
    prefix: Int[Tensor, "B P"], stage: StageSampler, draws: Draws, *, sample_index: Int[Tensor, " B"], prob: float
) -> Int[Tensor, "B P"]:
    """What `stage` is given in place of `prefix`: tokens replaced in the way that it was trained with."""
    u = draws.uniform_pair(sample_index[:, None], 0, torch.arange(prefix.shape[1], device=prefix.device))
    return noised_prefix(prefix, u, prob=prob, kind=stage.trained_with.noise_kind, process=stage.process)
