"""One process a run folder, and none that is dead."""

import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cascaded_dllm import lock_owner
from cascaded_dllm import run_lock as lock_module
from cascaded_dllm.errors import OutputError, StoppedError
from cascaded_dllm.lock_owner import Owner
from cascaded_dllm.pid_space import pid_space
from cascaded_dllm.run_lock import LOCK_FILE, run_lock, until_told, waited_lock

HOLD = """
import sys, time
from pathlib import Path
from cascaded_dllm import run_lock as module
from cascaded_dllm.run_lock import run_lock
module.SECONDS_BETWEEN_SIGNS = 0.05
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    """Another process of this machine that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_lock(folder: Path, **changes):
    owner = {"host": "another-machine", "pid": 1, "started": "7", "token": "ab"} | changes
    (folder / LOCK_FILE).write_text(json.dumps(owner))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_inside_the_block_only(tmp_path):
    with run_lock(tmp_path):
        owner = json.loads((tmp_path / LOCK_FILE).read_text())
        assert (owner["host"], owner["pid"], owner["space"]) == (socket.gethostname(), os.getpid(), pid_space())
    assert names(tmp_path) == []
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError("inside")
    assert names(tmp_path) == []


def test_second_run_of_the_same_process(tmp_path):
    message = rf"belongs to a run that is going on: process {os.getpid()} on .*; wait for it or stop it, or give this"
    with run_lock(tmp_path):
        with pytest.raises(OutputError, match=message), run_lock(tmp_path):
            pass
        assert names(tmp_path) == [LOCK_FILE]


def test_another_process(tmp_path, other_process):
    expected = rf"is going on: process {other_process.pid} on .*--out \(run_dir\).* process is gone, remove .*run\.lock"
    for _ in range(2):
        with pytest.raises(OutputError, match=expected), run_lock(tmp_path):
            pass
    assert names(tmp_path) == [LOCK_FILE]


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_owner_that_was_killed(tmp_path, other_process, is_waited_for):
    """Also while its parent has not asked how it ended, when it still has its number."""
    other_process.send_signal(signal.SIGKILL)
    if is_waited_for:
        other_process.wait()
    else:
        while "Z" not in Path(f"/proc/{other_process.pid}/stat").read_text().rpartition(")")[2]:
            time.sleep(0.01)
    assert names(tmp_path) == [LOCK_FILE]
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


def test_number_that_was_given_out_again(tmp_path):
    """The owner had the number of this process, in another life."""
    write_lock(tmp_path, space=pid_space(), pid=os.getpid(), started="1")
    with run_lock(tmp_path):
        pass
    assert names(tmp_path) == []


def test_another_container_with_the_same_host_name(tmp_path, monkeypatch):
    """It numbers its processes by itself: that there is none of that number here, or another one, says nothing."""
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    for space in ({"space": "0123abcd"}, {}):
        write_lock(tmp_path, host=socket.gethostname(), **space)
        age(tmp_path, 5)
        sign = threading.Timer(0.2, os.utime, (tmp_path / LOCK_FILE,))
        sign.start()
        with pytest.raises(OutputError, match=r"process 1 on .*; wait for it or stop it"), run_lock(tmp_path):
            pass
        sign.join()
    age(tmp_path, 3600)
    with run_lock(tmp_path):
        pass


