"""`cdllm sample --compile` writes the texts that it writes without, but for rounding."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cascaded_dllm import Cascade
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.compilation import compile_blocks
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.output import SampleRun
from tests.pipeline.commands import failure, success
from tests.processes import cdllm
from tests.processes import run as run_process

NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def texts_of(run: Path) -> list[Any]:
    lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["stages"] for line in lines]


def compiling(cache: str, arguments: list[str]) -> None:
    """In a process, since torch cannot look through the run-time type checks of the tests."""
    from torch._inductor import config as inductor

    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    inductor.cpp.simdlen = 1  # Scalar code, which takes half as long to compile.
    cdllm(*arguments)


@pytest.fixture
def arguments(runs: Path) -> list[str]:
    return ["sample", "--stage", f"{runs}/stage1", "--num-samples", "3", "--device", "cpu"]


@pytest.mark.slow
@NEEDS_COMPILER
def test_compiled_blocks_write_the_same(arguments: list[str], tmp_path: Path) -> None:
    """Four tokens each of a network of two steps, whose draws lie nowhere near a border."""
    success(*arguments, "--output-dir", tmp_path / "plain")
    cache = tmp_path / "cache"
    flags = ["--compile", "--output-dir", str(tmp_path / "compiled")]
    finished = run_process(compiling, str(cache), [*arguments, *flags])
    assert finished.returncode == 0, finished.stderr
    run = only(tmp_path / "compiled")
    assert texts_of(run) == texts_of(only(tmp_path / "plain"))
    assert list(cache.rglob("*.so")), "nothing was compiled"
    assert SampleRun.open(run).settings.texts.compile


def test_a_run_goes_on_as_it_was_begun(arguments: list[str], tmp_path: Path) -> None:
    success(*arguments, "--output-dir", tmp_path)
    run = only(tmp_path)
    message = failure("sample", "--resume", run, "--compile")
    assert message.startswith(f"--compile is True, and the run in {run} was begun with False")
    # Runs from before there was a choice were not compiled.
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    assert settings["texts"].pop("compile") is False
    (run / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert not SampleRun.open(run).settings.texts.compile


def test_without_a_compiler(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before there is a folder."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    message = failure(*arguments, "--compile", "--output-dir", tmp_path / "out")
    assert message.startswith("torch.compile needs a C++ compiler on cpu, and there is no c++, g++, clang++, cl on")
    monkeypatch.setenv("CXX", "nowhere/g++")
    assert "there is no nowhere/g++ on the path" in failure(*arguments, "--compile", "--output-dir", tmp_path / "out")
    assert not list(tmp_path.rglob("settings.json"))


def test_without_what_a_gpu_needs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ScoreModel.from_pretrained(runs / "stage1")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match="needs Triton on cuda:0; pip install triton, or do without"):
        compile_blocks(stage, torch.device("cuda:0"))


def test_blocks_are_compiled_where_it_is_asked_for(runs: Path) -> None:
    """Not before they are called, which is what takes long."""
    for wanted in (False, True):
        cascade = Cascade.from_pretrained([f"{runs}/stage1", f"{runs}/stage2"], compile=wanted)
        blocks = [block for stage in cascade.stages for block in stage.model.blocks]
        assert [block._compiled_call_impl is not None for block in blocks] == [wanted] * len(blocks)
