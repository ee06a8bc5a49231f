"""The exposure gap of each stage of a cascade: texts on true and generated prefixes, drawn, measured and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.checks import require_whole
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.evaluate.gap import StageGap, StageSample, stage_gap
from cascaded_dllm.evaluate.generative_ppl import Judge, TokenNats
from cascaded_dllm.evaluate.intervals import LEVEL
from cascaded_dllm.evaluate.text_bound import text_bound
from cascaded_dllm.model.devices import host_by_default
from cascaded_dllm.rng import numpy_generator
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Control, GivenStage
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.objective import Batch, Objective

Progress = Callable[[str, int, int], None]
"""Called with the name of the present step, how much of it is done, and its total."""

MIN_RESAMPLES = 100
"""With fewer resamples, at most two would lie beyond either end of an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapSettings:
    """How gaps are measured.

    Attributes:
        drawing: how texts are drawn; its seed decides all randomness.
        num_texts: number of texts of every kind.
        num_times: times of the integral for each text in every bound.
        batch_size: texts drawn or measured together; does not change results.
        num_resamples: of the bootstrap.
        level: of every single interval.
    """

    drawing: Drawing
    num_texts: int = 256
    num_times: int = 16
    batch_size: int = 32
    num_resamples: int = 2000
    level: float = LEVEL

    def __post_init__(self) -> None:
        self.drawing.require_sound()
        for name, least in (("num_texts", 2), ("num_times", 1), ("batch_size", 1), ("num_resamples", MIN_RESAMPLES)):
            require_whole(name, getattr(self, name), least)


def require_measurable(cascade: Cascade, drawing: Drawing) -> None:
    """Checks that a stage has a prefix, and that texts can be drawn as `drawing` says.

    Raises:
        ConfigError: no stage has one, or a setting does not fit the stages.
    """
    if len(cascade.stages) < 2:
        what = "a flat model" if cascade.is_flat else "a first stage alone"
        raise ConfigError(
            f"{what} is given, which has no prefix and so no gap; name at least the first 2 stages of a cascade"
        )
    cascade.require_drawable(drawing)


@host_by_default()
def gaps_on_windows(
    cascade: Cascade,
    arrays: StageArrays,
    settings: GapSettings,
    *,
    judge: Judge | None = None,
    on_progress: Progress | None = None,
) -> tuple[StageGap, ...]:
    """The exposure gaps of all later stages of a cascade, with true prefixes from randomly chosen windows.

    Raises:
        ConfigError: there is no later stage, or a setting does not fit the stages.
        DataError: there are fewer windows than `settings.num_texts`.
    """
    require_measurable(cascade, settings.drawing)
    if arrays.num_windows < settings.num_texts:
        raise DataError(
            f"the data has {arrays.num_windows} windows, and {settings.num_texts} texts are asked for, each on the "
            "prefix of another window; give a smaller --num-texts or more data"
        )
    measuring = GapMeasurement(cascade, settings, judge, on_progress or (lambda what, done, total: None))
    real = measuring.real(arrays)
    generated = measuring.generated()
    real_nats = [measuring.nats(k, texts, f"bounds of real texts, stage {k}") for k, texts in real.items()]
    generated_nats = [
        measuring.nats(k, texts, f"bounds of the cascade's texts, stage {k}") for k, texts in generated.items()
    ]
    gaps = []
    for stage in range(2, len(cascade.stages) + 1):
        on_true = measuring.on_true_prefixes(stage, real[stage - 1].target)
        nats = measuring.nats(stage, on_true, f"bounds on true prefixes, stage {stage}")
        before_real, before_generated = (torch.stack(of[: stage - 1]).sum(0) for of in (real_nats, generated_nats))
        gaps.append(
            stage_gap(
                stage,
                real=measuring.sample(real[stage], real_nats[stage - 1], before_real),
                true_prefix=measuring.sample(on_true, nats, before_real),
                generated_prefix=measuring.sample(generated[stage], generated_nats[stage - 1], before_generated),
                num_resamples=settings.num_resamples,
                seed=settings.drawing.seed,
                level=settings.level,
            )
        )
    return tuple(gaps)


