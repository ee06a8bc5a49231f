import errno
import io
import warnings

import pytest
import typer
from rich.console import Console
from rich.progress import TextColumn

from cascaded_dllm.cli import console as console_module
from cascaded_dllm.cli.console import clock, heading, note, progress_bar, reported_errors, say, visible, warn, working
from cascaded_dllm.errors import ConfigError, DamagedCheckpointWarning, MissingExtraError


def fail(error, debug=False):
    with reported_errors(debug):
        raise error


def test_an_error_is_one_line(capsys):
    """Line ends and markup in the message are shown as they are, or made blanks; long lines are not cut."""
    with pytest.raises(typer.Exit) as raised:
        fail(ConfigError(f"steps is [red]0[/red];\n  it must be\tat least 1 {'x' * 300}"))
    assert raised.value.exit_code == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: steps is [red]0[/red]; it must be at least 1 {'x' * 300}\n"
    assert captured.out == ""


@pytest.mark.parametrize("show", [say, warn, note, heading])
def test_nothing_in_a_path_is_markup_or_emoji(capsys, show):
    path = "runs/[bold]a:x:b/[red]"
    show(path)
    captured = capsys.readouterr()
    assert path in captured.out + captured.err


def test_nothing_in_what_goes_on_is_markup(capsys):
    path = "runs/[bold]a:x:b/[red]"
    with working(path):
        pass
    assert capsys.readouterr().out == f"{path}\n"
    with progress_bar(path) as (progress, _):
        [task] = progress.tasks
        progress.update(task.id, status=path)
        texts = [str(column.render(task)) for column in progress.columns if isinstance(column, TextColumn)]
    assert texts == [path, path]


def test_missing_extra_is_one_line(capsys):
    with pytest.raises(typer.Exit):
        fail(MissingExtraError("spacy", extra="preprocess", purpose="the tagger"))
    message = "error: the tagger needs spacy, which is not installed; run: pip install 'cascaded-dllm[preprocess]'"
    assert capsys.readouterr().err == f"{message} (in a clone: pip install '.[preprocess]')\n"


def test_debug_keeps_the_error():
    with pytest.raises(ConfigError, match="steps is 0"):
        fail(ConfigError("steps is 0"), debug=True)


def test_a_file_that_one_has_no_right_to_is_one_line(capsys):
    error = PermissionError(13, "Permission denied", "data/[red]")
    with pytest.raises(typer.Exit) as raised:
        fail(error)
    assert raised.value.exit_code == 2
    told = "error: data/[red] cannot be read or written (Permission denied); give yourself the right to do so, or name "
    assert capsys.readouterr().err == f"{told}another file or folder\n"
    for other, debug in [(error, True), (PermissionError(1, "Operation not permitted"), False)]:
        with pytest.raises(PermissionError):
            fail(other, debug)


@pytest.mark.parametrize(("reason", "shown"), [("", ""), ("Unable to allocate 9 GiB", " (Unable to allocate 9 GiB)")])
def test_memory_that_has_run_out_is_one_line(capsys, reason, shown):
    with pytest.raises(typer.Exit) as raised:
        fail(MemoryError(reason))
    assert raised.value.exit_code == 2
    told = (
        f"error: memory has run out{shown}; give the command more of it, or less to do at once, such as fewer workers"
    )
    assert capsys.readouterr().err == f"{told}, smaller batches or shorter texts\n"
    with pytest.raises(MemoryError):
        fail(MemoryError(reason), True)


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")]
)
def test_a_limit_of_processes_is_one_line(capsys, error):
    with pytest.raises(typer.Exit) as raised:
        fail(error)
    assert raised.value.exit_code == 2
    told = f"error: the system gives no further process or thread ({error}); raise the limit of processes and threads"
    assert capsys.readouterr().err == f"{told} (ulimit -u, or that of the container), or use fewer workers\n"
    for other, debug in [(error, True), (RuntimeError("no process"), False), (BlockingIOError(11, "full"), False)]:
        with pytest.raises((RuntimeError, BlockingIOError)):
            fail(other, debug)


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EROFS])
def test_a_name_that_leads_nowhere_is_one_line(capsys, number):
    """Such as a text where a file is asked for."""
    error = OSError(number, "no such place", "some words " * 9)
    with pytest.raises(typer.Exit) as raised:
        fail(error)
    assert raised.value.exit_code == 2
    told = f"error: {'some words ' * 9}cannot be read or written (no such place); name another file or folder\n"
    assert capsys.readouterr().err == told
    for other, debug in [(error, True), (OSError(number, "no such place"), False), (OSError(5, "fault", "x"), False)]:
        with pytest.raises(OSError, match=r"no such place|fault"):
            fail(other, debug)


