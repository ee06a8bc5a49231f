"""What several processes do together in the tests; they cannot run what a test defines inside of itself."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from cascaded_dllm.data.dataset import StageMixture
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, process_from_name
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from cascaded_dllm.evaluate.likelihood import dataset_bound
from cascaded_dllm.model.placed import Halves, train_only
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.sample.predictors import FirstHittingPredictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.checkpoint import Keeping
from cascaded_dllm.train.execution import prepare_execution
from cascaded_dllm.train.group import Group, open_group
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.parallel import Parallel, Replicated, Single
from cascaded_dllm.train.run import Run, RunPeriods
from cascaded_dllm.train.run_events import Snapshot
from cascaded_dllm.train.sharded import FullySharded
from cascaded_dllm.train.snapshot import SnapshotReport
from cascaded_dllm.train.trainer import StepResult, Trainer
from cascaded_dllm.train.valid_windows import ValidWindows
from cascaded_dllm.train.world import World
from tests.unit.train.conftest import (
    LENGTHS,
    NUM_WINDOWS,
    VOCAB_SIZE,
    _model,
    _report,
    _stage_arrays,
    _stage_dataset,
)

CPU = torch.device("cpu")
# eps keeps Adam from dividing rounding errors by rounding errors.
OPTIM = OptimConfig(lr=1e-2, warmup=2, eps=1e-4)
NETWORK = {
    "dropout": 0.1,
    "num_blocks": 2,
    "prefix_attention": "one_way",
    "parameterization": "normalized",
    "copy_head": True,
}


PLAIN_NETWORK = {"prefix_attention": "joint", "parameterization": "score", "copy_head": False}
"""SEDD's own, in place of the one above, which has as many parts as there are."""


def _parallel(model: ScoreModel, group: Group, strategy: str) -> Parallel:
    if group.size == 1:
        return Single()
    return FullySharded(model, group, CPU) if strategy == "fsdp" else Replicated(model, group)


def trainer_of(group: Group, strategy: str, *, num_steps: int = 20, accum: int = 2, **network: Any) -> Trainer:
    """With dropout and accumulation; the same numbers from any number of processes that divides 12."""
    model = _model(**(NETWORK | network))
    return Trainer(
        model,
        Objective(process_from_name("absorbing", VOCAB_SIZE), LogLinearSchedule(), 1e-2),
        _stage_dataset(2),
        optim=OPTIM,
        loop=LoopConfig(batch_size=12, accum=accum, num_steps=num_steps, ema_decay=0.9, seed=1),
        course={"some.key": "the same"},
        parallel=_parallel(model, group, strategy),
    )


def placed_trainer(group: Group, strategy: str, halves: Halves = "both") -> Trainer:
    """Of a placed stage, whose layout network trains beside its fill, or one of them alone."""
    model = _model(num_blocks=2, dropout=0.1, parameterization="normalized", is_placed=True)
    train_only(model, halves)
    return Trainer(
        model,
        Objective(process_from_name("absorbing", VOCAB_SIZE), LogLinearSchedule(), 1e-2, halves=halves),
        _stage_dataset(2, is_placed=True),
        optim=OPTIM,
        loop=LoopConfig(batch_size=12, accum=2, num_steps=4, ema_decay=0.9, seed=1),
        course={},
        parallel=_parallel(model, group, strategy),
    )


def placed_numbers(group: Group, strategy: str) -> dict[str, dict[str, Any]]:
    """What training of a placed stage gives, by the halves that are trained, and what it writes after that."""
    trainers = {halves: placed_trainer(group, strategy, halves) for halves in get_args(Halves)}
    return {halves: numbers(trainer) | {"texts": texts_of(trainer)} for halves, trainer in trainers.items()}


