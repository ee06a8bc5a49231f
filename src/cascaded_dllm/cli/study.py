"""`cdllm study`: trains, measures and samples the arms of a study file at equal cost."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from cascaded_dllm.assemble.start import plain
from cascaded_dllm.atomic import write_text
from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import console, counted, progress_bar, reported_errors, say, warn
from cascaded_dllm.cli.interrupt import StopRequest, reported_stop
from cascaded_dllm.cli.options import Debug
from cascaded_dllm.cli.study_file import open_study, read_study, shipped_studies
from cascaded_dllm.cli.study_report import report, say_written, write_report
from cascaded_dllm.cli.study_status import show_status
from cascaded_dllm.cli.study_work import Choice, ProgressDisplay, prepare_work, say_size, work_here, work_in_processes
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.file_names import DONE, MISSING, RESULTS_FILE
from cascaded_dllm.preprocess.executors import Resources
from cascaded_dllm.processes import MOST_WORKERS
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import require_sound_corpus
from cascaded_dllm.study.drawing import require_sound_drawings
from cascaded_dllm.study.folder import STUDY_FILE, StudyFolder
from cascaded_dllm.study.plan import arm_configs, require_budget
from cascaded_dllm.study.results import write_results
from cascaded_dllm.study.slurm import submit_arm
from cascaded_dllm.study.work import Work
from cascaded_dllm.study_config import StudySettings

EXIT_BROKEN_ARM = 3
"""Exit code of a finished study in which an arm has diverged or failed."""

app = typer.Typer(add_completion=False, no_args_is_help=True)

Out = Annotated[
    Path, typer.Option(help="Folder for data, runs, samples and results.json; a study that is in it is resumed.")
]


@app.callback()
def _study() -> None:
    """Compare models trained at equal cost: one file describes the study, one command runs it."""


@app.command("list")
def list_studies(debug: Debug = False) -> None:
    """List the built-in studies with their files, which you can copy and change.

    Examples:

      cdllm study list
    """
    with reported_errors(debug):
        for name, path in shipped_studies().items():
            study = read_study(str(path))
            arms = ", ".join(arm.name for arm in study.arms)
            say(
                f"{name}: {study.corpus.dataset or 'folders'}, {study.budget.amount:g} {study.budget.unit} an arm, "
                f"{counted(len(study.seeds), 'seed')}; {arms}\n  {path}"
            )


@app.command()
def run(
    study: Annotated[
        str,
        typer.Argument(help="Name of a built-in study (`cdllm study list`), or a study file.", show_default=False),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides key=value of keys in the file.", show_default=False),
    ] = None,
    out: Out = Path("runs/study"),
    arm: Annotated[list[str] | None, typer.Option(help="Run only this arm; repeat it for several.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Run only this seed; repeat it for several.")] = None,
    workers: Annotated[int, typer.Option(help="Processes on this machine that share the work.")] = 1,
    executor: Annotated[
        str, typer.Option(help="Where the study runs: local, or slurm, with one job for each arm and seed.")
    ] = "local",
    partition: Annotated[str | None, typer.Option(help="Slurm: partition to run in.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: account to charge.")] = None,
    time_limit: Annotated[
        str, typer.Option("--time", help="Slurm: time limit of a job; a job that reaches it is queued again.")
    ] = "24:00:00",
    cpus: Annotated[int, typer.Option(help="Slurm: cores of a job.")] = 1,
    memory_gb: Annotated[int, typer.Option(help="Slurm: memory per core, in GB.")] = 4,
    gpus: Annotated[int, typer.Option(help="Slurm: GPUs of a job.")] = 0,
    setup: Annotated[
        str | None, typer.Option(help="Slurm: shell command that prepares the environment on a node.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train, measure and sample every arm with every seed, at equal cost, and write results.json.

    Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the study after the current step (exit code 130 or 75). The same command
    resumes it and repeats nothing that is finished. An arm that diverges or fails does not end the study; the exit code
    is then 3.

    Examples:

      cdllm study run tiny-stories --out runs/tiny-stories --workers 2
      cdllm study run prose-small --out runs/prose --executor slurm --partition gpu --gpus 1 --cpus 8
      cdllm study run my_study.yaml --out runs/mine --arm flat --arm placed --seed 0 budget.token_forwards=1000000
    """
    with reported_errors(debug):
        folder = StudyFolder(out.absolute())
        settings = read_study(study, overrides or [])
        choice = Choice(arms=tuple(arm or ()), seeds=tuple(seed or ()), workers=workers)
        resources = Resources(workers, cpus, memory_gb, gpus, time_limit, partition, account, setup)
        configs = _require_sound(settings, choice, executor, resources)
        write_text(folder.out / STUDY_FILE, yaml.safe_dump(plain(settings.to_dict()), sort_keys=False))
        if executor == "slurm":
            _submit(settings, folder, choice, resources)
            return
        with reported_stop() as request, _callbacks(request) as callbacks:
            work = prepare_work(settings, configs, folder, callbacks, choice.attempt)
            say_size(work, choice)
            if workers == 1:
                work_here(work, choice)
            else:
                work_in_processes(work, configs, choice, request)
            results = write_results(work, shlex.join(["cdllm", *sys.argv[1:]]), callbacks)
        _conclude(results, work, choice)


