import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cascaded_dllm import atomic
from cascaded_dllm.atomic import (
    ABANDONED_AFTER_SECONDS,
    complete_folder,
    file_sha256,
    remove_abandoned,
    require_creatable,
    require_writable_file,
    write_json,
)
from cascaded_dllm.errors import OutputError
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.pid_space import pid_space

HERE = f"{socket.gethostname()}-{pid_space()}"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_at_the_end(tmp_path):
    final = tmp_path / "a" / "final"
    with complete_folder(final) as temporary:
        (temporary / "file").write_text("content")
        assert not final.exists()
        assert temporary.parent == final.parent
    assert (final / "file").read_text() == "content"
    assert names(final.parent) == ["final"]


def test_exception_leaves_nothing(tmp_path):
    def fail():
        with complete_folder(tmp_path / "final") as temporary:
            (temporary / "file").write_text("content")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_first_to_finish_wins(tmp_path):
    final = tmp_path / "final"
    with complete_folder(final) as slow:
        (slow / "file").write_text("slow")
        with complete_folder(final) as fast:
            assert slow.is_dir()
            (fast / "file").write_text("fast")
    assert (final / "file").read_text() == "fast"
    assert names(tmp_path) == ["final"]


def test_loser_may_ask_to_be_told(tmp_path):
    final = tmp_path / "final"

    def race():
        with complete_folder(final, exclusive=True) as slow:
            (slow / "file").write_text("slow")
            with complete_folder(final, exclusive=True) as fast:
                (fast / "file").write_text("fast")

    with pytest.raises(OutputError, match="final was written by another process in the meantime, and stays; "):
        race()
    assert (final / "file").read_text() == "fast"
    assert names(tmp_path) == ["final"]


def test_loser_at_the_rename_itself_is_told(tmp_path, monkeypatch):
    final = tmp_path / "final"
    final.mkdir()
    (final / "file").write_text("fast")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(OutputError, match="another process"), complete_folder(final, exclusive=True) as slow:
        (slow / "file").write_text("slow")
    assert (final / "file").read_text() == "fast"


def test_empty_folder_is_replaced_unless_exclusive(tmp_path):
    (tmp_path / "final").mkdir()
    with pytest.raises(OutputError, match="another process"), complete_folder(tmp_path / "final", exclusive=True):
        pass
    with complete_folder(tmp_path / "final") as temporary:
        (temporary / "file").write_text("content")
    assert names(tmp_path / "final") == ["file"]


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_inside_the_block(tmp_path):
    with (
        pytest.raises(OutputError, match=r"final cannot be written \(No space left on device\); choose"),
        complete_folder(tmp_path / "final"),
    ):
        raise FULL
    assert names(tmp_path) == []


def test_full_disk_when_copying(tmp_path):
    with (
        pytest.raises(OutputError, match=r"final cannot be written \(No space left on device\)"),
        complete_folder(tmp_path / "final") as temporary,
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/a", None, str(temporary / "a"))


def test_file_in_the_block_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(OutputError, match=r"final cannot be written \(No such file or directory\)"),
        complete_folder(tmp_path / "final") as temporary,
    ):
        (temporary / "none" / "file").write_text("content")


@pytest.mark.parametrize("write", [lambda folder: write_json(folder / "a.json", {}), None])
def test_full_disk_when_flushing(tmp_path, monkeypatch, write):
    def refuse(descriptor):
        raise FULL

    def folder_with_a_file(folder):
        with complete_folder(folder / "final") as temporary:
            (temporary / "file").write_text("content")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); choose"):
        (write or folder_with_a_file)(tmp_path)
    assert names(tmp_path) == []


def test_files_in_folders_below_are_flushed_too(tmp_path, monkeypatch):
    flushed, sync = [], atomic._sync

    def note(path):
        flushed.append(path.name)
        sync(path)

    monkeypatch.setattr(atomic, "_sync", note)
    with complete_folder(tmp_path / "new") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "deep").write_text("x")
    assert {"below", "deep"} <= set(flushed)