def mixture_losses(group: Group) -> dict[str, list[float | None]]:
    """Losses of a flat network that learns the fills of all stages, by strategy."""
    found = {}
    for strategy in ("ddp", "fsdp") if group.size > 1 else ("single",):
        model = _model(num_blocks=2, dropout=0.1)
        trainer = Trainer(
            model,
            Objective(process_from_name("absorbing", VOCAB_SIZE), LogLinearSchedule(), 1e-2, halves="fill"),
            StageMixture.of_fills(_stage_arrays()),
            optim=OPTIM,
            loop=LoopConfig(batch_size=12, accum=2, num_steps=4, ema_decay=0.9, seed=1),
            course={},
            parallel=_parallel(model, group, strategy),
        )
        found[strategy] = [result.loss_nats_per_token for result in trainer.steps()]
    return found


def texts_of(trainer: Trainer) -> list[list[int]]:
    """Five texts that a placed stage writes on the first prefixes."""
    assert isinstance(trainer.objective.process, AbsorbingProcess)
    stage = StageSampler(trainer.model, trainer.objective.process, trainer.objective.schedule, LENGTHS[1])
    prefix = make_batch(trainer.dataset, np.arange(5), np.arange(5)).prefix
    with trainer.averaged_weights():
        *_, last = stage.states(
            prefix,
            predictor=FirstHittingPredictor(),
            num_steps=1,
            draws=Draws(0, "texts"),
            sample_index=torch.arange(5),
        )
    return last.xt.tolist()


def run_of(trainer: Trainer, folder: Path, *, snapshot_every: int = 2) -> Run:
    """Keeps every checkpoint, and measures the bound at the end."""
    tokenizer_file = folder.parent / "tokenizer.json"
    tokenizer_file.write_text("{}")
    return Run(
        folder=folder,
        trainer=trainer,
        config={"some": "settings"},
        settings=StageSettings(model=trainer.model.config, noise={"type": "loglinear"}, stage=2, stage_lengths=LENGTHS),
        tokenizer_file=tokenizer_file,
        periods=RunPeriods(log_every=1, eval_every=100, snapshot_every=snapshot_every, keeping=Keeping(newest=20)),
        measure=lambda on_progress: bound_of(trainer, on_progress),
        sample=_report,
        valid=ValidWindows(num_windows=NUM_WINDOWS),
    )


def bound_of(trainer: Trainer, on_progress: Callable[[int, int], None] | None = None) -> Any:
    return dataset_bound(
        trainer.model,
        trainer.objective,
        trainer.dataset,
        num_windows=11,
        num_times=2,
        batch_size=4,
        seed=1,
        on_progress=on_progress,
        group=trainer.group,
    )


@contextlib.contextmanager
def recorded(trainer: Trainer) -> Iterator[list[list[int]]]:
    """The windows that this process trains on inside the block, part by part; those of the dry batch are left out."""
    asked: list[list[int]] = []
    batch, rehearse = trainer.dataset.batch, trainer.rehearse

    def recording(indices: Any) -> Any:
        asked.append(indices.tolist())
        return batch(indices)

    def rehearsing() -> None:
        rehearse()
        asked.clear()

    trainer.dataset.batch, trainer.rehearse = recording, rehearsing  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        trainer.dataset.batch, trainer.rehearse = batch, rehearse  # type: ignore[method-assign]


def numbers(trainer: Trainer) -> dict[str, Any]:
    """What 20 steps and a bound give: plain numbers, that travel between processes."""
    with recorded(trainer) as asked:
        results = list(trainer.steps())
    with trainer.averaged_weights():
        bound = bound_of(trainer)
    full = trainer.parallel.storage.full
    return {
        "loss": [result.loss_nats_per_token for result in results],
        "norm": [result.grad_norm for result in results],
        "windows": asked,
        "bound": bound.nll_nats.tolist(),
        "error": bound.standard_error.tolist(),
        "weights": [full(p.detach()).flatten().tolist() for p in trainer.model.parameters()],
        "ema": [full(p).flatten().tolist() for p in trainer.ema.state_dict().values()],
    }


def in_the_group(world: World, function: Any, *arguments: Any) -> Any:
    """What `function(group, *arguments)` returns in a process of `world`."""
    with open_group(world, CPU) as group:
        return function(group, *arguments)


