"""The tasks of a job on Slurm, as arrays that are submitted once."""

import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import DataError, MissingExtraError, OutputExistsError
from cascaded_dllm.preprocess.executors import Resources, Tasks
from cascaded_dllm.preprocess.progress import logs_folder, read_notes

_NUMBER = re.compile(r"batch job (\d+)")
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


def submit_slurm(tasks: Tasks, resources: Resources, job_name: str) -> list[str]:
    """Submits the missing tasks to Slurm and returns the numbers of the jobs.

    There are several, each of which waits for the one before, where an array of this Slurm has no room for all tasks.

    Args:
        tasks: see `Tasks`; their folder must be seen by the nodes.
        resources: for every task.
        job_name: as it stands in the queue.

    Raises:
        ConfigError: no partition is given.
        DataError: Slurm's commands are missing, it does not answer, it refuses the job, or tells no number of it.
        MissingExtraError: datatrove is not installed.
        OutputExistsError: the folder cannot be written.
    """
    resources.check("slurm")
    try:
        from datatrove.executor.slurm import SlurmPipelineExecutor
    except ImportError as error:
        raise MissingExtraError("datatrove", extra="preprocess", purpose="--executor slurm") from error
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
        # Clusters without accounting know no quality of service.
        qos="",
        env_command=resources.prepare,
        sbatch_args={} if resources.account is None else {"account": resources.account},
        max_array_size=max_array_size,
        job_id_retriever=functools.partial(_noted, tasks.folder, job_name, earlier, numbers),
    )
    # It would wait in the queue for ever after a task that failed; our summaries are written by the tasks.
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
    """The numbers of the jobs for the dataset in `folder`: those submitted last, and those not over at that time."""
    jobs = read_notes(_jobs_file(folder)).get("jobs")
    return [str(number) for number in jobs] if isinstance(jobs, list) else []


def require_no_job(folder: Path) -> None:
    """Checks that no job is queued or running which was submitted for the dataset in `folder`.

    Raises:
        DataError: Slurm's commands are missing, or it does not answer.
        OutputExistsError: there is such a job.
    """
    if still := _queued(folder):
        raise OutputExistsError(
            f"Slurm still has job {' and job '.join(still)} for {folder} queued or running; wait for its end (how far "
            f"it is: cdllm preprocess status {folder}), end it with scancel {' '.join(still)}, or submit all that is "
            "missing once more with --submit-anyway"
        )


def run_slurm(
    command: Sequence[str], *, given: str | None = None, others: str = "local or ray"
) -> subprocess.CompletedProcess[str]:
    """How one of Slurm's commands ends, well or not, and what it prints.

    Args:
        command: its name and arguments.
        given: what it reads.
        others: executors that need no Slurm, for the message.

    Raises:
        DataError: it is missing.
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
    # Slurm gives a number again some day, to the job of somebody else.
    there = {line.partition(" ")[0] for line in listed.splitlines() if line.partition(" ")[2] == name}
    return [number for number in numbers if number in there]


def _not_over(folder: Path) -> list[str]:
    """The jobs for the dataset in `folder` of which nobody can say that they are over."""
    try:
        return _queued(folder)
    except DataError:
        # Somebody submits anyway since the queue does not answer; that is no reason to lose sight of a job.
        return submitted_jobs(folder)


def _noted(folder: Path, job_name: str, earlier: Sequence[str], numbers: list[str], output: str) -> str:
    """Takes the number of a job from what sbatch says, and notes it at once: later ones may be refused.

    Raises:
        DataError: there is none.
    """
    # Of a federation it also tells the cluster.
    if (match := _NUMBER.search(output)) is None:
        raise DataError(
            f"sbatch said {output.strip()!r}, which tells no number of a job; look with squeue whether there is one, "
            "and check that sbatch is Slurm's own"
        )
    numbers.append(match[1])
    write_json(_jobs_file(folder), {"name": job_name, "jobs": [*earlier, *numbers]})
    return match[1]


def _max_array_size() -> int:
    """How many tasks an array of this Slurm may have; it would refuse one with more.

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
    """What one of Slurm's commands prints; nothing where it complains of `over`.

    Raises:
        DataError: it is missing, or fails.
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
