"""Several processes at one study: what their end means."""

from types import SimpleNamespace
from typing import Any

import pytest

from cascaded_dllm.cli import study_work
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.errors import StoppedError


@pytest.mark.parametrize(("warmup", "is_warned"), [(20, False), (21, True), (2500, True)])
def test_a_warm_up_that_is_longer_than_the_budget(
    capsys: pytest.CaptureFixture[str], warmup: int, is_warned: bool
) -> None:
    """The run with the fewest steps is named; its number is that of the budget, which the user does not give."""
    runs = [
        SimpleNamespace(
            key=str(steps),
            name=f"stage1-{steps}",
            config=compose_config([f"training.num_steps={steps}", f"optim.warmup={warmup}", "data.path=D"]),
        )
        for steps in (40, 21, 3000)
    ]
    work: Any = SimpleNamespace(parts=lambda _: [], study=None, arms=[], folder=SimpleNamespace(out="out"))
    choice: Any = SimpleNamespace(of=lambda *_: [SimpleNamespace(runs=runs)])
    study_work.say_size(work, choice)
    said = capsys.readouterr()
    assert "3 trainings of 3,061 steps in all" in said.out
    assert said.err.startswith(f"warning: stage1-21: optim.warmup is {warmup} and training.num_steps 21:") == is_warned
    assert (said.err != "") == is_warned


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
