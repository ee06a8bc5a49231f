"""Preprocessed stories, made once: every test of the pipeline reads them and none writes into them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.pos import PosScorer
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.preprocess.in_process import preprocess_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.stories import Stories, story_tokenizer
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline import tiny
from tests.unit.evaluate.tiny_judge import save_judge


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return story_tokenizer()


@pytest.fixture(scope="session")
def make_stories(tokenizer: Tokenizer) -> Callable[..., Path]:
    """Preprocesses the first stories of a seed; returns the folder."""

    def make(
        out: Path, *, split: str, num: int, seed: int, tokenizer: Tokenizer = tokenizer, scorer: Scorer | None = None
    ) -> Path:
        return preprocess_corpus(
            Corpus("stories", Stories(num, seed)),
            split=split,
            out_dir=out,
            tokenizer=tokenizer,
            scorer=scorer or PosScorer(StoriesTagger()),
        )

    return make


@pytest.fixture(scope="session")
def stories(make_stories: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 stories."""
    return make_stories(tmp_path_factory.mktemp("stories"), split="train", num=200, seed=0)


@pytest.fixture(scope="session")
def valid_stories(make_stories: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 other ones."""
    return make_stories(tmp_path_factory.mktemp("stories"), split="valid", num=20, seed=1)


@pytest.fixture(scope="session")
def runs(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two steps: stage1 and stage2 of lengths 4, 8, 40."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in (1, 2):
        list(assemble_run(tiny.config(stories, folder / f"stage{stage}", f"stage={stage}")).events())
    return folder


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of random weights, with another tokenizer than the stories."""
    pytest.importorskip("transformers", reason="the extra eval is not installed")
    return save_judge(tmp_path_factory.mktemp("judge"))
