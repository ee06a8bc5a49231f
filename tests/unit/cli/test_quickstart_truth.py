"""What the quickstart shows of its texts."""

import pytest

from cascaded_dllm.cli.quickstart_truth import accepted_share


def test_why_texts_are_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown, not sent to the terminal."""
    figures = accepted_share(["a fox\x19\x1b[2J", "a fox"])
    assert figures == {"accepted_share": 0.0, "num_samples": 2, "distinct_texts": 2}
    shown = capsys.readouterr().out
    assert "rejected: a fox\N{SYMBOL FOR END OF MEDIUM}\N{SYMBOL FOR ESCAPE}[2J\n" in shown
    assert "\x19" not in shown
    assert "\x1b" not in shown
