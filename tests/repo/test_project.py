"""The files around the code agree with each other: versions, extras, pins, targets."""

import os
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from tests.repo.source_tree import CHECKOUT

PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
MAKEFILE = (CHECKOUT / "Makefile").read_text()


def constraint_lines() -> list[str]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_extras_are_the_documented_ones() -> None:
    assert set(EXTRAS) == {"preprocess", "ray", "eval", "harness", "logging", "demo", "dev"}


def test_every_constraint_is_one_exact_version() -> None:
    assert [line for line in constraint_lines() if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []
    names = [line.split("==")[0] for line in constraint_lines()]
    assert len(names) == len(set(names))
    assert "torch==2.13.0" in constraint_lines()


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_requirement_is_pinned_at_or_above_its_lower_bound(extra: str) -> None:
    pins = dict(line.split("==") for line in constraint_lines())
    for requirement in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        name, lower_bound = requirement.split(">=")
        assert name in pins
        assert version_tuple(pins[name]) >= version_tuple(lower_bound), requirement


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_dev_brings_what_the_tests_of_preprocessing_need() -> None:
    assert set(EXTRAS["preprocess"]) <= set(EXTRAS["dev"])


@pytest.mark.parametrize("name", ["environment_keybert.yml", "environment_dllm.yml"])
def test_conda_environment_installs_existing_extras_under_the_constraints(name: str) -> None:
    environment = yaml.safe_load((CHECKOUT / name).read_text())
    [pip_lines] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip_lines[0] == "--constraint constraints.txt"
    match = re.fullmatch(r"\.\[([a-z,]+)\]", pip_lines[1])
    assert match
    assert set(match[1].split(",")) <= set(EXTRAS)


def test_version_is_the_same_everywhere() -> None:
    from cascaded_dllm import __version__

    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"] == "MIT"


def test_changelog_has_room_for_the_next_change() -> None:
    headings = re.findall(r"^## (.*)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_every_make_target_is_phony_and_explained() -> None:
    targets = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    assert {"quickstart", "test", "testall", "check", "bench", "clean"} <= set(targets)
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets)
    assert sorted(re.findall(r"^([a-z]+):.* ## \S", MAKEFILE, re.MULTILINE)) == sorted(targets)


def test_commit_check_is_executable_and_runs_both() -> None:
    path = CHECKOUT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert re.findall(r'^make "?([\w$]+)', path.read_text(), re.MULTILINE) == ["check", "$target"]
    assert "target=${1:-test}\n" in path.read_text()
    refused = subprocess.run([path, "nothing"], check=False, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "[test|testall], and nothing is neither" in refused.stderr