def test_a_name_that_is_not_utf8_is_one_line(capsys):
    def written(text, encoding, debug=False):
        with reported_errors(debug):
            text.encode(encoding)

    with pytest.raises(typer.Exit) as raised:
        written(f"{'x' * 99}/caf\udce9/run{'y' * 99}", "utf-8")
    assert raised.value.exit_code == 2
    told = (
        f"'{'x' * 36}/caf\\udce9/run{'y' * 36}' contains a byte that is not UTF-8; rename the file or folder, or give "
    )
    assert capsys.readouterr().err == f"error: {told}another text\n"
    for text, encoding, debug in (("caf\udce9", "utf-8", True), ("caf\xe9", "ascii", False)):
        with pytest.raises(UnicodeEncodeError):
            written(text, encoding, debug)


def test_what_is_visible():
    assert visible("a\tb\nc é 😀") == "a\tb\nc é 😀"
    assert visible("\x00\r\x1b\x7f\x9b") == "\u2400\u240d\u241b\u2421\ufffd"


@pytest.mark.parametrize("debug", [True, False])
def test_other_errors_are_faults_of_the_program(debug):
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError(), debug)


def test_interruption(capsys):
    with pytest.raises(typer.Exit) as raised:
        fail(KeyboardInterrupt())
    assert raised.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_warnings_are_those_of_python(capsys):
    """A line of the command is only what concerns its user."""

    def warn():
        with reported_errors(debug=False):
            warnings.warn("of a library", UserWarning, stacklevel=1)
            warnings.warn("step_7 is damaged", DamagedCheckpointWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="of a library") as warned:
        warn()
    assert [str(warning.message) for warning in warned] == ["of a library"]
    assert capsys.readouterr().err == "step_7 is damaged\n"


def test_clock():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3671.0, 3.6e5)] == ["0:00:00", "0:01:00", "1:01:11", "100:00:00"]


def test_progress_moves():
    with progress_bar("documents") as (progress, move):
        move(3, None)
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (3, None)
        move(4, 5)
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (4, 5)


def test_a_bar_without_a_total_tells_no_time_that_remains(monkeypatch):
    """It would grow with the time that has passed."""
    file = io.StringIO()
    monkeypatch.setattr("cascaded_dllm.cli.console.console", Console(file=file, force_terminal=True, width=80))
    with progress_bar("documents") as (progress, move):
        move(3, None)
        progress.refresh()
        assert "3/?" in file.getvalue()
        assert "left" not in file.getvalue()
        move(4, 5)
    assert "left" in file.getvalue()


def test_a_bar_on_a_terminal(monkeypatch):
    """It is drawn as soon as there is a task, so no column may need what comes later."""
    file = io.StringIO()
    monkeypatch.setattr("cascaded_dllm.cli.console.console", Console(file=file, force_terminal=True, width=150))
    with progress_bar("documents") as (progress, move):
        move(3, 8)
        progress.update(progress.task_ids[0], status="1.5 a second")
    assert "documents" in file.getvalue()
    assert "3/8" in file.getvalue()
    assert "1.5 a second" in file.getvalue()


def test_work_that_cannot_be_counted_is_announced(capsys):
    with working("building windows"):
        pass
    assert capsys.readouterr().out == "building windows\n"


def test_a_log_is_told_now_and_then(monkeypatch, capsys):
    """Where there is no terminal; on one the bar says it."""
    now = iter([0.0, 10.0, 40.0, 50.0, 90.0])
    monkeypatch.setattr(console_module.time, "monotonic", lambda: next(now))
    with progress_bar("windows", log=console_module.console) as (_, move):
        for done, total in ((1, 9), (4, 9), (5, 9), (6, None)):
            move(done, total)
    assert capsys.readouterr().out == "windows: 4 of 9\nwindows: 6\n"
