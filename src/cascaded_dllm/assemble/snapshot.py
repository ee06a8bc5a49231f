"""Samples for snapshots: of a stage in training on true prefixes and, with earlier stages, of the cascade so far."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.evaluate.figures import judged_figures, stage_figures
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.evaluate.overlap import multiset_overlap_per_text, ordered_coverage_per_text
from cascaded_dllm.sample.belonging import TextKind, require_before
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.predictors import has_grid, predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.snapshot import SampledText, SampleGroup, SnapshotReport

Ids = Int[Tensor, "B _"]
GoOn = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSampler:
    """Draws the samples of a snapshot and measures them.

    Attributes:
        stage: in training; its network has the averaged weights during a call.
        number: of the stage, 1..K; K for a flat model.
        stage_lengths: of the whole cascade.
        windows: the first of them give true prefixes and true texts.
        tokenizer: of the data.
        tokenizer_file: its file; earlier stages must have been trained with the same tokenizer.
        texts: the kind of texts in the windows.
        predictor: name of the predictor.
        num_steps: of the time grid, for predictors that have one.
        num_samples: number of texts of each kind; on true prefixes, at most one for each window.
        seed: decides all randomness.
        earlier: folders of the earlier stages, which are read at every snapshot, so that their training may go on.
        judge: of generative perplexity, or None.
    """

    stage: StageSampler
    number: int
    stage_lengths: tuple[int, ...]
    windows: StageDataset
    tokenizer: Tokenizer
    tokenizer_file: Path
    texts: TextKind
    predictor: str
    num_steps: int
    num_samples: int
    seed: int
    earlier: tuple[str, ...]
    judge: Judge | None

    def __call__(self, step: int, go_on: GoOn = lambda: None) -> SnapshotReport:
        """The report of `step`; `go_on` is called between network calls, and what it raises ends the work."""
        groups: dict[str, SampleGroup] = {}
        if self.stage.prefix_length:
            groups |= self._conditional(go_on)
        else:
            groups["unconditional"] = self._group({self.number: self._sampled(None, go_on)}, go_on)
        if self.earlier:
            groups["unconditional"] = self._of_the_cascade(go_on)
        return SnapshotReport(step=step, groups=groups)

    def earlier_cascade(self) -> Cascade:
        """The earlier stages with their present weights.

        Raises:
            CheckpointError: they are not the first stages of this cascade, or were trained on another kind of texts.
        """
        device = self.stage.model.device
        before = Cascade.from_pretrained(self.earlier, tokenizer=self.tokenizer_file, device=device)
        require_before(
            list(zip(self.earlier, before.settings, strict=True)),
            stage=self.number,
            stage_lengths=self.stage_lengths,
            texts=self.texts,
            key="earlier_stages, or stage1_root_dir and stage2_root_dir",
        )
        return before

    def _conditional(self, go_on: GoOn) -> dict[str, SampleGroup]:
        """Samples on true prefixes, and the true texts."""
        index = torch.arange(min(self.num_samples, len(self.windows)))
        prefix, truth = self.windows.batch(index.numpy())
        assert prefix is not None
        prefix_ids, truth_ids = torch.from_numpy(prefix), torch.from_numpy(truth)
        stages = {self.number - 1: prefix_ids, self.number: self._sampled(prefix_ids, go_on)}
        figures = self._figures({self.number: truth_ids}, go_on)
        return {"conditional": self._group(stages, go_on, truth_ids), "truth": SampleGroup(samples=(), figures=figures)}

    def _of_the_cascade(self, go_on: GoOn) -> SampleGroup:
        """Samples with all stages generated."""
        before = self.earlier_cascade()
        cascade = Cascade((*before.stages, self.stage), self.tokenizer, self.stage_lengths)
        samples = cascade.generate(
            self.num_samples,
            steps=self.num_steps if has_grid(predictor_from_name(self.predictor)) else None,
            predictor=self.predictor,
            seed=self.seed,
            batch_size=self.num_samples,
            on_progress=lambda done, total: go_on(),
        )
        return self._group(dict(enumerate(samples.ids, start=1)), go_on)

    def _sampled(self, prefix: Ids | None, go_on: GoOn) -> Ids:
        """Texts of the stage in training, on the CPU."""
        device = self.stage.model.device
        index = torch.arange(self.num_samples if prefix is None else len(prefix), device=device)
        states = self.stage.states(
            None if prefix is None else prefix.to(device),
            predictor=predictor_from_name(self.predictor),
            num_steps=self.num_steps,
            draws=Draws(self.seed, "snapshot"),
            sample_index=index,
        )
        for state in states:
            go_on()
            ids = state.xt
        return ids.cpu()

    def _group(self, stages: Mapping[int, Ids], go_on: GoOn, truth: Ids | None = None) -> SampleGroup:
        """Texts, overlaps and figures of samples, given the ids of every stage."""
        pairs = list(itertools.pairwise(stages.values()))
        overlaps = [multiset_overlap_per_text(*pair) for pair in pairs]
        coverages = [ordered_coverage_per_text(*pair) for pair in pairs]
        texts = {number: self._texts(ids) for number, ids in stages.items()}
        true_texts = None if truth is None else self._texts(truth)
        samples = tuple(
            SampledText(
                stages={number: stage[i] for number, stage in texts.items()},
                truth=None if true_texts is None else true_texts[i],
                multiset_overlap=tuple(float(shares[i]) for shares in overlaps),
                ordered_coverage=tuple(float(shares[i]) for shares in coverages),
            )
            for i in range(len(stages[self.number]))
        )
        return SampleGroup(samples=samples, figures=self._figures(stages, go_on))

    def _figures(self, stages: Mapping[int, Ids], go_on: GoOn) -> dict[str, float]:
        """Overlaps between stages and, for the texts of the last stage, diversity and the figures of the judge."""
        figures = stage_figures(stages)
        if self.judge is not None:
            texts = [self.tokenizer.decode_window(row) for row in stages[self.number].tolist()]
            figures |= judged_figures(self.judge, texts, self.stage.model.device, on_call=go_on)
        return figures

    def _texts(self, ids: Ids) -> list[str]:
        return [self.tokenizer.decode(row) for row in ids.tolist()]


def snapshot_sampler(
    config: TrainConfig, stage: StageSampler, windows: StageDataset, texts: TextKind, *, tokenizer_file: Path
) -> SnapshotSampler | None:
    """The object that draws and measures the samples of snapshots; None if `num_samples` is 0.

    The earlier stages and the judge are loaded now, so that a mistake is not found hours later.

    Args:
        config: of the run.
        stage: in training.
        windows: the first of them give true prefixes and true texts.
        texts: the kind of texts the stage is trained on.
        tokenizer_file: of the data.

    Raises:
        ConfigError: there is no such predictor, or the judge cannot be loaded.
        CheckpointError: an earlier stage cannot be read, or is of another cascade.
        MissingExtraError: there is a judge, and its library is not installed.
    """
    settings, judge = config.sampling, config.evaluation.judge
    predictor_from_name(settings.predictor)
    if settings.num_samples == 0:
        return None
    sampler = SnapshotSampler(
        stage=stage,
        number=len(config.stage_lengths) if config.baseline else config.stage,
        stage_lengths=config.stage_lengths,
        windows=windows,
        tokenizer=Tokenizer.load(tokenizer_file),
        tokenizer_file=tokenizer_file,
        texts=texts,
        predictor=settings.predictor,
        num_steps=settings.num_steps,
        num_samples=settings.num_samples,
        seed=config.training.seed,
        earlier=config.earlier_paths,
        judge=None if judge is None else Judge.load(judge),
    )
    if sampler.earlier:
        sampler.earlier_cascade()
    return sampler
