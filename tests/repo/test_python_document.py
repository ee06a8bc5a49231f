"""docs/python.md: its program runs, and its table has every public name."""

import ast
import re
import subprocess
import sys

import pytest

import cascaded_dllm
from cascaded_dllm.text.stories import StoryGrammar
from tests.repo.source_tree import CHECKOUT

DOCUMENT = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
SMALLER = {
    "first(8_000)": "first(120)",
    "first(1_000)": "first(60)",
    "num_steps=600": "num_steps=4",
    "eval_every=200": "eval_every=2",
    # The warm-up of the quickstart is longer, and its snapshots rarer, than so few steps.
    '"training.eval_every': '"optim.warmup=1", "training.snapshot_every=2", "training.eval_every',
}


@pytest.mark.parametrize("name", sorted({*cascaded_dllm.__all__} - {"__version__"}))
def test_public_name_is_told(name: str) -> None:
    assert re.search(rf"`(\w+\.)?{name}\b", DOCUMENT), name


@pytest.mark.slow
def test_program_runs_twice(tmp_path) -> None:
    """With fewer stories and steps; the second time it finds what is there."""
    [program] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    for of_the_document, here in SMALLER.items():
        assert of_the_document in program
        program = program.replace(of_the_document, here)
    told = [
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    for stage in (1, 2, 3):
        assert len(re.findall(rf"stage {stage}, step \d: [\d.]+ nats a token", told[0])) == 2
    bound, texts = told[0].splitlines()[-2:]
    assert float(re.fullmatch(r"([\d.]+) \+- [\d.]+ nats a story", bound)[1]) > StoryGrammar().entropy
    assert len(ast.literal_eval(texts)) == 4
    # Nothing is trained again.
    assert told[1].splitlines() == [bound, texts]
