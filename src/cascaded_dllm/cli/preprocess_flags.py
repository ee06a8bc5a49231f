"""The options of `cdllm preprocess`, in the order in which its help shows them; a method shows those that it reads."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble.scorers import DEFAULT_TAGGER, DEFAULT_WINDOW_WORDS
from cascaded_dllm.importance.keybert import DEFAULT_MODEL
from cascaded_dllm.preprocess.executors import Resources
from cascaded_dllm.preprocess.job import DEFAULT_SCOPE
from cascaded_dllm.text.local import DEFAULT_UNIT, UNITS
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD

_CORPUS, _IMPORTANCE, _CLUSTER = "Corpus", "Importance", "Clusters"
_RESOURCES = asdict(Resources())

Dataset = Annotated[
    str,
    typer.Option(
        help="A corpus by name (wikitext2, openwebtext, ...), a hub id, or a file, a folder or a pattern "
        "('books/*.txt') of .txt, .jsonl, .json (.gz, .xz, .zst), .parquet.",
        rich_help_panel=_CORPUS,
    ),
]
Split = Annotated[str, typer.Option(help="Part of the corpus.", rich_help_panel=_CORPUS)]
Name = Annotated[str | None, typer.Option(help="Name of the corpus, for the folder.", rich_help_panel=_CORPUS)]
Form = Annotated[
    str | None,
    typer.Option(
        help="Of local files in the tokenised form of a corpus: wikitext, ptb, lm1b or lambada.",
        rich_help_panel=_CORPUS,
    ),
]
TextField = Annotated[
    str | None,
    typer.Option(help=f"Field or column that holds the text (default: {DEFAULT_TEXT_FIELD}).", rich_help_panel=_CORPUS),
]
Unit = Annotated[
    str | None,
    typer.Option(
        help=f"What a document of a .txt is: {', '.join(UNITS)} (default: {DEFAULT_UNIT}).", rich_help_panel=_CORPUS
    ),
]
BadRecords = Annotated[
    str | None,
    typer.Option(
        help="Lines of a .txt or .jsonl that cannot be read: refuse, or drop and count (default: refuse).",
        rich_help_panel=_CORPUS,
    ),
]
Streaming = Annotated[
    bool,
    typer.Option(
        "--streaming",
        help="Read a hub dataset over the network; with 3 shards or more, its texts lie in <out> meanwhile.",
        rich_help_panel=_CORPUS,
    ),
]
Revision = Annotated[str | None, typer.Option(help="Of a hub dataset: commit or branch.", rich_help_panel=_CORPUS)]
NumDocuments = Annotated[
    int | None, typer.Option(help="Only the first so many records, dropped ones too.", rich_help_panel=_CORPUS)
]
Holdout = Annotated[
    int | None,
    typer.Option(
        help="Hold out one of so many records of the train split: --split valid makes those, --split train the others.",
        rich_help_panel=_CORPUS,
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
    typer.Option(
        help="english (offline), lexicon (offline, less exact), stories, a .npz of "
        f"scripts/train_tagger.py, or a spaCy model's name or path (default: {DEFAULT_TAGGER}).",
        rich_help_panel=_IMPORTANCE,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help=f"A sentence-transformers model (default: {DEFAULT_MODEL}).", rich_help_panel=_IMPORTANCE),
]
Scope = Annotated[
    str | None,
    typer.Option(
        help=f"What a word is compared with, document or window (default: {DEFAULT_SCOPE}).",
        rich_help_panel=_IMPORTANCE,
    ),
]
WindowWords = Annotated[
    int | None,
    typer.Option(
        help=f"With --scope window, words of one (default: {DEFAULT_WINDOW_WORDS}).", rich_help_panel=_IMPORTANCE
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(help="Of the documents, float32 or bfloat16 (default: float32).", rich_help_panel=_IMPORTANCE),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="auto, cpu, cuda (every process takes a GPU in turn) or cuda:N (default: auto).",
        rich_help_panel=_IMPORTANCE,
    ),
]
WordCache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of embedded words, shared by all jobs (default: <out>/word_cache).",
        rich_help_panel=_IMPORTANCE,
    ),
]
Seed = Annotated[int | None, typer.Option(help="The seed (default: 0).", rich_help_panel=_IMPORTANCE)]
Per = Annotated[
    str | None,
    typer.Option(
        help="What a number is drawn for: every occurrence of a word, or once for the word (default: occurrence).",
        rich_help_panel=_IMPORTANCE,
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(
        help="FILE.py:FUNCTION, a function from a list of texts to the words of each, (start, end, importance).",
        rich_help_panel=_IMPORTANCE,
    ),
]
Shards = Annotated[int, typer.Option(help="Parts on disk, each made by one task.")]
Shard = Annotated[int | None, typer.Option(help="Make this shard only: one task of a job array of your own.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes (default: the cores there are), or tasks at once on a cluster (default: all)."),
]
Executor = Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")]
Partition = Annotated[str | None, typer.Option(help="Slurm: where to run.", rich_help_panel=_CLUSTER)]
Account = Annotated[str | None, typer.Option(help="Slurm: who pays.", rich_help_panel=_CLUSTER)]
TimeLimit = Annotated[
    str | None,
    typer.Option("--time", help=f"Slurm: limit of a task (default: {_RESOURCES['time']}).", rich_help_panel=_CLUSTER),
]
Cpus = Annotated[
    int | None,
    typer.Option(help=f"Slurm, Ray: cores of a task (default: {_RESOURCES['cpus']}).", rich_help_panel=_CLUSTER),
]
MemoryGb = Annotated[
    int | None,
    typer.Option(help=f"Slurm, Ray: memory per core (default: {_RESOURCES['memory_gb']}).", rich_help_panel=_CLUSTER),
]
Gpus = Annotated[
    int | None,
    typer.Option(help=f"Slurm, Ray: GPUs of a task (default: {_RESOURCES['gpus']}).", rich_help_panel=_CLUSTER),
]
Setup = Annotated[str | None, typer.Option(help="Slurm: shell command that prepares a node.", rich_help_panel=_CLUSTER)]
SubmitAnyway = Annotated[
    bool | None,
    typer.Option(
        "--submit-anyway",
        help="Slurm: submit although a job for this dataset is queued or running.",
        rich_help_panel=_CLUSTER,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster; without it, one on this machine.", rich_help_panel=_CLUSTER),
]
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
