"""`cdllm preprocess`: a corpus to tokens with importance, on disk."""

from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble import make_scorer
from cascaded_dllm.cli.console import console, progress_bar, reported_errors, working
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.preprocess.pipeline import preprocess as preprocess_documents
from cascaded_dllm.text.corpora import Corpus, open_corpus
from cascaded_dllm.text.tokenizer import Tokenizer


def choose_tokenizer(corpus: Corpus, source: str | None, vocab_size: int | None) -> Tokenizer:
    """A tokenizer from a file, a folder or the hub, or one trained on the corpus.

    Raises:
        ConfigError: both or neither are wanted.
    """
    if (source is None) == (vocab_size is None):
        raise ConfigError(
            "the tokenizer is not determined; give either --tokenizer (a file, a folder or a hub id such as gpt2) or "
            "--train-tokenizer with a vocabulary size"
        )
    if source is not None:
        return Tokenizer.load(source)
    assert vocab_size is not None
    return Tokenizer.train((document.text for document in corpus.documents()), vocab_size)


def preprocess(
    method: Annotated[str, typer.Argument(help="Importance of a word: constituency (part of speech) or tfidf.")],
    dataset: Annotated[
        str, typer.Option(help="stories, python-docs, or a file or folder of .txt, .jsonl (.gz, .xz), .parquet.")
    ],
    split: Annotated[str, typer.Option(help="Name of this part of the corpus, for the folder.")] = "train",
    tagger: Annotated[
        str | None,
        typer.Option(help="For constituency: lexicon (offline), stories, or a spaCy model's name or path."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A tokenizer.json, a folder with one or with GPT-2's files, or a hub id.")
    ] = None,
    train_tokenizer: Annotated[
        int | None, typer.Option(help="Train a byte-level BPE with so many entries on the corpus instead.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
    unit: Annotated[str, typer.Option(help="What a document of a .txt is: paragraph, line or file.")] = "paragraph",
    name: Annotated[str | None, typer.Option(help="Name of the corpus, for the folder.")] = None,
    num_documents: Annotated[int | None, typer.Option(help="Only the first so many documents.")] = None,
    shards: Annotated[int, typer.Option(help="Parts on disk.")] = 1,
    out: Annotated[Path, typer.Option(help="Goes to <out>/<method>/<name>_<split>.")] = Path("data/preprocessed"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Give every token of a corpus its importance and write shards that `cdllm train` reads.

    A run that was broken off goes on where it was; a shard is on disk completely or not at all.

    Examples:

      cdllm preprocess constituency --dataset train.txt.xz --tagger lexicon --train-tokenizer 4096
      cdllm preprocess constituency --dataset train.txt.xz --tagger en_core_web_md --tokenizer gpt2 --name wiki
      cdllm preprocess tfidf --dataset papers.jsonl.gz --text-field abstract --tokenizer gpt2 --shards 8
    """
    with reported_errors(debug):
        corpus = open_corpus(dataset, split=split, text_field=text_field, unit=unit).first(num_documents)
        with working("tokenizer"):
            chosen = choose_tokenizer(corpus, tokenizer, train_tokenizer)
        with working("importance of words"):
            scorer = make_scorer(method, tagger, corpus)
        with progress_bar("documents") as (_, move):
            folder = preprocess_documents(
                corpus.documents,
                out_dir=out,
                dataset=name or corpus.name,
                split=split,
                tokenizer=chosen,
                scorer=scorer,
                num_shards=shards,
                on_progress=move,
            )
        counts = PreprocessedDataset.open(folder).counts
        console.print(
            f"{counts.documents:,} documents, {counts.tokens:,} tokens of a vocabulary of {chosen.vocab_size:,}"
        )
        for reason, number in counts.dropped.items():
            console.print(f"dropped {number:,}: {reason}")
        console.print(f"in {folder}", markup=False, soft_wrap=True)
