"""The tasks of a job on Slurm, submitted as job arrays."""

import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.preprocess.executors import Resources, Tasks
from cascaded_dllm.preprocess.progress import logs_folder, read_notes

_NUMBER = re.compile(r"batch job (\d+)")
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


def submit_slurm(tasks: Tasks, resources: Resources, job_name: str) -> list[str]:
    """Submits the missing tasks to Slurm and returns the numbers of the jobs.

    If one job array of this Slurm cannot hold all tasks, there are several jobs, each waiting for the one before.

    Args:
        tasks: see `Tasks`; all nodes must see their folder.
        resources: for every task.
        job_name: name in the queue.

    Raises:
        ConfigError: no partition is given.
        DataError: Slurm's commands are missing, it does not answer, it refuses the job, or it prints no job number.
        OutputError: the folder cannot be written.
    """
    resources.check("slurm")
    from datatrove.executor.slurm import SlurmPipelineExecutor

    max_array_size = _max_array_size()
    tasks.mark()
    numbers: list[str] = []
    earlier = _not_over(tasks.folder)
    executor = SlurmPipelineExecutor(
        pipeline=[tasks.task],
        tasks=tasks.num_shards,
        logging_dir=str(tasks.logs.resolve()),
        time=resources.time,
        partition=resources.partition,
        cpus_per_task=resources.cpus,
        mem_per_cpu_gb=resources.memory_gb,
        gpus_per_task=resources.gpus,
        workers=resources.workers,
        job_name=job_name,
        # Clusters without accounting do not know datatrove's default quality of service.
        qos="",
        env_command=resources.prepare,
        sbatch_args={} if resources.account is None else {"account": resources.account},
        max_array_size=max_array_size,
        job_id_retriever=functools.partial(_noted, tasks.folder, job_name, earlier, numbers),
    )
    # After a failed task, this job would wait in the queue forever; the tasks themselves write the summaries.
    executor.launch_merge_stats = lambda: None
    try:
        executor.run()
    except FileNotFoundError as error:
        raise _without_slurm(error) from error
    except subprocess.CalledProcessError as error:
        raise DataError(
            f"Slurm refused the job (exit code {error.returncode}); see its message above, and check --partition, "
            "--account, --time, --cpus and --memory-gb"
        ) from error
    return numbers


def submitted_jobs(folder: Path) -> list[str]:
    """The numbers of the jobs for the dataset in `folder`: those submitted last, and those still in the queue then."""
    jobs = read_notes(_jobs_file(folder)).get("jobs")
    return [str(number) for number in jobs] if isinstance(jobs, list) else []


def require_no_job(folder: Path) -> None:
    """Checks that no job for the dataset in `folder` is queued or running.

    Raises:
        DataError: Slurm's commands are missing, or it does not answer.
        OutputError: there is such a job.
    """
    if still := _queued(folder):
        raise OutputError(
            f"Slurm still has job {' and job '.join(still)} for {folder} queued or running; wait for its end (how far "
            f"it is: cdllm preprocess status {folder}), end it with scancel {' '.join(still)}, or submit all that is "
            "missing once more with --submit-anyway"
        )


def run_slurm(
    command: Sequence[str], *, given: str | None = None, others: str = "local or ray"
) -> subprocess.CompletedProcess[str]:
    """Runs one of Slurm's commands and returns its exit code and output.

    Args:
        command: its name and arguments.
        given: its standard input.
        others: executors that do not need Slurm, for the message.

    Raises:
        DataError: the command is missing.
    """
    try:
        return subprocess.run(command, input=given, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise _without_slurm(error, others) from error


def _queued(folder: Path) -> list[str]:
    """The jobs for the dataset in `folder` that Slurm still has.

    Raises:
        DataError: Slurm's commands are missing, or it does not answer.
    """
    name = read_notes(_jobs_file(folder)).get("name")
    if not (numbers := submitted_jobs(folder)):
        return []
    listed = _answer(["squeue", "-h", "-o", "%F %j", "-j", ",".join(numbers)], over="Invalid job id")
    # Slurm reuses job numbers, so the job may be another user's.
    there = {line.partition(" ")[0] for line in listed.splitlines() if line.partition(" ")[2] == name}
    return [number for number in numbers if number in there]


def _not_over(folder: Path) -> list[str]:
    """The jobs for the dataset in `folder` that are not known to be over."""
    try:
        return _queued(folder)
    except DataError:
        # With --submit-anyway, the queue need not answer; the noted jobs may still be there.
        return submitted_jobs(folder)


def _noted(folder: Path, job_name: str, earlier: Sequence[str], numbers: list[str], output: str) -> str:
    """The number of a job, from the output of sbatch. It is noted in a file at once, since later jobs may be refused.

    Raises:
        DataError: the output has no job number.
    """
    # In a federation, the name of the cluster follows the number.
    if (match := _NUMBER.search(output)) is None:
        raise DataError(
            f"sbatch said {output.strip()!r}, which has no job number; see with squeue whether there is a job, and "
            "check that sbatch is Slurm's own"
        )
    numbers.append(match[1])
    write_json(_jobs_file(folder), {"name": job_name, "jobs": [*earlier, *numbers]})
    return match[1]


def _max_array_size() -> int:
    """The most tasks that a job array of this Slurm may have.

    Raises:
        DataError: Slurm's commands are missing, or it does not answer.
    """
    command = ["scontrol", "show", "config"]
    answer = _answer(command)
    if (match := _MAX_ARRAY_SIZE.search(answer)) is None or match[1] == "0":
        raise DataError(
            f"{' '.join(command)} tells no MaxArraySize above 0, so that no job array can be submitted; choose "
            "--executor local or ray"
        )
    return int(match[1])


def _answer(command: Sequence[str], *, over: str | None = None) -> str:
    """The output of one of Slurm's commands; empty if it fails with an error that contains `over`.

    Raises:
        DataError: the command is missing, or fails otherwise.
    """
    done = run_slurm(command)
    if done.returncode == 0:
        return done.stdout
    if over is not None and over in done.stderr:
        return ""
    raise DataError(
        f"{' '.join(command)} failed (exit code {done.returncode}: {done.stderr.strip()}); check that Slurm is at "
        "work, or choose --executor local or ray"
    )


def _without_slurm(error: FileNotFoundError, others: str = "local or ray") -> DataError:
    return DataError(
        f"{error.filename} is not on this machine; submit from a login node of the cluster, or choose --executor "
        f"{others}"
    )


def _jobs_file(folder: Path) -> Path:
    return logs_folder(folder) / "slurm.json"