@app.command()
def collect(
    out: Annotated[Path, typer.Argument(help="Folder of a study that was begun.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Write results.json anew from all finished parts, such as those of cluster jobs.

    Examples:

      cdllm study collect runs/tiny-stories
    """
    with reported_errors(debug):
        settings, folder = open_study(out)
        with reported_stop() as request:
            callbacks = StudyCallbacks(request.is_made)
            work = prepare_work(settings, arm_configs(settings, compose_config), folder, callbacks, "collect")
            command = shlex.join(["cdllm", "study", "run", str(folder.out / STUDY_FILE), "--out", str(out)])
            results = write_results(work, command, callbacks)
        _conclude(results, work, Choice())


app.command()(report)
app.command("status")(show_status)


def _require_sound(study: StudySettings, choice: Choice, executor: str, resources: Resources) -> dict[str, TrainConfig]:
    """Checks everything that can be checked before the work begins.

    Returns:
        The configuration that the runs of an arm share, by arm; see `arm_configs`.

    Raises:
        ConfigError: a setting is unknown or out of range, the budget is too small, or the judge is not a causal
            language model.
    """
    one_of("--executor", executor, ("local", "slurm"))
    require_at_least("--workers", choice.workers, 1, most=MOST_WORKERS)
    if executor == "slurm" and choice.workers > 1:
        raise ConfigError(
            f"--workers is {choice.workers}, and --executor slurm starts one job for each arm and seed; leave it out"
        )
    resources.check(executor)
    choice.require_known(study)
    require_sound_corpus(study.corpus)
    require_sound_drawings(study)
    configs = arm_configs(study, compose_config)
    require_budget(study, configs)
    if study.judge is not None:
        Judge.load(study.judge)
    return configs


def _submit(study: StudySettings, folder: StudyFolder, choice: Choice, resources: Resources) -> None:
    """Submits a job for every chosen arm and seed."""
    for seed in choice.seeds or study.seeds:
        for arm in choice.arms or tuple(arm.name for arm in study.arms):
            number = submit_arm(folder, arm, seed, resources)
            console.print(f"job {number}: arm {arm}, seed {seed}")
    out = shlex.quote(str(folder.out))
    say(
        f"every job updates {folder.out / RESULTS_FILE} when it ends; logs are in {folder.logs}, cdllm study "
        f"status {out} shows the progress, and cdllm study collect {out} the results so far"
    )


@contextmanager
def _callbacks(request: StopRequest) -> Iterator[StudyCallbacks]:
    """Callbacks that show the work on this terminal and stop it at a request."""
    with progress_bar("") as (progress, _):
        task = progress.task_ids[0]

        def show_bar(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield StudyCallbacks(request.is_made, say, ProgressDisplay(show_bar).show)


def _conclude(results: dict[str, Any], work: Work, choice: Choice) -> None:
    """Prints the table of a study, and writes its report.

    Raises:
        typer.Exit: a chosen arm has diverged or failed.
    """
    console.print(_table(results))
    say_written(write_report(work.folder.out / RESULTS_FILE))
    chosen = {(arm.settings.name, arm.seed) for arm in choice.of(work.study, work.arms)}
    entries = [entry for entry in results["arms"] if (entry["arm"], entry["seed"]) in chosen]
    broken = [entry for entry in entries if entry["status"] not in (DONE, MISSING)]
    for entry in broken:
        warn(f"{entry['arm']}, seed {entry['seed']}: {entry['status']}: {entry['reason']}")
    if broken:
        raise typer.Exit(EXIT_BROKEN_ARM)


def _table(results: dict[str, Any]) -> Table:
    """The bounds of all arms and seeds, in nats a window, and their differences from the first arm."""
    truth = results["truth_nats_per_window"]
    known = "" if truth is None else f"; true value {truth:.3f}"
    table = Table(title=f"{results['name']}: upper bound on -log p, nats a window{known}")
    for column in ("arm", "seed", "status", "bound", "+-", "beside the first", "+-"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    first = results["study"]["arms"][0]["name"]
    paired = {(pair["arm"], pair["seed"]): pair for pair in results["paired"] if pair["other"] == first}
    for entry in results["arms"]:
        bound, pair = entry["bound"], paired.get((entry["arm"], entry["seed"]))
        numbers = [None, None] if bound is None else [bound["bound_nats_per_window"], bound["standard_error_nats"]]
        numbers += [None, None] if pair is None else [pair["mean_nats_per_window"], pair["standard_error_nats"]]
        shown = ["-" if number is None else f"{number:.3f}" for number in numbers]
        table.add_row(entry["arm"], str(entry["seed"]), entry["status"], *shown)
    return table
