import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from cascaded_dllm.processes import process_pool, usable_cores, worker_index, workers_from

THREADS = "OMP_NUM_THREADS"


def gone(pid, seconds=20.0):
    """Whether a process has ended, or does so in a while."""
    for _ in range(int(seconds / 0.05)):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


def test_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.slow
def test_processes_are_others_and_use_one_thread_each(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    with process_pool(2) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert pool.submit(os.getenv, THREADS).result() == "1"
    assert THREADS not in os.environ
    monkeypatch.setenv(THREADS, "3")
    with process_pool(2) as pool:
        assert pool.submit(os.getenv, THREADS).result() == "3"


@pytest.mark.slow
def test_only_process_keeps_its_threads(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    with process_pool(1) as pool:
        assert pool.submit(os.getenv, THREADS).result() is None


def together(folder):
    """In a process: its number, once two have begun, so that no process does the work of both."""
    (folder / str(os.getpid())).touch()
    while len([path for path in folder.iterdir() if path.is_file()]) < 2:
        time.sleep(0.01)
    return worker_index()


def numbers(folder):
    """In a process: its own number, and those of two processes that it starts."""
    number = together(folder)
    inner = folder / f"of_{number}"
    inner.mkdir()
    with workers_from(3 * number), process_pool(2) as pool:
        return number, sorted(pool.map(together, [inner, inner]))


@pytest.mark.slow
def test_every_process_has_a_number_of_its_own(tmp_path):
    for _ in range(2):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        with process_pool(2) as pool:
            assert sorted(pool.map(numbers, [folder, folder])) == [(0, [0, 1]), (1, [3, 4])]
        assert worker_index() == 0


@pytest.mark.slow
def test_killed_process_is_noticed():
    with process_pool(1) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


@pytest.mark.slow
def test_a_terminal_ends_none_of_them(tmp_path):
    """Closed, or with Ctrl-C, it tells all processes; the one that has started them may go on, to end in order."""
    told = tmp_path / "told.py"
    told.write_text(TOLD_BY_A_TERMINAL)
    done = subprocess.run([sys.executable, str(told)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\ngoes on\n", "")


TOLD_BY_A_TERMINAL = """
import os, signal, time
from multiprocessing import resource_tracker
from cascaded_dllm.processes import process_pool

signal.signal(signal.SIGHUP, lambda *_: print("told", flush=True))
# The tests may run where it is ignored, which processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
with process_pool(1) as pool:
    worker = pool.submit(os.getpid).result()
    for process in (worker, resource_tracker._resource_tracker._pid, os.getpid()):
        os.kill(process, signal.SIGHUP)
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    print(pool.submit(str, "goes on").result(), flush=True)
"""


FIRST_LOCK = """
import multiprocessing, signal
from cascaded_dllm.processes import deaf_to_terminal

with deaf_to_terminal():
    multiprocessing.get_context("spawn").Lock()
    print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())) == [signal.SIGHUP, signal.SIGINT])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_a_terminal_stays_unheard_where_multiprocessing_begins_its_own_process():
    """The first lock of a program begins it, which lets SIGINT through again in the thread that asked for the lock."""
    done = subprocess.run([sys.executable, "-c", FIRST_LOCK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nset()\n", "")


@pytest.mark.slow
def test_exception_ends_what_runs():
    pids = []

    def fail():
        with process_pool(1) as pool:
            pids.append(pool.submit(os.getpid).result())
            pool.submit(time.sleep, 600)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert gone(pids[0])


@pytest.mark.slow
def test_errors_go_to_the_log(tmp_path):
    log = tmp_path / "errors.log"
    with process_pool(1, error_log=log) as pool:
        pool.submit(os.write, 2, b"out of order\n").result()
    assert log.read_text() == "out of order\n"


PROGRAM = """
import os, time
print("imported", flush=True)
if {is_guarded} or __name__ == "__main__":
    from cascaded_dllm.processes import process_pool
    with process_pool(1) as pool:
        print("worker", pool.submit(os.getpid).result(), flush=True)
        {then}
"""


def program(path, *, is_guarded=False, then="pass"):
    path.write_text(PROGRAM.format(is_guarded=is_guarded, then=then))
    return [sys.executable, str(path)]


@pytest.mark.slow
def test_main_module_is_not_imported(tmp_path):
    done = subprocess.run(program(tmp_path / "program.py"), check=True, capture_output=True, text=True)
    assert done.stdout.count("imported") == 1


@pytest.mark.slow
def test_main_module_that_guards_nothing_does_no_harm(tmp_path):
    """It would start a process on being imported, by which it is imported, and so on."""
    command = program(tmp_path / "program.py", is_guarded=True)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.count("worker") == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_process_ends_when_its_parent_is_killed(tmp_path):
    command = program(tmp_path / "program.py", then="time.sleep(600)")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = next(int(line.split()[1]) for line in parent.stdout if line.startswith("worker"))
        parent.kill()
    assert gone(worker)
