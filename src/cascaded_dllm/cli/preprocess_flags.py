"""The options of `cdllm preprocess`, in the order in which its help shows them; a method shows those that it reads."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble.scorers import DEFAULT_TAGGER, DEFAULT_WINDOW_WORDS
from cascaded_dllm.importance.keybert import DEFAULT_MODEL
from cascaded_dllm.preprocess.executors import Resources
from cascaded_dllm.preprocess.job import DEFAULT_SCOPE
from cascaded_dllm.text.local import DEFAULT_UNIT, UNITS
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD

_corpus = partial(typer.Option, rich_help_panel="Corpus")
_importance = partial(typer.Option, rich_help_panel="Importance")
_cluster = partial(typer.Option, rich_help_panel="Clusters")
_RESOURCES = asdict(Resources())

Dataset = Annotated[
    str,
    _corpus(
        help="A corpus by name (wikitext2, openwebtext, ...), a hub id, or a file, a folder or a pattern "
        "('books/*.txt') of .txt, .jsonl, .json (.gz, .xz, .zst), .parquet."
    ),
]
Split = Annotated[str, _corpus(help="Part of the corpus.")]
Name = Annotated[str | None, _corpus(help="Name of the corpus, for the folder.")]
Form = Annotated[
    str | None, _corpus(help="Of local files in the tokenised form of a corpus: wikitext, ptb, lm1b or lambada.")
]
TextField = Annotated[str | None, _corpus(help=f"Field or column that holds the text (default: {DEFAULT_TEXT_FIELD}).")]
Unit = Annotated[
    str | None, _corpus(help=f"What a document of a .txt is: {', '.join(UNITS)} (default: {DEFAULT_UNIT}).")
]
BadRecords = Annotated[
    str | None,
    _corpus(help="Lines of a .txt or .jsonl that cannot be read: refuse, or drop and count (default: refuse)."),
]
Streaming = Annotated[
    bool,
    _corpus(
        "--streaming",
        help="Read a hub dataset over the network; with 3 shards or more, its texts lie in <out> meanwhile.",
    ),
]
Revision = Annotated[str | None, _corpus(help="Of a hub dataset: commit or branch.")]
NumDocuments = Annotated[int | None, _corpus(help="Only the first so many records, dropped ones too.")]
Holdout = Annotated[
    int | None,
    _corpus(
        help="Hold out one of so many records of the train split: --split valid makes those, --split train the others."
    ),
]
Tokenizer = Annotated[
    str | None, typer.Option(help="A tokenizer.json, a folder with one or with GPT-2's files, or a hub id.")
]
TrainTokenizer = Annotated[
    int | None, typer.Option(help="Train a byte-level BPE with so many entries on the corpus instead.")
]
Tagger = Annotated[
    str | None,
    _importance(
        help="english (offline), lexicon (offline, less exact), stories, a .npz of "
        f"scripts/train_tagger.py, or a spaCy model's name or path (default: {DEFAULT_TAGGER})."
    ),
]
Model = Annotated[str | None, _importance(help=f"A sentence-transformers model (default: {DEFAULT_MODEL}).")]
Scope = Annotated[
    str | None, _importance(help=f"What a word is compared with, document or window (default: {DEFAULT_SCOPE}).")
]
WindowWords = Annotated[
    int | None, _importance(help=f"With --scope window, words of one (default: {DEFAULT_WINDOW_WORDS}).")
]
Precision = Annotated[str | None, _importance(help="Of the documents, float32 or bfloat16 (default: float32).")]
Device = Annotated[
    str | None, _importance(help="auto, cpu, cuda (every process takes a GPU in turn) or cuda:N (default: auto).")
]
WordCache = Annotated[
    Path | None, _importance(help="Folder of embedded words, shared by all jobs (default: <out>/word_cache).")
]
Seed = Annotated[int | None, _importance(help="The seed (default: 0).")]
Per = Annotated[
    str | None,
    _importance(
        help="What a number is drawn for: every occurrence of a word, or once for the word (default: occurrence)."
    ),
]
Scorer = Annotated[
    str | None,
    _importance(
        help="FILE.py:FUNCTION, a function from a list of texts to the words of each, (start, end, importance)."
    ),
]
Shards = Annotated[int, typer.Option(help="Parts on disk, each made by one task.")]
Shard = Annotated[int | None, typer.Option(help="Make this shard only: one task of a job array of your own.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes (default: the cores there are), or tasks at once on a cluster (default: all)."),
]
Executor = Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")]
Partition = Annotated[str | None, _cluster(help="Slurm: where to run.")]
Account = Annotated[str | None, _cluster(help="Slurm: who pays.")]
TimeLimit = Annotated[str | None, _cluster("--time", help=f"Slurm: limit of a task (default: {_RESOURCES['time']}).")]
Cpus = Annotated[int | None, _cluster(help=f"Slurm, Ray: cores of a task (default: {_RESOURCES['cpus']}).")]
MemoryGb = Annotated[int | None, _cluster(help=f"Slurm, Ray: memory per core (default: {_RESOURCES['memory_gb']}).")]
Gpus = Annotated[int | None, _cluster(help=f"Slurm, Ray: GPUs of a task (default: {_RESOURCES['gpus']}).")]
Setup = Annotated[str | None, _cluster(help="Slurm: shell command that prepares a node.")]
SubmitAnyway = Annotated[
    bool | None, _cluster("--submit-anyway", help="Slurm: submit although a job for this dataset is queued or running.")
]
RayAddress = Annotated[str | None, _cluster(help="Of a Ray cluster; without it, one on this machine.")]
Folder = Annotated[Path, typer.Argument(help="Folder that `cdllm preprocess` made.")]
Lengths = Annotated[
    str | None, typer.Option(help="Stage lengths, for example 32,64,128; by default those of the configuration.")
]
Packing = Annotated[str | None, typer.Option(help="stream or document; by default that of the configuration.")]
Unique = Annotated[
    bool | None,
    typer.Option(
        "--unique/--no-unique", help="Whether a stage keeps a token once; by default as the configuration says."
    ),
]
StagesFolder = Annotated[
    Path | None, typer.Option("--stages", help="Where they go, for read-only data (default: <folder>/stages).")
]
BuildWorkers = Annotated[
    int | None, typer.Option("--workers", help="Processes (default: the cores there are, at most 8).")
]
Out = Annotated[Path, typer.Option(help="Goes to <out>/<method>/<name>_<split>.")]