def everything(group: Group, folder: Path) -> dict[str, Any]:
    """All that two processes are asked."""
    found: dict[str, Any] = {"group": group_facts(group)}
    for strategy in ("ddp", "fsdp"):
        found[strategy] = numbers(trainer_of(group, strategy))
        found[f"{strategy} plain"] = numbers(trainer_of(group, strategy, **PLAIN_NETWORK))
        found[f"{strategy} broken"] = broken_on_one_process(trainer_of(group, strategy))
        found[f"{strategy} placed"] = placed_numbers(group, strategy)
        found[f"{strategy} resumed"] = interrupted(group, strategy, folder / strategy)
        found[f"{strategy} stopped"] = stopped(group, strategy, folder / f"{strategy} stopped")
        found[f"{strategy} without samples"] = without_samples(group, strategy, folder / f"{strategy} without samples")
    # A checkpoint of each way is taken up by the other, and one of a single process by both.
    for strategy, source in (("ddp", "fsdp"), ("fsdp", "ddp"), ("ddp", "single"), ("fsdp", "single")):
        trainer = trainer_of(group, strategy, num_steps=8)
        list(run_of(trainer, folder / f"{source} for {strategy}").events())
        found[f"{strategy} from {source}"] = weights_of(trainer)
    return found


def weights_of(trainer: Trainer) -> list[Any]:
    full = trainer.parallel.storage.full
    return [full(p.detach()).flatten().tolist() for p in trainer.model.parameters()]


def group_facts(group: Group) -> dict[str, Any]:
    """Votes, values and errors between two processes."""

    def only_here(rank: int) -> None:
        if group.rank == rank:
            raise DataError(f"process {rank} has no data")

    def message(function: Any) -> str:
        try:
            function()
        except (DataError, ConfigError) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing raised"

    order = []
    group.after_first(lambda: order.append(group.rank))
    return {
        "any": [group.any(False), group.any(group.rank == 1), group.any(True)],
        "gather": group.gather(f"from {group.rank}"),
        "from_first": group.from_first(lambda: f"of {group.rank}"),
        "from_first raises": message(lambda: group.from_first(lambda: only_here(0))),
        "together": group.together(lambda: group.rank),
        "together raises": message(lambda: group.together(lambda: only_here(1))),
        "after_first": order,
    }


def broken_on_one_process(trainer: Trainer) -> dict[str, Any]:
    """The gradient of the second process is not finite at step 3: all of them stop, at the weights of step 2."""
    steps = trainer.steps()
    for _ in range(2):
        next(steps)
    before = weights_of(trainer)
    weight = trainer.model.blocks[0].adaLN_modulation.bias
    if trainer.group.rank == 1:
        backward = trainer.parallel.backward

        def poisoned(share: torch.Tensor, *, is_last: bool) -> None:
            backward(share * float("inf") if is_last else share, is_last=is_last)

        trainer.parallel.backward = poisoned  # type: ignore[method-assign]
    try:
        next(steps)
    except NonFiniteError as error:
        return {"error": str(error), "unchanged": before == weights_of(trainer), "device": str(weight.device)}
    return {"error": "nothing raised"}


def stop_after(run: Run, step: int) -> None:
    """Run until the checkpoint of `step` is begun, and drop the run, which waits until it is written."""
    for event in run.events():
        if isinstance(event, Snapshot) and event.step == step:
            return


def interrupted(group: Group, strategy: str, folder: Path) -> dict[str, Any]:
    """Eight steps of a run that was broken off after six and taken up from its checkpoint, and of an unbroken one."""
    unbroken = trainer_of(group, strategy, num_steps=8)
    list(run_of(unbroken, folder.with_name(f"{folder.name} unbroken")).events())
    first = trainer_of(group, strategy, num_steps=8)
    stop_after(run_of(first, folder), 6)
    if group.is_first:
        for other in {"ddp", "fsdp", "single"} - {strategy}:
            shutil.copytree(folder, folder.with_name(f"{strategy} for {other}"), symlinks=True)
    group.any(False)
    second = trainer_of(group, strategy, num_steps=8)
    with recorded(second) as asked:
        events = list(run_of(second, folder).events())
    return {
        "resumed at": events[0].step,
        "windows": asked[:4],
        "same bits": weights_of(second) == weights_of(unbroken),
        "weights": weights_of(second),
    }


