"""A study on Slurm: one job for each arm and seed, requeued when its time is up, until the arm is done."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cascaded_dllm.errors import EXIT_AGAIN, DataError
from cascaded_dllm.preprocess.executors import Resources
from cascaded_dllm.preprocess.on_slurm import run_slurm
from cascaded_dllm.study.folder import STUDY_FILE, StudyFolder

_SECONDS_BEFORE_THE_END = 120
_TOO_EARLY = 138
"""Exit code of a process that the signal ends before its handler is in place."""


def submit_arm(folder: StudyFolder, arm: str, seed: int, resources: Resources) -> str:
    """Submits the job of an arm and returns its number.

    Args:
        folder: of the study; the nodes must see it, and it holds the study file.
        arm: name of the arm.
        seed: of the arm.
        resources: of the job.

    Raises:
        DataError: Slurm's commands are missing, or it refuses the job.
    """
    folder.logs.mkdir(parents=True, exist_ok=True)
    options, script = _options(arm, seed, resources, folder.logs), job_script(folder, arm, seed, resources)
    done = run_slurm(options, others="local", given=script)
    if done.returncode != 0:
        raise DataError(
            f"Slurm refused the job of arm {arm}, seed {seed} (exit code {done.returncode}: {done.stderr.strip()}); "
            "check --partition, --account, --time, --cpus, --memory-gb and --gpus"
        )
    return done.stdout.strip().partition(";")[0]


def job_script(folder: StudyFolder, arm: str, seed: int, resources: Resources) -> str:
    """The script of a job, which passes on the signal that its time is nearly up and then requeues itself."""
    out = shlex.quote(str(folder.out))
    study = shlex.quote(str(folder.out / STUDY_FILE))
    return f"""#!/usr/bin/env bash
set -uo pipefail
{resources.prepare}
time_is_short=no
trap 'time_is_short=yes; kill -USR1 "$study"' USR1
cdllm study run {study} --out {out} --arm {shlex.quote(arm)} --seed {seed} &
study=$!
code=0
wait "$study" || code=$?
while kill -0 "$study" 2>/dev/null; do
    code=0
    wait "$study" || code=$?
done
if [ "$time_is_short" = yes ] && {{ [ "$code" = {EXIT_AGAIN} ] || [ "$code" = {_TOO_EARLY} ]; }}; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _options(arm: str, seed: int, resources: Resources, logs: Path) -> Sequence[str]:
    gpus = [f"--gpus={resources.gpus}"] if resources.gpus else []
    account = [] if resources.account is None else [f"--account={resources.account}"]
    return [
        "sbatch",
        "--parsable",
        f"--job-name=cdllm-{arm}-{seed}",
        f"--partition={resources.partition}",
        f"--time={resources.time}",
        f"--cpus-per-task={resources.cpus}",
        f"--mem-per-cpu={resources.memory_gb}G",
        f"--output={logs}/{arm}-seed{seed}.log",
        f"--signal=B:USR1@{_SECONDS_BEFORE_THE_END}",
        "--requeue",
        "--open-mode=append",
        *gpus,
        *account,
    ]
