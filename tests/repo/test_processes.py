"""The processes of `tests.processes` are what the tests take them for."""

import os
import signal
import sys

from tests.preloaded import NAMES
from tests.processes import cdllm, run, started


def describe() -> None:
    """In a process: what it holds, before anything is done."""
    print(set(NAMES) <= set(sys.modules), len(os.listdir("/proc/self/task")), os.getcwd(), dict(os.environ))
    print("to stderr", file=sys.stderr)
    sys.exit(7)


def stop() -> None:
    """In a process: wait to be killed."""
    signal.pause()


def test_has_imported_everything_and_runs_one_thread(tmp_path):
    done = run(describe, folder=tmp_path, environment={"ONLY": "this"})
    assert (done.returncode, done.stderr) == (7, "to stderr\n")
    assert done.stdout == f"True 1 {tmp_path} {{'ONLY': 'this'}}\n"


def test_is_killed_like_any_other():
    with started(stop) as process:
        assert process.poll() is None
        process.send(signal.SIGKILL)
        assert process.wait().returncode == -signal.SIGKILL


def test_leads_a_session_where_it_is_asked_to():
    with started(stop, leads_session=True) as process:
        while os.getsid(process.pid) != process.pid:
            assert process.poll() is None


def test_command_ends_as_a_program_does():
    done = run(cdllm, "train", "--cfg", "all")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --cfg is 'all'")
