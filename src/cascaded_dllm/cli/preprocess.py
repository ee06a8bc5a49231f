"""`cdllm preprocess`: turns a corpus into tokens with importance, on disk."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption

from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of
from cascaded_dllm.cli import preprocess_flags as flags
from cascaded_dllm.cli.console import reported_errors
from cascaded_dllm.cli.inspect import inspect
from cascaded_dllm.cli.options import Debug, given
from cascaded_dllm.cli.preprocess_run import run_job
from cascaded_dllm.cli.preprocess_stages import stages
from cascaded_dllm.cli.preprocess_status import show_status
from cascaded_dllm.preprocess.executors import Resources, require_read
from cascaded_dllm.preprocess.job import EMBEDDED, CorpusChoice, Job, ScorerChoice, is_read


class _Methods(TyperGroup):
    """The group of the methods and of `inspect`, `stages` and `status`; an unknown name gets a list of the known ones.

    All methods accept the options of all, so that an error can name the method that an option belongs to. The help of
    a method shows only the options that it reads.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, with the options of other methods hidden."""
        command = super().get_command(ctx, cmd_name)
        if cmd_name in SELECTION_METHODS and command is not None:
            for option in command.params:
                if isinstance(option, TyperOption):
                    option.hidden = not is_read(str(option.name), cmd_name)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, after a check that it exists."""
        with reported_errors(debug="--debug" in args):
            if args:
                one_of("the method", args[0], self.commands)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Methods,
    add_completion=False,
    no_args_is_help=True,
    help="Compute the importance of every token of a corpus, and inspect what the stages keep.",
)


def command_of(method: str) -> Callable[..., None]:
    """The command of a method; all methods accept the same options."""

    def run(
        dataset: flags.Dataset,
        split: flags.Split = "train",
        name: flags.Name = None,
        form: flags.Form = None,
        text_field: flags.TextField = None,
        unit: flags.Unit = None,
        bad_records: flags.BadRecords = None,
        streaming: flags.Streaming = False,
        revision: flags.Revision = None,
        num_documents: flags.NumDocuments = None,
        holdout: flags.Holdout = None,
        tokenizer: flags.Tokenizer = None,
        train_tokenizer: flags.TrainTokenizer = None,
        tagger: flags.Tagger = None,
        model: flags.Model = None,
        scope: flags.Scope = None,
        window_words: flags.WindowWords = None,
        precision: flags.Precision = None,
        device: flags.Device = None,
        word_cache: flags.WordCache = None,
        seed: flags.Seed = None,
        per: flags.Per = None,
        scorer: flags.Scorer = None,
        word_counts: flags.WordCounts = None,
        shards: flags.Shards = 1,
        shard: flags.Shard = None,
        workers: flags.Workers = None,
        executor: flags.Executor = "local",
        partition: flags.Partition = None,
        account: flags.Account = None,
        time_limit: flags.TimeLimit = None,
        cpus: flags.Cpus = None,
        memory_gb: flags.MemoryGb = None,
        gpus: flags.Gpus = None,
        setup: flags.Setup = None,
        submit_anyway: flags.SubmitAnyway = None,
        ray_address: flags.RayAddress = None,
        out: flags.Out = Path("data/preprocessed"),
        debug: Debug = False,
    ) -> None:
        """Makes the shards of a dataset; `_register` sets the help text."""
        words = out / "word_cache" if word_cache is None and method in EMBEDDED else word_cache
        renamed = {"method": method, "word_cache": None if words is None else str(words), "time": time_limit}
        # All parameters, by the names of the dataclass fields that they fill.
        typed = locals() | renamed
        job = Job(
            CorpusChoice(**_fields_of(CorpusChoice, typed)),
            ScorerChoice(**_fields_of(ScorerChoice, typed)),
            tokenizer,
            train_tokenizer,
            shards,
            str(out),
        )
        asked = _fields_of(Resources, typed)
        # Every executor reads the number of workers, so it needs no check.
        del asked["workers"]
        with reported_errors(debug):
            require_read(executor, asked | {"ray_address": ray_address, "submit_anyway": submit_anyway})
            run_job(
                job,
                executor=executor,
                workers=workers,
                resources=Resources(workers or -1, **given(asked)),
                shard=shard,
                ray_address=ray_address,
                submit_anyway=bool(submit_anyway),
            )

    return run


def _fields_of(record: Any, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The values in `typed` of the fields of a dataclass."""
    return {field.name: typed[field.name] for field in fields(record)}


def _register(method: str, short_help: str, purpose: str, *examples: str) -> None:
    """Registers the command of a method, with its help text."""
    lines = "\n    ".join(f"  cdllm preprocess {method} {example}" for example in examples)
    text = f"""{purpose}

    The result is a folder of tokens with their importance, in shards, which `cdllm train` reads. You can kill the
    command at any time: a shard is written completely or not at all, and the same command makes the missing ones.

    Examples:

    {lines}
    """
    app.command(method, short_help=short_help, help=text)(command_of(method))


_register(
    "constituency",
    "Importance by part of speech.",
    "Importance by part of speech: proper nouns are kept first, then nouns, verbs, adjectives, adverbs, the rest.",
    "--dataset train.txt.xz --tagger english --train-tokenizer 4096",
    "--dataset openwebtext --tokenizer gpt2 --shards 256 --executor slurm --partition cpu",
)
_register(
    "keybert_no_stopword",
    "Importance by KeyBERT relevance, stop words last.",
    "Importance by the KeyBERT relevance of a word to its document; stop words are kept last, full stops first.",
    "--dataset wikitext103 --tokenizer gpt2 --shards 32 --workers 8",
    "--dataset notes.jsonl --tokenizer gpt2 --scope window --precision bfloat16",
)
_register(
    "keybert",
    "Importance by KeyBERT relevance.",
    "Importance by the KeyBERT relevance of a word to its document; stop words are treated like all others.",
    "--dataset wikitext2 --tokenizer gpt2",
)
_register(
    "tfidf",
    "Importance by tf-idf.",
    "Importance by tf-idf: how often a word is in its document, and how rare in the others; needs no model.",
    "--dataset papers.jsonl.gz --text-field abstract --train-tokenizer 8192",
    "--dataset valid.jsonl --split valid --word-counts data/preprocessed/tfidf/papers_train --tokenizer "
    "data/preprocessed/tfidf/papers_train",
)
_register(
    "random",
    "Random importance, the control.",
    "Random importance: the control experiment that shows whether importance matters.",
    "--dataset wikitext2 --tokenizer gpt2 --seed 1",
    "--dataset wikitext2 --tokenizer gpt2 --per word",
)
_register(
    "custom",
    "Importance by your own function.",
    "Importance by your own Python function, which finds words and a number for each; words with large ones are kept.",
    "--scorer saliency.py:importance --dataset wikitext2 --tokenizer gpt2",
    "--scorer saliency.py:importance --dataset notes.jsonl --name notes_saliency --train-tokenizer 4096",
)
app.command("inspect")(inspect)
app.command("stages")(stages)
app.command("status")(show_status)
