"""Scripts that measure what the documents report refuse at their beginning what their tables could not show."""

import os
import subprocess

import pytest

from tests.repo.source_tree import CHECKOUT

SCRIPTS = CHECKOUT / "scripts" / "reproduce"
# Data and results.
FOLDERS = {"wikitext2.sh": ("data", "out"), "prose_small.sh": ("train", "valid", "out")}


def ended(script, tmp_path, steps):
    """How a script ends where the program itself fails."""
    return subprocess.run(
        ["bash", SCRIPTS / script, *(tmp_path / name for name in FOLDERS[script])],
        env=os.environ | {"CDLLM": "false", "STEPS": str(steps)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", FOLDERS)
@pytest.mark.parametrize("steps", [0, 8, 100, 408])
def test_an_eighth_of_the_steps_is_a_step(tmp_path, script, steps):
    found = ended(script, tmp_path, steps)
    assert (found.returncode, found.stdout) == (2, "")
    assert f"STEPS is {steps}; it must be a multiple of 16" in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", FOLDERS)
def test_steps_that_have_eighths(tmp_path, script):
    found = ended(script, tmp_path, 400)
    assert "STEPS" not in found.stderr
    assert found.returncode == 1, "the program fails, and so does the script"