def test_error_about_something_else_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError, match="corpus"), complete_folder(tmp_path / "final"):
        (tmp_path / "corpus.txt").read_text()
    with pytest.raises(BrokenPipeError), complete_folder(tmp_path / "final"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert names(tmp_path) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from cascaded_dllm.atomic import complete_folder
    with complete_folder(Path(sys.argv[1])) as temporary:
        (temporary / "file").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_no_folder_and_the_next_one_cleans_up(tmp_path):
    final = tmp_path / "final"
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(final)], check=False)
    assert result.returncode == -9
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".incomplete-final@")
    with complete_folder(tmp_path / "another"):
        pass
    assert names(tmp_path) == [leftover, "another"]
    with complete_folder(final):
        pass
    assert names(tmp_path) == ["another", "final"]


@pytest.mark.parametrize(
    ("host", "pid", "age", "stays"),
    [
        (HERE, os.getpid(), 0, True),
        (HERE, 1, 0, True),
        ("another-host", 2**22 + 1, 0, True),
        ("another-host", 2**22 + 1, ABANDONED_AFTER_SECONDS + 60, False),
        (HERE, 2**22 + 1, 0, False),
        (f"{socket.gethostname()}-0123abcd", 2**22 + 1, 0, True),
    ],
    # Fixed names: the processes of one run of the tests must agree on them.
    ids=["own", "another user's", "elsewhere, young", "elsewhere, old", "dead", "another container"],
)
def test_only_abandoned_folders_are_removed(tmp_path, host, pid, age, stays):
    leftover = tmp_path / f".incomplete-final@{host}-{pid}-0a1b2c3d"
    leftover.mkdir()
    (leftover / "file").write_text("half")
    for path in (leftover / "file", leftover):
        changed = path.stat().st_mtime - age
        os.utime(path, (changed, changed))
    with complete_folder(tmp_path / "final"):
        assert leftover.exists() == stays


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a zombie is told from a process by /proc")
def test_killed_writer_that_nobody_has_waited_for_is_dead(tmp_path):
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "final")]) as process:
        # The writer is a zombie until its parent asks how it ended, as in a container whose first process never does.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert len(names(tmp_path)) == 1
        with complete_folder(tmp_path / "final"):
            pass
        assert names(tmp_path) == ["final"]
    assert process.returncode == -9


def test_all_that_killed_writers_left_in_a_folder_is_removed(tmp_path):
    mine, gone = f"{HERE}-{os.getpid()}-0a1b2c3d", f"{HERE}-{2**22 + 1}-0a1b2c3d"
    for name in (f".incomplete-a-b@{gone}", f".incomplete-c@{mine}", ".incomplete-notes"):
        (tmp_path / name).mkdir()
    (tmp_path / f".incomplete-d.json@{gone}").write_text("{")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [f".incomplete-c@{mine}", ".incomplete-notes"]


def test_what_cannot_be_removed_is_in_nobodys_way(tmp_path, monkeypatch):
    """As what a process of another user has left in a folder that both may write to."""
    gone = f"{HERE}-{2**22 + 1}-0a1b2c3d"
    (tmp_path / f".incomplete-final@{gone}").mkdir()
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
    with complete_folder(tmp_path / "final"):
        pass
    assert names(tmp_path) == [f".incomplete-final@{gone}", "final"]


def test_whoever_writes_what_is_complete_has_lost(tmp_path):
    """Another machine does not tell whether its process lives."""
    for name in ("a", "b"):
        (tmp_path / f".incomplete-{name}@another-host-{2**22 + 1}-0a1b2c3d").mkdir()
    remove_abandoned(tmp_path, complete={"a"})
    assert names(tmp_path) == [f".incomplete-b@another-host-{2**22 + 1}-0a1b2c3d"]


def test_a_writer_whose_folder_was_removed_since_another_was_faster(tmp_path):
    def write():
        with complete_folder(tmp_path / "final") as temporary:
            (temporary / "file").write_text("late")
            with complete_folder(tmp_path / "final") as faster:
                (faster / "file").write_text("early")
            remove_abandoned(tmp_path, complete={"final"})
            file_sha256(temporary / "file")

    write()
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final" / "file").read_text() == "early"


def test_a_writer_that_was_taken_for_dead_puts_nothing_half_in_the_place(tmp_path):
    """What it writes last makes a folder of the same name once more, with that alone in it."""
    with complete_folder(tmp_path / "final", is_locked=True) as first:
        (first / "data").write_text("of the first")
        with complete_folder(tmp_path / "final", is_locked=True) as second:
            (second / "data").write_text("of the second")
        write_json(first / "manifest.json", {})
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final" / "data").read_text() == "of the second"


