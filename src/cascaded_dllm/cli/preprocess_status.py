"""`cdllm preprocess status`: the progress of a job, wherever it runs."""

from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.cli.console import console, counted, note, reported_errors
from cascaded_dllm.cli.options import Debug, tell
from cascaded_dllm.cli.preprocess_progress import progress_line, say_shards
from cascaded_dllm.preprocess.status import Status, status

_SAID = 20
"""Tasks that are listed one by one."""


def show_status(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset: <out>/<method>/<name>_<split>.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Show the progress of a job, here or on a cluster, from the files that its tasks write.

    Examples:

      cdllm preprocess status data/preprocessed/constituency/openwebtext_train
      cdllm preprocess status D --json
    """
    with reported_errors(debug):
        now = status(folder)
        tell(now.as_json(), lambda: _show(now), as_json=as_json)


def _show(now: Status) -> None:
    at_work, silent = now.at_work, now.silent
    console.print(
        f"{len(now.done):,} of {counted(now.num_shards, 'shard')} done, {len(at_work):,} at work, "
        f"{now.not_begun:,} not begun" + (f", {len(silent):,} silent" if silent else "")
    )
    if len(now.done) < now.num_shards:
        console.print(progress_line(now.records_done, now.records_total, now.rate), soft_wrap=True)
    for what, tasks in (("is at work", at_work), ("is silent", silent)):
        say_shards(tasks, what + ": {records} in {time}, last heartbeat {age} ago", most=_SAID)
    if silent:
        note(
            "a silent task has most likely ended; once no job runs, the command that began the job makes the missing "
            "shards"
        )
    if now.jobs:
        console.print(f"Slurm jobs: {', '.join(now.jobs)}")