@dataclass(frozen=True, slots=True)
class GapMeasurement:
    """A cascade whose texts are drawn and measured.

    Attributes:
        cascade: all stages.
        settings: how gaps are measured.
        judge: of texts, or None.
        on_progress: see `Progress`.
    """

    cascade: Cascade
    settings: GapSettings
    judge: Judge | None
    on_progress: Progress

    def real(self, arrays: StageArrays) -> dict[int, Batch]:
        """Randomly chosen windows as texts of every stage, by stage."""
        generator = numpy_generator(self.settings.drawing.seed, "gap-windows")
        indices = generator.choice(arrays.num_windows, self.settings.num_texts, replace=False)
        indices.sort()
        return {
            number: make_batch(
                StageDataset(arrays, number, is_placed=stage.is_placed), indices, np.arange(len(indices))
            )
            for number, stage in enumerate(self.cascade.stages, start=1)
        }

    def generated(self) -> dict[int, Batch]:
        """Texts of every stage on generated prefixes, by stage."""
        num_texts = self.settings.num_texts
        ids, places = self._drawn(self.cascade, range(num_texts), self.settings.drawing, "the cascade")
        # Indices of their own, so that their bounds share no random number with those of real texts.
        index = torch.arange(num_texts, 2 * num_texts)
        numbers = range(1, len(self.cascade.stages) + 1)
        prefixes = (None, *ids[:-1])
        return {k: Batch(ids[k - 1], prefixes[k - 1], index, places=places.get(k)) for k in numbers}

    def on_true_prefixes(self, stage: int, prefix: Int[Tensor, "B P"]) -> Batch:
        """Texts of one stage on true prefixes."""
        given = GivenStage(stage=stage - 1, ids=tuple((tuple(row),) for row in prefix.tolist()))
        first = replace(self.cascade, stages=self.cascade.stages[:stage])
        drawing = self.settings.drawing.of_stages(len(self.cascade.stages), slice(stage))
        gaps_per_call = drawing.gaps_per_call if any(sampler.is_placed for sampler in first.stages) else None
        drawing = replace(drawing, gaps_per_call=gaps_per_call, control=Control(given=given))
        # Numbers of their own, so that these texts share no random number with those of the cascade. They start at a
        # multiple of the number of prefixes, so text i has prefix i.
        numbers = range(len(prefix), 2 * len(prefix))
        ids, places = self._drawn(first, numbers, drawing, f"stage {stage} on true prefixes")
        return Batch(ids[-1], prefix, torch.arange(len(prefix)), places=places.get(stage))

    def nats(self, stage: int, texts: Batch, what: str) -> Tensor:
        """The bound of a stage on each text, in nats."""
        sampler = self.cascade.stages[stage - 1]
        return text_bound(
            sampler.model,
            Objective(sampler.process, sampler.schedule),
            texts,
            num_times=self.settings.num_times,
            batch_size=self.settings.batch_size,
            seed=self.settings.drawing.seed,
            on_progress=lambda done, total: self.on_progress(what, done, total),
        )

    def sample(self, texts: Batch, stage_nats: Tensor, prefix_nats: Tensor) -> StageSample:
        """Texts with everything that is measured on them."""
        assert texts.prefix is not None
        return StageSample(
            prefix=texts.prefix,
            target=texts.target,
            stage_nats=stage_nats,
            prefix_nats=prefix_nats,
            judged=None if self.judge is None else self._judged(self.judge, texts.target),
        )

    def _judged(self, judge: Judge, target: Int[Tensor, "B L"]) -> list[TokenNats]:
        texts = [self.cascade.tokenizer.decode_window(row) for row in target.tolist()]
        with judge.on(self.cascade.device):
            return judge.token_nats(texts)

    def _drawn(
        self, cascade: Cascade, numbers: Sequence[int], drawing: Drawing, what: str
    ) -> tuple[tuple[Tensor, ...], dict[int, Tensor]]:
        """The ids of every stage, given or drawn, and by placed stage the places of the prefix in its texts."""
        places: dict[int, list[Tensor]] = {}

        def note(seen: CascadeState) -> None:
            # Before its first call, a placed stage holds only its prefix.
            if seen.state.step == 0 < seen.state.num_steps and cascade.stages[seen.stage - 1].is_placed:
                is_known = seen.state.xt != cascade.tokenizer.mask_id
                at = is_known.nonzero()[:, 1].view(len(is_known), -1).cpu()
                places.setdefault(seen.stage, []).append(at)

        batches = cascade.batches(
            numbers,
            drawing,
            batch_size=self.settings.batch_size,
            on_progress=lambda done, total: self.on_progress(f"drawing {what}", done, total),
            on_state=note,
        )
        ids = [batch.samples.ids for batch in batches]
        joined = tuple(torch.cat(of_stage) for of_stage in zip(*ids, strict=True))
        return joined, {stage: torch.cat(parts) for stage, parts in places.items()}
