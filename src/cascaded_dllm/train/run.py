"""A training run on disk: metrics, checkpoints and snapshots around the loop, as a generator of what happened."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from cascaded_dllm.atomic import INCOMPLETE, write_text
from cascaded_dllm.diffusion.bound import BoundEstimate
from cascaded_dllm.errors import CheckpointError, OutputExistsError
from cascaded_dllm.file_names import RUN_CONFIG_FILE
from cascaded_dllm.model.integrity import PREFIX, newest_complete
from cascaded_dllm.model.pretrained import StageSettings
from cascaded_dllm.text.listing import listing
from cascaded_dllm.train.checkpoint import (
    PARTS,
    HostCopy,
    Keeping,
    load_trainer_state,
    parts_beside,
    save_checkpoint,
)
from cascaded_dllm.train.host_copy import copy_to_host
from cascaded_dllm.train.trainer import StepResult, Trainer
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
        num_windows: windows it was measured on.
    """

    step: int
    bound_nats_per_token: float
    standard_error: float | None
    num_windows: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint is being written, and will be there when the run ends; `samples` holds the texts drawn with it."""

    step: int
    checkpoint: Path
    samples: Path | None


Event = Resumed | StepResult | Evaluation | Snapshot


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
        sample: draws texts with the averaged weights now in the network, or None.
    """

    folder: Path
    trainer: Trainer
    config: dict[str, Any]
    settings: StageSettings
    tokenizer_file: Path
    periods: RunPeriods
    measure: Callable[[Progress | None], BoundEstimate] | None
    sample: Callable[[], list[str]] | None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    def events(
        self, *, should_stop: Callable[[], bool] = lambda: False, on_measured: Progress | None = None
    ) -> Iterator[Event]:
        """Run to the end, from the newest complete checkpoint if the folder has one.

        Args:
            should_stop: asked after every step; if it says so, the step is kept in a checkpoint and the run ends.
            on_measured: told the validation windows done and their number while a bound is measured.

        Raises:
            OutputExistsError: the folder holds another run, or cannot be written.
            CheckpointError: it holds checkpoints and none of them is complete, or they have other settings.
            NonFiniteError: training broke down; the last checkpoint stands.
        """
        yield from self._open()
        trainer, periods = self.trainer, self.periods
        with BackgroundWriter() as writer:
            for result in trainer.steps():
                writer.check()
                is_last = result.step == trainer.loop.num_steps
                if result.step % periods.log_every == 0 or is_last:
                    self._log(result)
                yield result
                if self.measure is not None and (result.step % periods.eval_every == 0 or is_last):
                    evaluation = self._evaluate(self.measure, on_measured)
                    self._log(evaluation)
                    yield evaluation
                is_due = result.step % periods.snapshot_every == 0 or is_last
                # Asked last, so that what the step would have logged in an unbroken run is there; and all together,
                # so that no process goes on without the others.
                is_stopped = trainer.group.any(should_stop())
                if is_due or is_stopped:
                    yield self._snapshot(writer, with_samples=is_due)
                if is_stopped:
                    break
            writer.finish()
            # A process that ended before the others are done might take them with it.
            trainer.group.any(False)

    def _log(self, entry: Any) -> None:
        """Append a line to metrics.jsonl, in the first process."""
        if not self.trainer.group.is_first:
            return
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            raise OutputExistsError(
                f"{path} cannot be written ({error.strerror}); choose a run folder that is yours to write and has room"
            ) from error

    def _open(self) -> Iterator[Resumed]:
        """Start the folder, or take up its newest complete checkpoint; the first process looks for all."""
        group = self.trainer.group
        checkpoint, faults = group.from_first(self._begin)
        if checkpoint is None:
            return
        state = load_trainer_state(checkpoint)
        weights, ema = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "ema"))
        parts = checkpoint / PARTS
        self.trainer.restore(
            state, weights=weights, ema=ema, source=str(checkpoint), parts=parts if parts.is_dir() else None
        )
        if group.is_first:
            write_text(self.folder / RUN_CONFIG_FILE, yaml.safe_dump(self.config, sort_keys=False))
            self._forget_metrics_after(state.step)
        yield Resumed(state.step, faults)

    def _begin(self) -> tuple[Path | None, list[str]]:
        """The checkpoint to go on from, None for a run that starts, and what is wrong with newer ones."""
        path, text = self.folder / RUN_CONFIG_FILE, yaml.safe_dump(self.config, sort_keys=False)
        if not path.exists():
            self._new_folder()
            write_text(path, text)
            return None, []
        checkpoint, faults = newest_complete(self.checkpoints)
        if checkpoint is None:
            if faults:
                raise CheckpointError(
                    f"no checkpoint in {self.checkpoints} is complete ({'; '.join(faults)}); "
                    "remove the folder to start again"
                )
            write_text(path, text)
            write_text(self.folder / "metrics.jsonl", "")
        return checkpoint, faults

    def _new_folder(self) -> None:
        others = (path for path in self.folder.glob("*") if not path.name.startswith(INCOMPLETE))
        if self.folder.exists() and (not self.folder.is_dir() or any(others)):
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

    def _forget_metrics_after(self, step: int) -> None:
        """Drop lines of steps that will be done again, and a last line that was cut off."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{path} line {number} is no line of metrics ({type(error).__name__}); remove the line"
                ) from error
        write_text(path, "".join(kept))

    def _evaluate(
        self, measure: Callable[[Progress | None], BoundEstimate], on_measured: Progress | None
    ) -> Evaluation:
        trainer = self.trainer
        with trainer.averaged_weights():
            estimate = measure(on_measured)
        per_token = estimate.nll_nats / trainer.dataset.target_length
        error = float(per_token.std()) / len(per_token) ** 0.5 if len(per_token) > 1 else None
        return Evaluation(trainer.step, float(per_token.mean()), error, len(per_token))

    def _snapshot(self, writer: BackgroundWriter, *, with_samples: bool) -> Snapshot:
        trainer = self.trainer
        content = copy_to_host(trainer)
        step = content.state.step
        writer.begin(lambda: self._save(content))
        samples = None
        if with_samples and self.sample is not None:
            with trainer.averaged_weights():
                texts = self.sample()
            samples = self.folder / "samples" / f"step_{step}.txt"
            if trainer.group.is_first:
                write_text(samples, listing(texts))
        return Snapshot(step, self.checkpoints / f"{PREFIX}{step}", samples)

    def _save(self, content: HostCopy) -> None:
        """Write a checkpoint: first every process its parts, then the first one the rest.

        Raises:
            OutputExistsError: something cannot be written.
        """
        folder, storage = parts_beside(self.checkpoints, content.state.step), self.trainer.parallel.storage
        try:
            sums = storage.write_parts(content.parts, folder)
        except OSError as error:
            raise OutputExistsError(
                f"{folder} cannot be written ({error.strerror}); choose a run folder that is yours to write "
                "and has room"
            ) from error
        if self.trainer.group.is_first:
            save_checkpoint(
                self.checkpoints,
                config_json=self.settings.at_step(content.state.step).to_json(),
                content=content,
                tokenizer_file=self.tokenizer_file,
                keeping=self.periods.keeping,
                parts_folder=folder if storage.is_split else None,
                parts_sums=sums,
            )
