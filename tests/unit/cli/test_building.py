import io
from contextlib import contextmanager

import pytest
from rich.console import Console

from cascaded_dllm.cli import building as module
from cascaded_dllm.cli import console as console_module
from cascaded_dllm.cli.building import shown_building


@pytest.fixture
def shown(monkeypatch):
    """What is printed, on a terminal or not."""

    def on(*, is_terminal):
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=120, markup=False, highlight=False)
        monkeypatch.setattr(console_module, "console", console)
        monkeypatch.setattr(module, "console", console)
        return console.file

    return on


def test_log_has_a_line_now_and_then(shown, monkeypatch):
    file = shown(is_terminal=False)
    seconds = iter([0.0, 1.0, 29.0, 31.0, 60.0])
    monkeypatch.setattr(console_module.time, "monotonic", lambda: next(seconds))
    with shown_building("building") as building:
        building.on_wait("process 7 on [node]")
        for done in (1000, 2000, 3000):
            building.on_progress(done, 4000)
    lines = ["building: waiting for process 7 on [node], which builds the same", "building"]
    assert file.getvalue().splitlines() == [*lines, "building: 2,000 of 4,000 documents"]


@pytest.mark.parametrize("as_json", [True, False])
def test_log_of_work_that_may_be_nothing(shown, monkeypatch, as_json):
    """Nothing where nothing is built; and what a program reads stays free of it in any case."""
    file, errors = shown(is_terminal=False), Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(module, "error_console", errors)
    with shown_building("building", as_json=as_json) as building:
        assert file.getvalue() == ""
        building.on_wait("process 7 on node")
        waits = "building: waiting for process 7 on node, which builds the same\n"
        assert [errors.file.getvalue(), file.getvalue()] == ([waits, ""] if as_json else ["", waits])
        building.on_progress(1, 2)
    assert [errors.file.getvalue(), file.getvalue()] == ([waits, ""] if as_json else ["", f"{waits}building\n"])


def test_terminal_has_a_bar_once_something_is_built(shown):
    file = shown(is_terminal=True)
    with shown_building("building") as building:
        building.on_wait("process 7 on node")
        assert "0/?" not in file.getvalue()
        building.on_progress(1000, 4000)
        building.on_progress(4000, 4000)
    assert "waiting for process 7 on node" in file.getvalue()
    assert "4000/4000" in file.getvalue()


def test_one_thing_moves_at_a_time(shown, monkeypatch):
    """Older releases of rich refuse a second one, newer ones draw both."""
    shown(is_terminal=True)
    seen = []

    def recorded(name, context):
        @contextmanager
        def inside(*arguments):
            seen.append(f"{name} begins")
            try:
                with context(*arguments) as value:
                    yield value
            finally:
                seen.append(f"{name} ends")

        return inside

    for name in ("working", "progress_bar"):
        monkeypatch.setattr(module, name, recorded(name, getattr(module, name)))
    with pytest.raises(KeyError), shown_building("building") as building:  # noqa: PT012
        building.on_progress(1, 2)
        building.on_progress(2, 2)
        raise KeyError("inside")
    assert seen == ["working begins", "working ends", "progress_bar begins", "progress_bar ends"]
