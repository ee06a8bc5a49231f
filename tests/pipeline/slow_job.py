"""A job whose documents come slowly, so that there is time to kill it."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm import processes
from cascaded_dllm.assemble.preprocess import ShardTask
from cascaded_dllm.assemble.scorers import MakeEncoder, encoder_identity, make_scorer
from cascaded_dllm.preprocess.executors import Tasks, run_local
from cascaded_dllm.preprocess.job import ScorerChoice
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer

NUM_SHARDS = 16


@dataclass(frozen=True)
class SlowStories:
    """1,000 documents, each after a while."""

    seconds: float

    def records(self, part: Any) -> Iterator[Document]:
        words = ["fox", "key", "mill", "rain", "stone", "hare"]
        for number in part.of(range(1000)):
            time.sleep(self.seconds)
            yield Document(str(number), " ".join(words[(number * k) % 6] for k in range(1, 2 + number % 40)))

    def source(self) -> dict[str, object]:
        return {"kind": "slow"}


def run(out: Path, tokenizer: Path, frequencies: Path, seconds: float, workers: int) -> Path:
    """Makes what is missing and returns the folder of the dataset."""
    choice = ScorerChoice("tfidf")
    identity = encoder_identity(Tokenizer.load(tokenizer), make_scorer(choice, frequencies))
    make_encoder = MakeEncoder(choice, str(tokenizer), str(frequencies), identity)
    encoder = make_encoder()
    plan = Plan.make(
        Corpus("slow", SlowStories(seconds)),
        split="train",
        out_dir=out,
        tokenizer=encoder.tokenizer,
        scorer=encoder.scorer,
        num_shards=NUM_SHARDS,
    )
    missing = plan.missing()
    complete = [index for index in range(NUM_SHARDS) if index not in missing]
    if missing:
        run_local(Tasks(ShardTask(plan, make_encoder), plan.folder, NUM_SHARDS, missing, complete), workers)
    plan.complete(lambda: encoder.tokenizer)
    return plan.folder


def run_forking(*arguments: Any) -> None:
    """The same on processes that are forked, which work at once; nothing else runs in this one that they could miss."""
    processes._ContextWithoutMain = lambda: multiprocessing.get_context("fork")  # type: ignore[assignment, misc]
    run(*arguments)
