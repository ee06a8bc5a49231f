"""Several processes at one study: what their end means."""

from types import SimpleNamespace
from typing import Any

import pytest

from cascaded_dllm.cli import study_work
from cascaded_dllm.errors import StoppedError


class Watch:
    def __init__(self, *_: Any) -> None:
        self.num_looks = 0

    def look(self) -> None:
        self.num_looks += 1

    def look_and_ask(self) -> bool:
        return False


@pytest.mark.parametrize("ended", [[True, True], [True, False]])
def test_a_process_that_was_told_to_stop_stops_the_study(monkeypatch: pytest.MonkeyPatch, ended: list[bool]) -> None:
    monkeypatch.setattr(study_work, "launch", lambda *_, **__: ended)
    monkeypatch.setattr(study_work, "_Watch", Watch)
    work: Any = SimpleNamespace(parts=lambda _: [], study=None, arms=[], folder=None)
    choice: Any = SimpleNamespace(of=lambda *_: [], workers=2)
    request: Any = None
    if all(ended):
        study_work.work_in_processes(work, {}, choice, request)
        return
    with pytest.raises(StoppedError, match="told to stop; what is finished is kept, and the same command goes on"):
        study_work.work_in_processes(work, {}, choice, request)
