"""The options of `cdllm preprocess`, in the order of its help; the help of a method shows only those that it reads."""

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
        help="The corpus: a name (wikitext2, openwebtext, ...), a hub id, or a file, folder or pattern "
        "('books/*.txt') of .txt, .jsonl or .json (also .gz, .xz, .zst) or .parquet."
    ),
]
Split = Annotated[str, _corpus(help="Split of the corpus, such as train.")]
Name = Annotated[str | None, _corpus(help="Name of the corpus in the name of the output folder (see --out).")]
Form = Annotated[
    str | None,
    _corpus(help="If local files have the tokenised form of a known corpus: wikitext, ptb, lm1b or lambada."),
]
TextField = Annotated[
    str | None, _corpus(help=f"Field or column that contains the text (default: {DEFAULT_TEXT_FIELD}).")
]
Unit = Annotated[
    str | None, _corpus(help=f"What is one document in a .txt file: {', '.join(UNITS)} (default: {DEFAULT_UNIT}).")
]
BadRecords = Annotated[
    str | None,
    _corpus(
        help="What to do with unreadable lines of a .txt or .jsonl: refuse the corpus, or drop and count them "
        "(default: refuse)."
    ),
]
Streaming = Annotated[
    bool,
    _corpus(
        "--streaming",
        help="Read a hub dataset over the network instead of downloading it first; with 3 shards or more, its texts "
        "are kept in <out> until the dataset is complete.",
    ),
]
Revision = Annotated[str | None, _corpus(help="Revision of a hub dataset: a commit, branch or tag.")]
NumDocuments = Annotated[int | None, _corpus(help="Use only the first N records; dropped records count.")]
Holdout = Annotated[
    int | None,
    _corpus(help="Hold out one in N records of the train split: --split valid makes these, --split train the others."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(help="The tokenizer: a tokenizer.json, a folder with one or with GPT-2's files, or a hub id."),
]
TrainTokenizer = Annotated[
    int | None,
    typer.Option(help="Instead of --tokenizer: train a byte-level BPE with N vocabulary entries on the corpus."),
]
Tagger = Annotated[
    str | None,
    _importance(
        help="The tagger: english (offline), lexicon (offline, less exact), stories, a .npz of "
        f"scripts/train_tagger.py, or the name or path of a spaCy model (default: {DEFAULT_TAGGER})."
    ),
]
Model = Annotated[str | None, _importance(help=f"The sentence-transformers model (default: {DEFAULT_MODEL}).")]
Scope = Annotated[
    str | None,
    _importance(help=f"What a word is compared with: its document or its window (default: {DEFAULT_SCOPE})."),
]
WindowWords = Annotated[
    int | None, _importance(help=f"Words in a window, for --scope window (default: {DEFAULT_WINDOW_WORDS}).")
]
Precision = Annotated[
    str | None, _importance(help="Precision of the document vectors: float32 or bfloat16 (default: float32).")
]
Device = Annotated[
    str | None,
    _importance(help="Device of the model: auto, cpu, cuda (the processes share all GPUs) or cuda:N (default: auto)."),
]
WordCache = Annotated[
    Path | None, _importance(help="Folder of word vectors, shared by all jobs (default: <out>/word_cache).")
]
Seed = Annotated[int | None, _importance(help="Seed of the random numbers (default: 0).")]
Per = Annotated[
    str | None,
    _importance(
        help="What gets its own random number: each occurrence of a word (occurrence), or each word (word) (default: "
        "occurrence)."
    ),
]
Scorer = Annotated[
    str | None,
    _importance(
        help="FILE.py:FUNCTION, a function that takes a list of texts and returns, for each, its words as (start, end, "
        "importance)."
    ),
]
WordCounts = Annotated[
    str | None,
    _importance(
        help="Folder of a dataset of tfidf, mostly the training part, whose word counts are used (default: the words "
        "of this corpus are counted)."
    ),
]
Shards = Annotated[int, typer.Option(help="Number of shards, the parts of the dataset on disk; a task makes one.")]
Shard = Annotated[
    int | None, typer.Option(help="Make only this shard, counted from 0, as one task of your own job array.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes on this machine (default: one for each core), or tasks at once on a cluster (default: all)."
    ),
]
Executor = Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")]
Partition = Annotated[str | None, _cluster(help="Slurm: partition to run in.")]
Account = Annotated[str | None, _cluster(help="Slurm: account to charge.")]
TimeLimit = Annotated[
    str | None, _cluster("--time", help=f"Slurm: time limit of a task (default: {_RESOURCES['time']}).")
]
Cpus = Annotated[int | None, _cluster(help=f"Slurm, Ray: cores of a task (default: {_RESOURCES['cpus']}).")]
MemoryGb = Annotated[
    int | None, _cluster(help=f"Slurm, Ray: memory per core, in GB (default: {_RESOURCES['memory_gb']}).")
]
Gpus = Annotated[int | None, _cluster(help=f"Slurm, Ray: GPUs of a task (default: {_RESOURCES['gpus']}).")]
Setup = Annotated[str | None, _cluster(help="Slurm: shell command that prepares the environment on a node.")]
SubmitAnyway = Annotated[
    bool | None,
    _cluster("--submit-anyway", help="Slurm: submit even if a job for this dataset is queued or running."),
]
RayAddress = Annotated[
    str | None, _cluster(help="Ray: address of the cluster; without it, Ray is started on this machine.")
]
Folder = Annotated[Path, typer.Argument(help="Folder that `cdllm preprocess` made.")]
Lengths = Annotated[
    str | None, typer.Option(help="Stage lengths, for example 32,64,128; by default as configured for training.")
]
Packing = Annotated[
    str | None, typer.Option(help="How windows are cut: stream or document; by default as configured for training.")
]
Unique = Annotated[
    bool | None,
    typer.Option(
        "--unique/--no-unique",
        help="Whether a shortened stage keeps each token only once; by default as configured for training.",
    ),
]
StagesFolder = Annotated[
    Path | None,
    typer.Option("--stages", help="Output folder, if the data is read-only (default: <folder>/stages)."),
]
BuildWorkers = Annotated[
    int | None, typer.Option("--workers", help="Processes (default: one for each core, at most 8).")
]
Out = Annotated[Path, typer.Option(help="Output folder; the dataset goes to <out>/<method>/<name>_<split>.")]
