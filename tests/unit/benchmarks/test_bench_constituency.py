"""The benchmark of the taggers runs and prints its ratios, and both ways to use spaCy find the same tags."""

import re

import pytest

from tests.unit.benchmarks.test_benchmarks import RATIO, printed


@pytest.mark.slow
def test_constituency() -> None:
    for library in ("spacy", "textblob"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    text = printed("bench_preprocess_constituency.py")
    assert re.search(r"find the same words with the same tags, of \d+ kinds", text)
    speed = r"[\d,]+ \[[\d,]+, [\d,]+\]"
    for variant in ("whole pipeline", "SpacyTagger", "english", "english warm", "lexicon", "lexicon warm"):
        assert re.search(rf"\| {variant} +\| {speed} +\| ({RATIO} +\|\s){{2}}", text), variant
