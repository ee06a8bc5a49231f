"""Scripts that measure what the documents report refuse at their beginning what their tables could not show."""

import os
import subprocess

import pytest

from tests.repo.source_tree import CHECKOUT


def wikitext2(tmp_path, steps):
    """How the script ends where the program itself fails."""
    return subprocess.run(
        ["bash", CHECKOUT / "scripts" / "reproduce" / "wikitext2.sh", tmp_path, tmp_path / "out"],
        env=os.environ | {"CDLLM": "false", "STEPS": str(steps)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("steps", [0, 8, 100, 408])
def test_an_eighth_of_the_steps_is_a_step(tmp_path, steps):
    found = wikitext2(tmp_path, steps)
    assert (found.returncode, found.stdout) == (2, "")
    assert f"STEPS is {steps}; it must be a multiple of 16" in found.stderr
    assert not (tmp_path / "out").exists()


def test_steps_that_have_eighths(tmp_path):
    assert "STEPS" not in wikitext2(tmp_path, 400).stderr
