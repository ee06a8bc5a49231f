"""What is shown of a study that is on its way."""

from cascaded_dllm.cli import study_status
from cascaded_dllm.study.status import ArmStatus, PartStatus, StudyStatus


def test_states_of_several_texts_are_counted(capsys):
    """An arm of which one drawing is done and one at work; the time on two processes is that of the longest chain."""
    first = PartStatus("runs/a", "stage 1", "at work", (), 10, 100, 90.0)
    second = PartStatus("runs/b", "stage 2", "waiting", ("runs/a",), 0, 50, 30.0)
    other = PartStatus("runs/c", "the flat model", "at work", (), 50, 100, 20.0)
    bound = PartStatus("bounds/x/seed3", "the bound of x", "failed", reason="the disk")
    texts = (PartStatus("samples/1", "texts", "done"), PartStatus("samples/2", "texts", "at work"))
    parts = (first, second, other, bound, *texts)
    study_status._show(StudyStatus("done", parts, (ArmStatus("x", 3, (first, second, other), bound, texts),)))
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert shown.startswith("1 of 6 parts done, 3 at work, 1 waiting, 1 failed")
    assert "190 steps of training left, about 0:02:20 on one process and 0:02:00 on the 2 that train now;" in shown
    assert "1 done, 1 at work" in shown
    assert "bounds/x/seed3: failed: the disk; the same command tries it again" in shown