def test_a_writer_that_was_taken_for_dead_and_is_first(tmp_path):
    def write():
        with complete_folder(tmp_path / "final") as first:
            shutil.rmtree(first)
            write_json(first / "manifest.json", {})

    with pytest.raises(OutputError, match=r"final cannot be written \(No such file or directory\)"):
        write()
    assert names(tmp_path) == []


def test_pipe_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(tmp_path / "pipe", {"a": 1})
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    finally:
        os.close(reader)
    assert names(tmp_path) == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_names_of_others_are_left_alone(tmp_path):
    (tmp_path / ".incomplete-final-notes").mkdir()
    with complete_folder(tmp_path / "final"):
        pass
    assert names(tmp_path) == [".incomplete-final-notes", "final"]


def test_process_of_another_user_is_alive(monkeypatch):
    def refuse(pid, signal):
        raise PermissionError

    monkeypatch.setattr(atomic.os, "kill", refuse)
    assert atomic._is_alive(1)


def test_leftover_that_vanishes_is_no_concern(tmp_path):
    assert not atomic._is_abandoned(tmp_path / "gone", "another-host", 1)


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"final cannot be written \(.*\); choose an output folder"),
        complete_folder(tmp_path / "file" / "final"),
    ):
        pass


def test_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "final").write_text("mine")
    with pytest.raises(OutputError, match="final cannot be written"), complete_folder(tmp_path / "final"):
        pass
    assert (tmp_path / "final").read_text() == "mine"
    assert names(tmp_path) == ["final"]


def test_json_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1, "text": "\u00e9"})
    write_json(path, {"a": 2, "text": "\u00e9"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 2, "text": "\u00e9"}
    assert names(tmp_path) == ["a.json"]


def test_json_that_cannot_be_serialised_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_json_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EAGAIN, r"\(Resource temporarily unavailable\); raise the limit of processes and threads \(ulimit -u"),
        (errno.EMFILE, r"\(Too many open files\); raise the limit of open files \(ulimit -n\), or use fewer processes"),
        (errno.EFBIG, r"\(File too large\); raise the limit of the size of files \(ulimit -f\), or name a folder on"),
        (errno.ENAMETOOLONG, r"\(File name too long\); choose a shorter name; while it is written, it is longer by"),
        (errno.ENOSPC, r"\(No space left on device\); choose an output folder that you may write to and that has room"),
    ],
)
def test_limits_of_a_process_are_no_lack_of_room(tmp_path, monkeypatch, number, remedy):
    def limited(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "_sync", limited)
    with pytest.raises(OutputError, match=rf"a.json cannot be written {remedy}"):
        write_json(tmp_path / "a.json", {})
    otherwise = "choose an output folder that you may write to and that has room"
    with pytest.raises(OutputError, match=f"it failed {remedy}"), write_errors("it failed", otherwise):
        limited(None)


def test_what_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    require_creatable(tmp_path / "new" / "folder", "it fails", "name another")
    require_creatable(tmp_path, "it fails", "name another")
    for name, reason in (("file/folder", "Not a directory"), ("link", "No such file"), ("link/folder", "No such file")):
        with pytest.raises(OutputError, match=rf"^it fails \({reason}.*\); name another$"):
            require_creatable(tmp_path / name, "it fails", "name another")
    assert names(tmp_path) == ["file", "link"]


def test_file_that_can_be_written(tmp_path):
    """Known before it is written, whether it is new or old, with nothing left behind; a pipe is not opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "old.json").write_text("old")
    for name in ("new.json", "old.json", "pipe"):
        require_writable_file(tmp_path / name)
    long = f"{'n' * 240}.json"
    with pytest.raises(OutputError, match=rf"{long} cannot be written \(File name too long\); choose a shorter name"):
        require_writable_file(tmp_path / long)
    assert (tmp_path / "old.json").read_text() == "old"
    assert names(tmp_path) == ["old.json", "pipe"]


def test_folder_of_a_file_is_created(tmp_path):
    write_json(tmp_path / "new" / "folder" / "a.json", {})
    assert names(tmp_path / "new" / "folder") == ["a.json"]


def test_hash_of_a_file_larger_than_one_read(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
