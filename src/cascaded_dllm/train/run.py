"""A training run on disk: metrics, checkpoints and snapshots around the loop, as a generator of events.

Every process of a run does the same: each yields the events, and the first one writes.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.model.devices import host_by_default
from cascaded_dllm.model.integrity import STEP_PREFIX
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.run_lock import run_lock, until_told
from cascaded_dllm.train.checkpoint import HostCopy, Keeping, parts_beside, save_checkpoint
from cascaded_dllm.train.deletion import Deletion
from cascaded_dllm.train.dry_batch import try_one_batch
from cascaded_dllm.train.host_copy import copy_to_host
from cascaded_dllm.train.meter import StepMeter, forget_peak_memory
from cascaded_dllm.train.metrics_file import has_bound, has_figures
from cascaded_dllm.train.provenance import last_start
from cascaded_dllm.train.run_events import Evaluation, Event, NotDeleted, Resumed, Snapshot, Stopped
from cascaded_dllm.train.run_folder import (
    CHECKPOINTS_FOLDER,
    make_run_folder,
    newest_start,
    record_start,
    restore_from,
)
from cascaded_dllm.train.run_log import LogChoice, RunLog, open_log
from cascaded_dllm.train.snapshot import SnapshotReport, samples_file
from cascaded_dllm.train.stop_wish import AbandonedError, StopWish
from cascaded_dllm.train.trainer import Trainer
from cascaded_dllm.train.valid_windows import ValidWindows
from cascaded_dllm.train.writer import BackgroundWriter

Progress = Callable[[int, int], None]
"""Called with the amount of work done and its total; an exception that it raises ends the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPeriods:
    """Optimizer steps between lines of metrics.jsonl, bounds and checkpoints, and which checkpoints are kept."""

    log_every: int
    eval_every: int
    snapshot_every: int
    keeping: Keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder and the trainer that fills it.

    Attributes:
        folder: run folder.
        trainer: the training loop.
        config: the resolved configuration, written to config.yaml.
        settings: the settings that checkpoints store.
        tokenizer_file: copied into every checkpoint.
        periods: when metrics, bounds and checkpoints are due.
        measure: estimates the bound of the validation windows; None for no bounds. It is called while the network has
            the averaged weights, and reports progress at the same moments in all processes.
        sample: draws and measures texts; None for no samples, and in processes that take no part in drawing. It is
            called while the network has the averaged weights, with the step and a function that it calls now and then,
            which may raise an error to end it.
        measures_start: whether the bound of a new run is also measured before its first step, because its initial
            weights are trained ones.
        valid: the windows that `measure` measures.
        log: viewers of the metrics.
        provenance: facts that are recorded at every start, see `append_start`.
        peak_flops: peak of all devices together, FLOP/s; None if unknown.
    """

    folder: Path
    trainer: Trainer
    config: dict[str, Any]
    settings: StageSettings
    tokenizer_file: Path
    periods: RunPeriods
    measure: Callable[[Progress | None], BoundEstimate] | None
    sample: Callable[[int, Callable[[], None]], SnapshotReport] | None
    measures_start: bool = False
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
            should_stop: polled before the first step, after every step, and while a bound is measured or samples are
                drawn. Once it is true, the run saves a checkpoint of the step and ends; an unfinished bound or samples
                are left to the next start.
            on_measured: called while a bound is measured, with the number of validation windows done and their total.

        Raises:
            OutputError: the folder holds something else or belongs to a run that is going on, or cannot be
                written.
            CheckpointError: it holds checkpoints and none of them is complete, or they have other settings.
            DryBatchError: memory is short, or data and network do not fit.
            NonFiniteError: training broke down; the last checkpoint remains.
            StoppedError: it was asked to stop while it waited for signs of life from another machine's process, which
                owns the folder.
        """
        with contextlib.closing(self._events(should_stop, on_measured)) as events:
            while True:
                # Only the run needs the host by default and gradients, not what the caller does with an event.
                with host_by_default(), torch.inference_mode(False), torch.enable_grad():
                    event = next(events, None)
                if event is None:
                    return
                yield event

    def _events(self, should_stop: Callable[[], bool], on_measured: Progress | None) -> Generator[Event, None, None]:
        """See `events`."""
        trainer, group = self.trainer, self.trainer.group
        deletion, wish = Deletion(self.checkpoints), StopWish(should_stop, group)
        forget_peak_memory(trainer.device)
        with contextlib.ExitStack() as stack:
            checkpoint, faults = group.from_first(lambda: self._take_folder(stack, deletion, should_stop))
            if checkpoint is not None:
                restore_from(checkpoint, trainer)
            group.from_first(self._record_start)
            if checkpoint is not None:
                yield Resumed(trainer.step, faults)
            if trainer.step < trainer.loop.num_steps:
                self._rehearse()
                wish.ask()
            log = RunLog(None)
            if group.is_first:
                shown = self.config | {"provenance": last_start(self.folder)}
                log = stack.enter_context(open_log(self.folder, self.log, config=shown, step=trainer.step))
            if checkpoint is not None:
                yield from self._made_up_for(checkpoint, log, wish, on_measured)
            elif self.measures_start:
                yield from self._bound(log, wish, on_measured)
            with BackgroundWriter() as writer:
                if not wish.is_known:
                    yield from self._train(log, writer, deletion, wish, on_measured)
                writer.finish()
            if wish.is_known:
                yield from self._stopped()
            yield from self._not_deleted(deletion)
            # Wait for the others: a process that ends early might end them too.
            group.any(False)

    def _take_folder(
        self, stack: contextlib.ExitStack, deletion: Deletion, should_stop: Callable[[], bool]
    ) -> tuple[Path | None, list[str]]:
        """Lock the folder while `stack` is open; return what `newest_start` says of it."""
        make_run_folder(self.folder)
        stack.enter_context(run_lock(self.folder, go_on=until_told(should_stop, self.folder)))
        # What a killed run left half-written would otherwise stay until the next checkpoint is complete.
        deletion.delete_incomplete()
        return newest_start(self.folder)

    def _record_start(self) -> None:
        record_start(self.folder, config=self.config, provenance=self.provenance, step=self.trainer.step)

    def _rehearse(self) -> None:
        """Try a first batch; with split weights, processes need each other, so one that fails ends the others too."""
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
        wish: StopWish,
        on_measured: Progress | None,
    ) -> Iterator[Event]:
        trainer, periods = self.trainer, self.periods
        meter = StepMeter(trainer, self.peak_flops)
        for result in trainer.steps():
            writer.check()
            yield from self._not_deleted(deletion)
            meter.add(result)
            if self._is_due(periods.log_every):
                log.metrics(meter.line(result))
            yield result
            wish.ask()
            if self._is_due(periods.eval_every):
                yield from self._bound(log, wish, on_measured)
            is_due = self._is_due(periods.snapshot_every)
            if is_due or wish.is_known:
                yield self._snapshot(log, writer, deletion, wish, with_samples=is_due)
            if wish.is_known:
                return

    def _is_due(self, every: int) -> bool:
        """Whether the number of steps done is a multiple of `every`, or the run is at its end."""
        return self.trainer.step % every == 0 or self.trainer.step == self.trainer.loop.num_steps

    def _bound(self, log: RunLog, wish: StopWish, on_measured: Progress | None) -> Iterator[Evaluation]:
        """Measure the bound, if there is one to measure and the run is not asked to stop before it is complete."""
        if self.measure is None or wish.is_known:
            return
        trainer = self.trainer

        def on_progress(done: int, total: int) -> None:
            if on_measured is not None:
                on_measured(done, total)
            if done < total:
                wish.raise_if_wished()

        try:
            with trainer.averaged_weights():
                estimate = self.measure(on_progress)
        except AbandonedError:
            return
        # Of several kinds of sequences, the last one is measured: whole windows.
        per_token = estimate.nll_nats / trainer.dataset.parts[-1].target_length
        evaluation = self.valid.evaluation(trainer.step, per_token)
        log.metrics(asdict(evaluation))
        yield evaluation

    def _not_deleted(self, deletion: Deletion) -> Iterator[NotDeleted]:
        if fault := deletion.fault_to_tell():
            yield NotDeleted(self.trainer.step, fault)

    def _snapshot(
        self, log: RunLog, writer: BackgroundWriter, deletion: Deletion, wish: StopWish, *, with_samples: bool
    ) -> Snapshot:
        """Begin to write a checkpoint, and draw samples.

        The checkpoint comes first because drawing may fail: the stages before may come from elsewhere, and a judge may
        not fit beside the training. An error then ends the run, but the steps so far are saved, and a resumed run draws
        what is missing.
        """
        content = copy_to_host(self.trainer)
        writer.begin(lambda: self._save(content, deletion))
        samples, report = self._drawn(log, wish) if with_samples else (None, None)
        return Snapshot(self.trainer.step, self.checkpoints / f"{STEP_PREFIX}{self.trainer.step}", samples, report)

    def _made_up_for(
        self, checkpoint: Path, log: RunLog, wish: StopWish, on_measured: Progress | None
    ) -> Iterator[Evaluation | Snapshot]:
        """Measure and draw what is due at the checkpoint that the run resumes from and was left out."""
        missing = self.trainer.group.from_first(self._missing)
        if "bound" in missing:
            yield from self._bound(log, wish, on_measured)
        if "samples" in missing:
            samples, report = self._drawn(log, wish)
            if report is not None:
                yield Snapshot(self.trainer.step, checkpoint, samples, report)

    def _missing(self) -> tuple[str, ...]:
        """What is due at this step and is not on the disk; only for the first process."""
        step = self.trainer.step
        has_to = {
            "bound": self.measure is not None and self._is_due(self.periods.eval_every),
            "samples": self.sample is not None and step > 0 and self._is_due(self.periods.snapshot_every),
        }
        is_there = {
            "bound": lambda: has_bound(self.folder, step),
            # A run may have been killed, or the disk full, between the file and its line of metrics.
            "samples": lambda: samples_file(self.folder, step).exists() and has_figures(self.folder, step),
        }
        return tuple(name for name, is_due in has_to.items() if is_due and not is_there[name]())

    def _stopped(self) -> Iterator[Stopped]:
        """The event of a run that was asked to stop; none if it was at its end and left nothing out."""
        step = self.trainer.step
        missing = self.trainer.group.from_first(self._missing)
        if missing or step < self.trainer.loop.num_steps:
            yield Stopped(step, self.checkpoints / f"{STEP_PREFIX}{step}" if step else None, missing)

    def _drawn(self, log: RunLog, wish: StopWish) -> tuple[Path | None, SnapshotReport | None]:
        """The file of the samples of the averaged weights, and their report; None for both if none were drawn here."""
        if wish.is_known:
            return None, None
        report: SnapshotReport | None = None
        if self.sample is not None:
            # With whole weights, the first process draws alone, and the others wait for it below.
            go_on = wish.raise_if_wished if self.trainer.parallel.storage.is_split else wish.raise_if_asked
            with contextlib.suppress(AbandonedError), self.trainer.averaged_weights():
                report = self.sample(self.trainer.step, go_on)
        if report is not None:
            self._show(report, log)
        wish.ask()
        return None if report is None else samples_file(self.folder, report.step), report

    def _show(self, report: SnapshotReport, log: RunLog) -> None:
        if self.trainer.group.is_first:
            report.write(self.folder)
        log.metrics({"step": report.step, **report.figures()})
        for kind, texts in report.texts().items():
            log.texts(report.step, f"samples/{kind}", texts)

    def _save(self, content: HostCopy, deletion: Deletion) -> None:
        """Write a checkpoint: first every process writes its parts, then the first one writes the rest.

        Raises:
            OutputError: something cannot be written.
        """
        folder, storage = parts_beside(self.checkpoints, content.state.step), self.trainer.parallel.storage
        with write_errors(f"{folder} cannot be written", "make room, and give the same command again"):
            sums = storage.write_parts(content.parts, folder)
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
