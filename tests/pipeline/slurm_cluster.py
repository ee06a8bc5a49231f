"""A real Slurm on one node, from the programs that are installed, in a folder of its own; started and stopped here."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
PARTITION = "main"
MAX_ARRAY_SIZE = 2
"""An array may have no more tasks, and none with such a number."""
URGENT = "urgent"
"""A partition whose jobs take the machine from those of PARTITION, which get a minute to end."""

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
MaxArraySize={max_array_size}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName={urgent} Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why no Slurm can be started here, or None."""
    missing = [program for program in PROGRAMS if _program(program) is None]
    if missing:
        return f"Slurm needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "slurmd has to be started by root"


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster of this machine alone; yields the environment variables by which its commands find it."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(
            folder=folder,
            host=host,
            controller=_free_port(),
            node=_free_port(),
            partition=PARTITION,
            urgent=URGENT,
            max_array_size=MAX_ARRAY_SIZE,
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(conf)}
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        environment.pop(name, None)
    with contextlib.ExitStack() as stack:
        munge = [f"--{what}={folder}/munge.{what.partition('-')[0]}" for what in ("pid-file", "log-file", "seed-file")]
        munge += [f"--key-file={key}", f"--socket={folder}/munge.socket", "--force", "--foreground"]
        stack.enter_context(_running("munged", *munge, environment=environment, folder=folder))
        _wait((folder / "munge.socket").exists, folder)
        stack.enter_context(_running("slurmctld", "-D", environment=environment, folder=folder))
        stack.enter_context(_running("slurmd", "-D", "-N", host, environment=environment, folder=folder))
        _wait(lambda: "idle" in _output("sinfo", "-h", "-o", "%T", environment=environment), folder)
        yield environment


@contextlib.contextmanager
def _running(name: str, *arguments: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    program = _program(name)
    assert program is not None
    with (folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen([program, *arguments], env=environment, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _output(*command: str, environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout


def _wait(condition, folder: Path, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("*.[lo]*")))
            raise TimeoutError(f"Slurm did not start; {logs}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
