"""A training run on disk: metrics, checkpoints and snapshots around the loop, as a generator of what happened."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from cascaded_dllm.atomic import INCOMPLETE, write_json, write_text
from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.errors import CheckpointError, OutputExistsError
from cascaded_dllm.file_names import RUN_CONFIG_FILE
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.model.pretrained import StageSettings
from cascaded_dllm.train.checkpoint import load_trainer_state, save_checkpoint
from cascaded_dllm.train.dry_batch import try_one_batch
from cascaded_dllm.train.meter import StepMeter
from cascaded_dllm.train.provenance import append_start
from cascaded_dllm.train.run_lock import LOCK_FILE, run_lock
from cascaded_dllm.train.run_log import METRICS_FILE, LogChoice, RunLog, forget_after, open_log
from cascaded_dllm.train.snapshot import SnapshotReport
from cascaded_dllm.train.trainer import StepResult, Trainer

CHECKPOINTS_FOLDER = "checkpoints"

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
        num_windows: windows it was measured on, always the first ones, at the same times with the same noise.
        num_windows_in_set: all that there are.
    """

    step: int
    bound_nats_per_token: float
    standard_error: float | None
    num_windows: int
    num_windows_in_set: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint was written; `samples` is the file of the texts drawn with it and `report` its content, or None."""

    step: int
    checkpoint: Path
    samples: Path | None
    report: SnapshotReport | None = None


Event = Resumed | StepResult | Evaluation | Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPeriods:
    """Optimizer steps between lines of metrics.jsonl, bounds and checkpoints, and how many checkpoints stay."""

    log_every: int
    eval_every: int
    snapshot_every: int
    keep: int


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
        sample: draws and measures texts with the averaged weights now in the network, given the step, or None.
        num_valid_windows: all windows that `measure` could measure.
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
    num_valid_windows: int = 0
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
        self._require_run_folder()
        with run_lock(self.folder):
            yield from self._open()
            if self.trainer.step < self.trainer.loop.num_steps:
                try_one_batch(self.trainer)
            with open_log(self.folder, self.log, config=self.config, step=self.trainer.step) as log:
                yield from self._train(log, should_stop, on_measured)

    def _train(
        self, log: RunLog, should_stop: Callable[[], bool], on_measured: Progress | None
    ) -> Iterator[StepResult | Evaluation | Snapshot]:
        trainer, periods = self.trainer, self.periods
        meter = StepMeter(trainer, self.peak_flops)
        for result in trainer.steps():
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
            # Asked last, so that what the step would have logged in an unbroken run is there.
            is_stopped = should_stop()
            if is_due or is_stopped:
                yield self._snapshot(log, with_samples=is_due)
            if is_stopped:
                return

    def _open(self) -> Iterator[Resumed]:
        """Start the folder, or take up its newest complete checkpoint."""
        path, text = self.folder / RUN_CONFIG_FILE, yaml.safe_dump(self.config, sort_keys=False)
        if not path.exists():
            write_text(path, text)
            append_start(self.folder, self.provenance, step=0)
            return
        checkpoint, faults = newest_complete(self.checkpoints)
        if checkpoint is None:
            if faults:
                raise CheckpointError(
                    f"no checkpoint in {self.checkpoints} is complete ({'; '.join(faults)}); "
                    "remove the folder to start again"
                )
            write_text(path, text)
            write_text(self.folder / METRICS_FILE, "")
            append_start(self.folder, self.provenance, step=0)
            return
        state = load_trainer_state(checkpoint)
        weights, ema = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "ema"))
        self.trainer.restore(state, weights=weights, ema=ema, source=str(checkpoint))
        write_text(path, text)
        forget_after(self.folder, state.step)
        append_start(self.folder, self.provenance, step=state.step)
        yield Resumed(state.step, faults)

    def _require_run_folder(self) -> None:
        """Makes the folder, or sees that what is there is a run, or nothing."""
        if (self.folder / RUN_CONFIG_FILE).exists():
            return
        # What a run leaves that was killed while it began is nothing.
        names = (path.name for path in self.folder.glob("*"))
        others = [name for name in names if name != LOCK_FILE and not name.startswith(INCOMPLETE)]
        if self.folder.exists() and (not self.folder.is_dir() or others):
            raise OutputExistsError(
                f"{self.folder} exists and is no run folder; name an empty or a new one with --out (run_dir)"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputExistsError(
                f"{self.folder} cannot be made ({error.strerror}); name a folder that is yours to write with --out "
                "(run_dir)"
            ) from error

    def _evaluate(
        self, measure: Callable[[Progress | None], BoundEstimate], on_measured: Progress | None
    ) -> Evaluation:
        trainer = self.trainer
        with trainer.averaged_weights():
            estimate = measure(on_measured)
        per_token = estimate.nll_nats / trainer.dataset.target_length
        error = float(per_token.std()) / len(per_token) ** 0.5 if len(per_token) > 1 else None
        return Evaluation(trainer.step, float(per_token.mean()), error, len(per_token), self.num_valid_windows)

    def _snapshot(self, log: RunLog, *, with_samples: bool) -> Snapshot:
        trainer = self.trainer
        state = trainer.state()
        samples = report = None
        if with_samples and self.sample is not None:
            with trainer.averaged_weights():
                report = self.sample(state.step)
            samples = self.folder / "samples" / f"step_{state.step}.txt"
            write_json(samples.with_suffix(".json"), report.to_dict())
            write_text(samples, report.listing())
            log.metrics({"step": state.step, **report.figures()})
            for kind, texts in report.texts().items():
                log.texts(state.step, f"samples/{kind}", texts)
        checkpoint = save_checkpoint(
            self.checkpoints,
            config_json=self.settings.at_step(state.step).to_json(),
            model=trainer.model.state_dict(),
            ema=trainer.model.state_dict() | trainer.ema.state_dict(),
            state=state,
            tokenizer_file=self.tokenizer_file,
            keep=self.periods.keep,
        )
        return Snapshot(state.step, checkpoint, samples, report)
