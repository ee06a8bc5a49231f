"""The options of `cdllm preprocess`, in the order in which its help shows them; a method shows those that it reads."""

from pathlib import Path
from typing import Annotated

import typer

_CORPUS, _IMPORTANCE, _CLUSTER = "Corpus", "Importance", "Clusters"

Dataset = Annotated[
    str,
    typer.Option(
        help="A corpus by name (wikitext2, openwebtext, ...), a hub id, or a file, a folder or a pattern "
        "('books/*.txt') of .txt, .jsonl (.gz, .xz), .parquet.",
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
TextField = Annotated[str, typer.Option(help="Field or column that holds the text.", rich_help_panel=_CORPUS)]
Unit = Annotated[
    str, typer.Option(help="What a document of a .txt is: paragraph, line or file.", rich_help_panel=_CORPUS)
]
Streaming = Annotated[
    bool, typer.Option("--streaming", help="Read a hub dataset without storing it.", rich_help_panel=_CORPUS)
]
Revision = Annotated[str | None, typer.Option(help="Of a hub dataset: commit or branch.", rich_help_panel=_CORPUS)]
NumDocuments = Annotated[int | None, typer.Option(help="Only the first so many documents.", rich_help_panel=_CORPUS)]
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
        "scripts/train_tagger.py, or a spaCy model's name or path (default: en_core_web_md).",
        rich_help_panel=_IMPORTANCE,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="A sentence-transformers model (default: all-MiniLM-L6-v2).", rich_help_panel=_IMPORTANCE),
]
Scope = Annotated[
    str | None,
    typer.Option(
        help="What a word is compared with, document or window (default: document).",
        rich_help_panel=_IMPORTANCE,
    ),
]
WindowWords = Annotated[
    int | None,
    typer.Option(help="Words of a window (default: 96).", rich_help_panel=_IMPORTANCE),
]
Precision = Annotated[
    str | None,
    typer.Option(help="Of the documents, float32 or bfloat16 (default: float32).", rich_help_panel=_IMPORTANCE),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda (default: auto).", rich_help_panel=_IMPORTANCE)]
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
Shards = Annotated[int, typer.Option(help="Parts on disk, each made by one task.")]
Shard = Annotated[int | None, typer.Option(help="Make this shard only: one task of a job array of your own.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes (default: the cores there are), or tasks at once on a cluster (default: all)."),
]
Executor = Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")]
Partition = Annotated[str | None, typer.Option(help="Of Slurm.", rich_help_panel=_CLUSTER)]
Account = Annotated[str | None, typer.Option(help="Of Slurm.", rich_help_panel=_CLUSTER)]
TimeLimit = Annotated[str, typer.Option("--time", help="Limit of a task.", rich_help_panel=_CLUSTER)]
Cpus = Annotated[int, typer.Option(help="Cores of a task.", rich_help_panel=_CLUSTER)]
MemoryGb = Annotated[int, typer.Option(help="Memory per core.", rich_help_panel=_CLUSTER)]
Gpus = Annotated[int, typer.Option(help="GPUs of a task.", rich_help_panel=_CLUSTER)]
Setup = Annotated[str | None, typer.Option(help="Slurm: shell command that prepares a node.", rich_help_panel=_CLUSTER)]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster; without it, one on this machine.", rich_help_panel=_CLUSTER),
]
Out = Annotated[Path, typer.Option(help="Goes to <out>/<method>/<name>_<split>.")]
