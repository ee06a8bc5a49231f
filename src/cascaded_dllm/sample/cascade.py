"""A cascade: stages sampled one after another, each on what the one before wrote."""

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
from cascaded_dllm.sample.predictors import has_grid, predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import SamplerState
from cascaded_dllm.text.tokenizer import Tokenizer

DEFAULT_STEPS = 128
"""Steps of the time grid of a stage, for the predictors that have one."""


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
        if not has_grid(predictor_from_name(predictor)):
            if steps is not None:
                raise ConfigError(
                    f"steps is {steps} and the predictor first_hitting, which has no time grid: it makes one call a "
                    "token; leave steps out, or choose euler or analytic"
                )
            return None
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1, for example 128")
        return DEFAULT_STEPS if steps is None else steps

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
        finished: list[list[Tensor]] = [[] for _ in self.stages]
        calls: list[list[tuple[float, int]]] = [[] for _ in self.stages]
        for stage, _, state in self.stream(
            num_samples,
            steps=steps,
            predictor=predictor,
            seed=seed,
            batch_size=batch_size,
            guidance=guidance,
            prefix_noise=prefix_noise,
        ):
            if on_progress is not None:
                before = sum(size for parts in calls for _, size in parts)
                within = len(state.xt) * state.step // state.num_steps
                on_progress(before + within, num_samples * len(self.stages))
            if state.step == state.num_steps:
                finished[stage - 1].append(state.xt.cpu())
                calls[stage - 1].append((state.nfe, len(state.xt)))
        ids = tuple(torch.cat(parts) for parts in finished)
        nfe = tuple(sum(n * size for n, size in parts) / num_samples for parts in calls)
        return CascadeSamples(
            ids,
            tuple([self.tokenizer.decode(row) for row in stage.tolist()] for stage in ids),
            nfe,
            round(self._token_forwards(nfe, guidance) * num_samples),
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
        for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        chosen = predictor_from_name(predictor)
        num_steps = self.num_steps(predictor, steps)
        self._require_conditioning(guidance, prefix_noise)
        for first in range(0, num_samples, batch_size):
            prefix = None
            index = torch.arange(first, min(first + batch_size, num_samples), device=self.device)
            for number, stage in enumerate(self.stages, start=1):
                if prefix is not None and prefix_noise > 0:
                    draws = Draws(seed, f"sample-prefix-noise-{number}")
                    prefix = _noised(prefix, stage, draws, sample_index=index, prob=prefix_noise)
                for state in stage.states(
                    prefix,
                    predictor=chosen,
                    num_steps=num_steps or DEFAULT_STEPS,  # of no account for first hitting
                    draws=Draws(seed, f"sample-stage-{number}"),
                    sample_index=index,
                    guidance=0.0 if prefix is None else guidance,
                ):
                    yield CascadeState(number, first, state)
                prefix = state.xt

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
