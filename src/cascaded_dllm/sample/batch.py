"""A batch of texts on its way through the stages of a cascade, under the constraints of each stage."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.prefix_noise import noised_prefix
from cascaded_dllm.model.devices import host_by_default
from cascaded_dllm.model.placed import layout_of
from cascaded_dllm.sample.constraints import Constraints, StageConstraints, coverage_words
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.layout import LayoutRequest
from cascaded_dllm.sample.layout_rules import LayoutRules
from cascaded_dllm.sample.required import Word
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.sample.state import SamplerState, Start
from cascaded_dllm.sample.threads import fitting_threads, on_threads


def states_of_batch(
    stages: Sequence[StageSampler], batch: Sequence[int], drawing: Drawing, asked: Constraints, device: torch.device
) -> Iterator[CascadeState]:
    """The states of one batch in all stages; on a CPU, with as many threads as pay off.

    Args:
        stages: all stages of the cascade.
        batch: numbers of the texts.
        drawing: how they are drawn.
        asked: the constraints of every stage, from the first one that is known or written.
        device: where the stages are.
    """
    states, number = _states(stages, batch, drawing, asked, device), fitting_threads(stages, len(batch))
    while True:
        # Only sampling runs on these threads, not what the caller does with a state.
        with on_threads(number), host_by_default():
            state = next(states, None)
        if state is None:
            return
        yield state


def _states(
    stages: Sequence[StageSampler], batch: Sequence[int], drawing: Drawing, asked: Constraints, device: torch.device
) -> Iterator[CascadeState]:
    """See `states_of_batch`."""
    plans = drawing.plans(len(stages))
    index = torch.tensor(batch, device=device)
    prefix: Tensor | None = None
    words: list[tuple[Word, ...]] = [()] * len(batch)
    for number, of_stage in enumerate(asked.stages, start=asked.first_stage):
        stage, plan = stages[number - 1], plans[number - 1]
        if of_stage.given:
            rows = [of_stage.given[i % len(of_stage.given)] for i in batch]
            prefix = torch.tensor(rows, device=device)
            yield CascadeState(number, batch[0], SamplerState(prefix, 0, 0, 0.0))
            continue
        layout = _layout(stage, of_stage, batch, prefix, words, drawing.gaps_per_call or 1)
        asked_words = [of_stage.words[i % len(of_stage.words)] for i in batch] if of_stage.words else None
        required = None
        # A placed stage contains the stage before in any case, so `words` stays as it is for the next stage.
        if asked_words is None and asked.require_coverage and layout is None and prefix is not None:
            required = [coverage_words(row, before) for row, before in zip(prefix.tolist(), words, strict=True)]
        if layout is None or asked_words is not None:
            words = asked_words or required or [()] * len(batch)
        if prefix is not None and drawing.prefix_noise > 0:
            draws = Draws(drawing.seed, f"sample-prefix-noise-{number}")
            prefix = _noised(prefix, stage, draws, sample_index=index, prob=drawing.prefix_noise)
        for state in stage.states(
            prefix,
            predictor=plan.predictor,
            num_steps=plan.num_steps or 1,  # ignored where there is no grid
            draws=Draws(drawing.seed, f"sample-stage-{number}"),
            sample_index=index,
            start=_start(stage, of_stage, index),
            guidance=0.0 if prefix is None else drawing.guidance,
            law=drawing.law,
            words=asked_words,
            required=required,
            layout=layout,
        ):
            yield CascadeState(number, batch[0], state)
        prefix = state.xt


def _layout(
    stage: StageSampler,
    asked: StageConstraints,
    batch: Sequence[int],
    prefix: Int[Tensor, "B P"] | None,
    words: Sequence[tuple[Word, ...]],
    gaps_per_call: int,
) -> LayoutRequest | None:
    """How a placed stage lays out the texts of the stage before; None for any other stage.

    Args:
        stage: the stage to be written.
        asked: its constraints.
        batch: numbers of the texts.
        prefix: texts of the stage before.
        words: the words that the stage before had to contain, which stay in one piece.
        gaps_per_call: gaps that are drawn together.

    Raises:
        ConfigError: the words required of this stage do not contain the text of the stage before.
    """
    network = layout_of(stage.model)
    if network is None or prefix is None:
        return None
    together = [coverage_words(row, of_text) for row, of_text in zip(prefix.tolist(), words, strict=True)]
    rules = None
    if asked.words or asked.pinned:
        required = [asked.words[i % len(asked.words)] for i in batch] if asked.words else None
        rules = LayoutRules.build(prefix, network.config.num_labels, pinned=asked.pinned, words=required)
    return LayoutRequest(together, rules, gaps_per_call)


def start_texts(
    stage: StageSampler, asked: StageConstraints, num_texts: int, device: torch.device
) -> Int[Tensor, "B L"]:
    """Texts of a stage before anything is written: MASK, and the pinned tokens."""
    xt = torch.full((num_texts, stage.length), stage.model.config.vocab_size, device=device)
    xt[:, list(asked.pinned)] = torch.tensor(list(asked.pinned.values()), dtype=xt.dtype, device=device)
    return xt


def _start(stage: StageSampler, asked: StageConstraints, index: Int[Tensor, " B"]) -> Start | None:
    """Texts with nothing but the pinned tokens, at time 1; None if nothing is pinned."""
    if not asked.pinned:
        return None
    return Start(start_texts(stage, asked, len(index), index.device), torch.ones(len(index), device=index.device))


def _noised(
    prefix: Int[Tensor, "B P"], stage: StageSampler, draws: Draws, *, sample_index: Int[Tensor, " B"], prob: float
) -> Int[Tensor, "B P"]:
    """`prefix` with a share `prob` of its tokens replaced in the way that `stage` was trained with."""
    u = draws.uniform_pair(sample_index[:, None], 0, torch.arange(prefix.shape[1], device=prefix.device))
    return noised_prefix(prefix, u, prob=prob, kind=stage.trained_with.noise_kind, process=stage.process)