@pytest.fixture
def contained_process(tmp_path):
    """One in a namespace of processes of its own that has the folder."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", HOLD, str(tmp_path)]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare on this system")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stdout.readline()
    try:
        if said != "held\n":
            refused = process.stderr.read()
            assert "unshare" in refused, refused
            pytest.skip(f"a namespace of processes cannot be made ({refused.strip()})")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_process_in_a_container(tmp_path, contained_process, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == 1
    with pytest.raises(OutputError, match="is going on: process 1 on "), run_lock(tmp_path):
        pass
    assert names(tmp_path) == [LOCK_FILE]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}'])
def test_lock_of_nobody(tmp_path, content):
    (tmp_path / LOCK_FILE).write_text(content)
    with run_lock(tmp_path):
        pass
    assert names(tmp_path) == []


def age(folder, seconds):
    past = time.time() - seconds
    os.utime(folder / LOCK_FILE, (past, past))


def test_silent_owner_on_another_machine(tmp_path, monkeypatch):
    """After an hour at once; after most of a minute when the minute has passed."""
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    age(tmp_path, 3600)
    with run_lock(tmp_path):
        pass
    write_lock(tmp_path)
    age(tmp_path, lock_owner.SECONDS_OF_SILENCE - 0.3)
    started = time.monotonic()
    with run_lock(tmp_path):
        assert time.monotonic() - started > 0.2
    assert names(tmp_path) == []


def test_silent_owner_whose_last_sign_lies_ahead(tmp_path, monkeypatch):
    """The clock was set back by an hour since: it is not watched for that hour."""
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(lock_owner, "SECONDS_OF_SILENCE", 0.2)
    write_lock(tmp_path)
    age(tmp_path, -3600)
    looks = itertools.count()

    def at_most_a_thousand_looks():
        assert next(looks) < 1000

    with run_lock(tmp_path, go_on=at_most_a_thousand_looks):
        assert next(looks) > 0
    assert names(tmp_path) == []


def test_owner_on_another_machine_that_gives_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    age(tmp_path, 5)
    sign = threading.Timer(0.2, os.utime, (tmp_path / LOCK_FILE,))
    sign.start()
    with (
        pytest.raises(OutputError, match="process 1 on another-machine; wait for it or stop it"),
        run_lock(tmp_path),
    ):
        pass
    sign.join()
    assert names(tmp_path) == [LOCK_FILE]


def test_owner_that_leaves_while_it_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    leave = threading.Timer(0.2, (tmp_path / LOCK_FILE).unlink)
    leave.start()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    leave.join()


def test_a_living_owner_gives_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "SECONDS_BETWEEN_SIGNS", 0.02)
    with run_lock(tmp_path):
        age(tmp_path, 3600)
        before = (tmp_path / LOCK_FILE).stat().st_mtime
        for _ in range(500):
            if (tmp_path / LOCK_FILE).stat().st_mtime > before + 60:
                return
            time.sleep(0.01)
        pytest.fail("no sign in five seconds")


def test_a_lock_that_was_taken_over_is_left_to_its_owner(tmp_path):
    """Somebody removed the lock by hand, and another run began."""
    with run_lock(tmp_path):
        write_lock(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["host"] == "another-machine"


def test_of_many_that_start_together_one_begins(tmp_path):
    """All find the lock of a dead process."""
    write_lock(tmp_path, space=pid_space(), pid=2**22 + 1)
    barrier, holds, refused = threading.Barrier(8), [], []
    release = threading.Event()

    def start():
        barrier.wait()
        try:
            with run_lock(tmp_path):
                holds.append(1)
                release.wait(20)
        except OutputError as error:
            refused.append(str(error))
        if len(refused) == 7:
            release.set()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(holds), len(refused)) == (1, 7)
    assert names(tmp_path) == []


def test_process_that_was_killed_while_it_removed_a_dead_lock(tmp_path):
    write_lock(tmp_path, space=pid_space(), pid=2**22 + 1, token="first")
    (tmp_path / LOCK_FILE).rename(tmp_path / "kept")
    write_lock(tmp_path, space=pid_space(), pid=2**22 + 2, token="second")
    (tmp_path / LOCK_FILE).rename(tmp_path / f".incomplete-{LOCK_FILE}-of-first")
    (tmp_path / "kept").rename(tmp_path / LOCK_FILE)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


def test_folder_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(OutputError, match=r"nowhere/run\.lock cannot be written \(No such file .*; name a run"),
        run_lock(tmp_path / "nowhere"),
    ):
        pass


def test_start_of_a_process_without_proc(monkeypatch):
    """As on macOS, where `ps` tells it."""
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != "/proc/self/stat" and real(path))
    own = lock_owner._start_of(os.getpid())
    assert own
    assert own == lock_owner._start_of(os.getpid())
    assert lock_owner._start_of(2**22 + 1) is None


def test_owners_differ_in_their_token():
    assert Owner("a", 1, "2", "x") != Owner("a", 1, "2", "y")


def test_a_work_that_is_done_needs_no_lock(tmp_path):
    with waited_lock(tmp_path / "new" / "work.lock", is_done=lambda: True) as is_mine:
        assert not is_mine
    assert names(tmp_path) == []


def test_a_lock_to_wait_for_is_given_back(tmp_path):
    path = tmp_path / "new" / "work.lock"
    with waited_lock(path, is_done=lambda: False) as is_mine:
        assert is_mine
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert names(tmp_path / "new") == []
    with pytest.raises(KeyError), waited_lock(path, is_done=lambda: False):
        raise KeyError("inside")
    assert names(tmp_path / "new") == []


def test_of_many_that_come_for_one_work_one_does_it(tmp_path, monkeypatch):
    """All find the lock of a dead process; the others go on when the work is done, and say once for whom they wait."""
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path, space=pid_space(), pid=2**22 + 1)
    barrier, all_wait, worked, told = threading.Barrier(8), threading.Event(), [], []

    def on_wait(owner):
        told.append(owner)
        if len(told) == 7:
            all_wait.set()

    def work():
        barrier.wait()
        with waited_lock(tmp_path / LOCK_FILE, is_done=lambda: bool(worked), on_wait=on_wait) as is_mine:
            if is_mine:
                assert all_wait.wait(20)
                worked.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worked == [1]
    assert told == [f"process {os.getpid()} on {socket.gethostname()}"] * 7
    assert names(tmp_path) == []


def test_the_next_one_takes_the_place_of_one_that_is_killed(tmp_path, other_process, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    told = []

    def on_wait(owner):
        told.append(owner)
        other_process.kill()

    with waited_lock(tmp_path / LOCK_FILE, is_done=lambda: False, on_wait=on_wait) as is_mine:
        assert is_mine
    assert told == [f"process {other_process.pid} on {socket.gethostname()}"]
    assert names(tmp_path) == []


def test_one_on_another_machine_is_waited_for_until_it_is_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    age(tmp_path, 5)
    sign = threading.Timer(0.2, os.utime, (tmp_path / LOCK_FILE,))
    sign.start()
    told = []

    def on_wait(owner):
        told.append(owner)
        age(tmp_path, 3600)

    with waited_lock(tmp_path / LOCK_FILE, is_done=lambda: False, on_wait=on_wait) as is_mine:
        assert is_mine
    sign.join()
    assert told == ["process 1 on another-machine"]


def test_a_work_that_was_done_when_the_lock_came_free(tmp_path):
    """It was done after this process had looked, and before it had the lock."""
    looks = iter([False, True])
    with waited_lock(tmp_path / LOCK_FILE, is_done=lambda: next(looks)) as is_mine:
        assert not is_mine
    assert names(tmp_path) == []


def test_a_lock_to_wait_for_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"work\.lock cannot be written \(.*; name a folder that you may write to and"),
        waited_lock(tmp_path / "file" / "work.lock", is_done=lambda: False),
    ):
        pass


def test_a_link_of_which_a_network_file_system_says_that_it_was_there(tmp_path, monkeypatch):
    """The answer of its server was lost, and the second one is that the file exists."""
    real = os.link

    def link(source, target):
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(source))

    monkeypatch.setattr(os, "link", link)
    with run_lock(tmp_path):
        assert names(tmp_path) == [LOCK_FILE]
    assert names(tmp_path) == []


def test_a_lock_that_is_removed_on_another_machine_while_it_is_read(tmp_path, monkeypatch):
    real, faults = Path.read_text, [errno.ESTALE]
    (tmp_path / LOCK_FILE).write_text("{}")

    def read_text(path, **options):
        if path.name == LOCK_FILE and faults:
            raise OSError(faults.pop(), "the server says")
        return real(path, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with run_lock(tmp_path):
        assert faults == []
    (tmp_path / LOCK_FILE).write_text("{}")
    faults.append(errno.EIO)
    with pytest.raises(OutputError, match="the server says"), run_lock(tmp_path):
        pass


def test_a_lock_that_is_given_back_and_taken_at_once_is_not_removed(tmp_path, monkeypatch):
    """Who finds it gone tries again, and does not remove the one that the next owner has written since."""
    path, create, look, looks = tmp_path / LOCK_FILE, lock_module._create, lock_module.owner_of, []
    started = lock_owner._start_of(os.getpid()) or ""
    first, second = (Owner(socket.gethostname(), os.getpid(), started, token, pid_space()) for token in "ab")

    def looked(place):
        if place != path or len(looks) == 2:
            return look(place)
        looks.append("gone")
        if len(looks) == 2:
            create(path, second)
        return None

    monkeypatch.setattr(lock_module, "owner_of", looked)
    monkeypatch.setattr(lock_module, "_create", lambda place, own: place != path and create(place, own))
    assert lock_module._take(path, first, lambda: None) == second
    assert json.loads(path.read_text())["token"] == "b"


class StopWaitingError(Exception):
    pass


def stop_waiting_at(look, error=StopWaitingError):
    """Ends the waiting at the `look`-th look."""
    looks = iter(range(1, look + 1))

    def go_on():
        if next(looks) == look:
            raise error

    return go_on


def test_who_waits_for_a_work_can_stop_at_every_look(tmp_path, other_process, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    for look in (1, 3):
        waiting = waited_lock(tmp_path / LOCK_FILE, is_done=lambda: False, go_on=stop_waiting_at(look))
        with pytest.raises(StopWaitingError), waiting:
            pass
    assert other_process.poll() is None
    assert names(tmp_path) == [LOCK_FILE]


@pytest.mark.parametrize(
    "lock",
    [
        lambda folder, go_on: run_lock(folder, go_on=go_on),
        lambda folder, go_on: waited_lock(folder / LOCK_FILE, is_done=lambda: False, go_on=go_on),
    ],
)
def test_who_waits_for_the_silence_of_another_machine_can_stop(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    age(tmp_path, 5)
    with pytest.raises(StopWaitingError), lock(tmp_path, stop_waiting_at(3)):
        pass
    # What goes wrong there is nothing that is wrong with the lock.
    for error in (BrokenPipeError(errno.EPIPE, "nobody reads"), FileNotFoundError(errno.ENOENT, "a log is gone")):
        with pytest.raises(type(error)) as caught, lock(tmp_path, stop_waiting_at(2, error)):
            pass
        assert caught.value is error
    assert names(tmp_path) == [LOCK_FILE]


def test_a_wish_to_stop_ends_the_watching(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_owner, "_POLL_SECONDS", 0.01)
    write_lock(tmp_path)
    age(tmp_path, 5)
    answers = iter([False, True])
    stopped = pytest.raises(
        StoppedError, match=rf"told to stop while .* the owner of {tmp_path}, a process on another machine, is alive"
    )
    with stopped, run_lock(tmp_path, go_on=until_told(lambda: next(answers), tmp_path)):
        pass
    assert list(answers) == []
    assert names(tmp_path) == [LOCK_FILE]