def without_samples(group: Group, strategy: str, folder: Path) -> dict[str, Any]:
    """A run whose samples cannot be drawn at its last checkpoint, and what the next start does first."""

    def sample(step: int, go_on: Callable[[], None]) -> SnapshotReport:
        if step == 4:
            raise CheckpointError("the stage before is gone")
        return _report(step)

    first = replace(run_of(trainer_of(group, strategy, num_steps=4), folder), sample=sample)
    message = "nothing raised"
    try:
        list(first.events())
    except CheckpointError as error:
        message = str(error)
    group.any(False)
    events = list(run_of(trainer_of(group, strategy, num_steps=4), folder).events())
    return {"error": message, "events": [(type(event).__name__, event.step) for event in events]}


def stopped(group: Group, strategy: str, folder: Path) -> list[list[tuple[str, int]]]:
    """What happens at the end of a run whose second process is asked to stop in the bound of its last step.

    Then the first one in the samples, and then none.
    """
    starts, asked, found = ["bound", "samples", "nothing"], set(), []

    def sample(step: int, go_on: Callable[[], None]) -> SnapshotReport:
        if step == 4 and group.rank == 0:
            asked.add("samples")
        go_on()
        return _report(step)

    def on_measured(done: int, total: int) -> None:
        if group.rank == 1:
            asked.add("bound")

    while starts:
        asked.clear()
        run = replace(run_of(trainer_of(group, strategy, num_steps=4), folder), sample=sample)
        if strategy == "ddp" and not group.is_first:
            # As assembled: where weights are whole, the first process draws alone.
            run = replace(run, sample=None)
        events = list(run.events(should_stop=lambda: starts[0] in asked, on_measured=on_measured))
        found.append([(type(event).__name__, event.step) for event in events if event.step == 4])
        starts.pop(0)
        group.any(False)
    return found


def losses_with_and_without_compilation(world: World, cache: str) -> list[dict[str, Any]]:
    """Four steps, in which the number of masked positions changes, and a bound after them."""
    from torch._dynamo import config as tracing
    from torch._inductor import config as inductor

    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    # Half as much for the C++ compiler: scalar code, and no graphs for one shape that only the first step has.
    inductor.cpp.simdlen = 1
    tracing.assume_static_by_default = False
    found = []
    for compiles in (False, True):
        trainer = trainer_of(
            Group(), "single", num_steps=4, accum=1, num_blocks=1, dropout=0.0, prefix_attention="joint"
        )
        trainer.execution = prepare_execution(trainer.model, CPU, compiles=compiles, deterministic=False, log_every=1)
        losses = [result.loss_nats_per_token for result in trainer.steps()]
        with trainer.averaged_weights():
            bound = bound_of(trainer)
        found.append({"losses": losses, "bound": bound.nll_nats.tolist(), "names": list(trainer.model.state_dict())})
    return found


def killed_once(world: World, strategy: str, folder: Path, die_in_step: int | None) -> None:
    """A run of 12 steps that goes on until it kills itself, in the middle of a step; a checkpoint every third step.

    The windows of every step go into a file a process: those of a step that is done again stand there again.
    """
    with open_group(world if world.size > 1 else None, CPU) as group:
        trainer = trainer_of(group, strategy, num_steps=12)
        average = trainer.ema.update

        def update(*arguments: Any, **options: Any) -> None:
            # Now the weights are those of the step, and nothing else is.
            if trainer.step + 1 == die_in_step and group.rank == die_in_step % group.size:
                os.kill(os.getpid(), signal.SIGKILL)
            average(*arguments, **options)

        trainer.ema.update = update  # type: ignore[method-assign]
        with recorded(trainer) as asked, (folder.parent / f"windows {folder.name} {group.rank}").open("a") as file:
            for event in run_of(trainer, folder, snapshot_every=3).events():
                if isinstance(event, StepResult):
                    file.write(json.dumps([event.step, asked[:2]]) + "\n")
                    file.flush()
                asked.clear()
