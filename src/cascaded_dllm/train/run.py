"""A training run on disk: metrics, checkpoints and snapshots around the loop, as a generator of what happened.

Several processes run the same: each yields all that happened, the first one writes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import write_json, write_text
from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.errors import OutputExistsError
from cascaded_dllm.model.integrity import PREFIX
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.run_lock import run_lock
from cascaded_dllm.train.checkpoint import HostCopy, Keeping, parts_beside, save_checkpoint
from cascaded_dllm.train.deletion import Deletion
from cascaded_dllm.train.dry_batch import try_one_batch
from cascaded_dllm.train.host_copy import copy_to_host
from cascaded_dllm.train.meter import StepMeter
from cascaded_dllm.train.run_folder import CHECKPOINTS_FOLDER, newest_start, record_start, require_run_folder, take_up
from cascaded_dllm.train.run_log import LogChoice, RunLog, open_log
from cascaded_dllm.train.snapshot import SnapshotReport
from cascaded_dllm.train.trainer import StepResult, Trainer
from cascaded_dllm.train.valid_windows import ValidWindows
from cascaded_dllm.train.writer import BackgroundWriter

Progress = Callable[[int, int], None]
"""Told what is done, and all there is to do."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run goes on from a checkpoint; `faults` says what was wrong with newer ones, which were passed over."""

    step: int
    faults: list[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The bound of the averaged weights on the validation windows.

    Attributes:
        step: optimizer steps done.
        bound_nats_per_token: upper bound on -log p(target | prefix), nats per target token.
        standard_error: of that mean over windows; None for a single window.
        omitted_nats_per_token_at_most: how far below the truth that of an ideal model may lie, for what is left out.
        num_windows: windows it was measured on, always the same, at the same times with the same noise.
        num_windows_in_set: all that there are.
        num_windows_dropped: of the same text, but not in the set: they have too few different tokens for the stages.
    """

    step: int
    bound_nats_per_token: float
    standard_error: float | None
    omitted_nats_per_token_at_most: float
    num_windows: int
    num_windows_in_set: int
    num_windows_dropped: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint is being written, and is there when the run ends; `samples` is the file of the texts drawn with it
    and `report` its content, or None.
    """

    step: int
    checkpoint: Path
    samples: Path | None
    report: SnapshotReport | None = None


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """An old checkpoint is still there, and `fault` says why; told once, and tried again with every new one."""

    step: int
    fault: str


Event = Resumed | StepResult | Evaluation | Snapshot | NotDeleted


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPeriods:
    """Optimizer steps between lines of metrics.jsonl, bounds and checkpoints, and which checkpoints stay."""

    log_every: int
    eval_every: int
    snapshot_every: int
    keeping: Keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder and the trainer that fills it.

    Attributes:
        folder: run folder.
        trainer: the loop.
        config: the resolved configuration, written to config.yaml.
        settings: what checkpoints say of the stage.
        tokenizer_file: copied into every checkpoint.
        periods: how often what happens.
        measure: estimates the bound of validation windows with the averaged weights now in the network, or None.
        sample: draws and measures texts with the averaged weights now in the network, given the step, or None: also in
            processes that have no part in it.
        valid: what `measure` measures.
        log: viewers of the metrics.
        provenance: what the run is made from, see `append_start`.
        peak_flops: of the devices, FLOP/s; None if unknown.
    """

    folder: Path
    trainer: Trainer
    config: dict[str, Any]
    settings: StageSettings
    tokenizer_file: Path
    periods: RunPeriods
    measure: Callable[[Progress | None], BoundEstimate] | None
    sample: Callable[[int], SnapshotReport] | None
    valid: ValidWindows = field(default_factory=ValidWindows)
    log: LogChoice = field(default_factory=LogChoice)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    peak_flops: float | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / CHECKPOINTS_FOLDER

    def events(
        self, *, should_stop: Callable[[], bool] = lambda: False, on_measured: Progress | None = None
    ) -> Iterator[Event]:
        """Run to the end, from the newest complete checkpoint if the folder has one.

        Args:
            should_stop: asked after every step; if it says so, the step is kept in a checkpoint and the run ends.
            on_measured: told the validation windows done and their number while a bound is measured.

        Raises:
            OutputExistsError: the folder holds something else or belongs to a run that is going on, or cannot be
                written.
            CheckpointError: it holds checkpoints and none of them is complete, or they have other settings.
            DryBatchError: memory is short, or data and network do not fit.
            NonFiniteError: training broke down; the last checkpoint stands.
        """
        trainer, group = self.trainer, self.trainer.group
        with contextlib.ExitStack() as stack:
            checkpoint, faults = group.from_first(lambda: self._take_folder(stack))
            if checkpoint is not None:
                take_up(checkpoint, trainer)
            group.from_first(self._record_start)
            if checkpoint is not None:
                yield Resumed(trainer.step, faults)
            if trainer.step < trainer.loop.num_steps:
                self._rehearse()
            log = RunLog(None)
            if group.is_first:
                log = stack.enter_context(open_log(self.folder, self.log, config=self.config, step=trainer.step))
            deletion = Deletion(self.checkpoints)
            if checkpoint is not None:
                yield from self._missing_samples(checkpoint, log)
            with BackgroundWriter() as writer:
                yield from self._train(log, writer, deletion, should_stop, on_measured)
                writer.finish()
            yield from self._not_deleted(deletion)
            # A process that ended before the others are done might take them with it.
            group.any(False)

    def _take_folder(self, stack: contextlib.ExitStack) -> tuple[Path | None, list[str]]:
        """The folder belongs to this run as long as `stack` is open; the checkpoint to go on from, and worse ones."""
        require_run_folder(self.folder)
        stack.enter_context(run_lock(self.folder))
        return newest_start(self.folder)

    def _record_start(self) -> None:
        record_start(self.folder, config=self.config, provenance=self.provenance, step=self.trainer.step)

    def _rehearse(self) -> None:
        """A first batch; where processes need each other for it, one that fails ends, and the others with it."""
        trainer = self.trainer
        if trainer.parallel.storage.is_split:
            try_one_batch(trainer)
        else:
            trainer.group.together(lambda: try_one_batch(trainer))

    def _train(
        self,
        log: RunLog,
        writer: BackgroundWriter,
        deletion: Deletion,
        should_stop: Callable[[], bool],
        on_measured: Progress | None,
    ) -> Iterator[StepResult | Evaluation | Snapshot | NotDeleted]:
        trainer, periods = self.trainer, self.periods
        meter = StepMeter(trainer, self.peak_flops)
        for result in trainer.steps():
            writer.check()
            yield from self._not_deleted(deletion)
            is_last = result.step == trainer.loop.num_steps
            meter.add(result)
            if result.step % periods.log_every == 0 or is_last:
                log.metrics(meter.line(result))
            yield result
            if self.measure is not None and (result.step % periods.eval_every == 0 or is_last):
                evaluation = self._evaluate(self.measure, on_measured)
                log.metrics(asdict(evaluation))
                yield evaluation
            is_due = result.step % periods.snapshot_every == 0 or is_last
            # Asked last, so that what the step would have logged in an unbroken run is there; and all together, so
            # that no process goes on without the others.
            is_stopped = trainer.group.any(should_stop())
            if is_due or is_stopped:
                yield self._snapshot(log, writer, deletion, with_samples=is_due)
            if is_stopped:
                return

    def _evaluate(
        self, measure: Callable[[Progress | None], BoundEstimate], on_measured: Progress | None
    ) -> Evaluation:
        trainer = self.trainer
        with trainer.averaged_weights():
            estimate = measure(on_measured)
        # Of several kinds of texts, it is whole windows that are measured, the last kind.
        per_token = estimate.nll_nats / trainer.dataset.parts[-1].target_length
        error = float(per_token.std()) / len(per_token) ** 0.5 if len(per_token) > 1 else None
        return Evaluation(
            step=trainer.step,
            bound_nats_per_token=float(per_token.mean()),
            standard_error=error,
            omitted_nats_per_token_at_most=self.valid.omitted_nats_per_token,
            num_windows=len(per_token),
            num_windows_in_set=self.valid.num_windows,
            num_windows_dropped=self.valid.num_dropped,
        )

    def _not_deleted(self, deletion: Deletion) -> Iterator[NotDeleted]:
        if fault := deletion.fault_to_tell():
            yield NotDeleted(self.trainer.step, fault)

    def _snapshot(self, log: RunLog, writer: BackgroundWriter, deletion: Deletion, *, with_samples: bool) -> Snapshot:
        """Begin to write a checkpoint, and draw samples.

        Stages before may be somebody else's, and a judge may not fit beside the training: where samples cannot be
        drawn the run ends, but the steps so far are kept, and a run that goes on draws what is missing.
        """
        trainer = self.trainer
        content = copy_to_host(trainer)
        writer.begin(lambda: self._save(content, deletion))
        samples = report = None
        if with_samples and self.sample is not None:
            samples, report = self._draw(self.sample, log)
        return Snapshot(trainer.step, self.checkpoints / f"{PREFIX}{trainer.step}", samples, report)

    def _missing_samples(self, checkpoint: Path, log: RunLog) -> Iterator[Snapshot]:
        """Draws the samples that the checkpoint that a run is taken up at should have, and has not."""
        step = self.trainer.step
        is_due = step % self.periods.snapshot_every == 0 or step == self.trainer.loop.num_steps
        is_missing = self.sample is not None and is_due and not self._samples_file(step).exists()
        # All of them together, or none.
        if self.trainer.group.any(is_missing) and self.sample is not None:
            yield Snapshot(step, checkpoint, *self._draw(self.sample, log))

    def _samples_file(self, step: int) -> Path:
        return self.folder / "samples" / f"step_{step}.txt"

    def _draw(self, sample: Callable[[int], SnapshotReport], log: RunLog) -> tuple[Path, SnapshotReport]:
        """The samples of the averaged weights, and the file that holds them."""
        step = self.trainer.step
        with self.trainer.averaged_weights():
            report = sample(step)
        samples = self._samples_file(step)
        if self.trainer.group.is_first:
            write_json(samples.with_suffix(".json"), report.to_dict())
            write_text(samples, report.listing())
        log.metrics({"step": step, **report.figures()})
        for kind, texts in report.texts().items():
            log.texts(step, f"samples/{kind}", texts)
        return samples, report

    def _save(self, content: HostCopy, deletion: Deletion) -> None:
        """Write a checkpoint: first every process its parts, then the first one the rest.

        Raises:
            OutputExistsError: something cannot be written.
        """
        folder, storage = parts_beside(self.checkpoints, content.state.step), self.trainer.parallel.storage
        try:
            sums = storage.write_parts(content.parts, folder)
        except OSError as error:
            raise OutputExistsError(
                f"{folder} cannot be written ({error.strerror}); make room, and give the same command again"
            ) from error
        if self.trainer.group.is_first:
            save_checkpoint(
                self.checkpoints,
                config_json=self.settings.at_step(content.state.step).to_json(),
                content=content,
                tokenizer_file=self.tokenizer_file,
                keeping=self.periods.keeping,
                deletion=deletion,
                parts_folder=folder if storage.is_split else None,
                parts_sums=sums,
            )
