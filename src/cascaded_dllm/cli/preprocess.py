"""`cdllm preprocess`: a corpus to tokens with importance, on disk."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from cascaded_dllm.assemble_preprocess import ShardTask, prepare
from cascaded_dllm.cli.console import console, counted, progress_bar, reported_errors, working
from cascaded_dllm.cli.inspect import inspect
from cascaded_dllm.data.preprocessed import PreprocessedDataset, shard_folder
from cascaded_dllm.data.shards import Shard
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.preprocess.executors import Resources, Tasks, run_local, submit_slurm
from cascaded_dllm.preprocess.job import EMBEDDED, CorpusChoice, Job, ScorerChoice
from cascaded_dllm.preprocess.on_ray import run_ray
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.preprocess.progress import WINDOW_LENGTH, summary
from cascaded_dllm.processes import usable_cores


class _Methods(TyperGroup):
    """The commands of this group are the methods; a misspelt one is told which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is asked for; typer keeps the types to itself."""
        with reported_errors(debug="--debug" in args):
            if args and args[0] not in self.commands:
                raise ConfigError(f"the method is {args[0]!r}; it must be one of {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Methods,
    add_completion=False,
    no_args_is_help=True,
    help="Give every token of a corpus its importance, and look at what is chosen.",
)

_CORPUS, _IMPORTANCE, _CLUSTER = "Corpus", "Importance", "Clusters"


def command_of(method: str) -> Callable[..., None]:
    """The command of a method; all take the same options."""

    def run(
        dataset: Annotated[
            str,
            typer.Option(
                help="A corpus by name (wikitext2, openwebtext, ...), a hub id, or a file or folder of .txt, .jsonl "
                "(.gz, .xz), .parquet.",
                rich_help_panel=_CORPUS,
            ),
        ],
        split: Annotated[str, typer.Option(help="Part of the corpus.", rich_help_panel=_CORPUS)] = "train",
        name: Annotated[
            str | None, typer.Option(help="Name of the corpus, for the folder.", rich_help_panel=_CORPUS)
        ] = None,
        form: Annotated[
            str | None,
            typer.Option(
                help="Of local files in the tokenised form of a corpus: wikitext, ptb, lm1b or lambada.",
                rich_help_panel=_CORPUS,
            ),
        ] = None,
        text_field: Annotated[
            str, typer.Option(help="Field or column that holds the text.", rich_help_panel=_CORPUS)
        ] = "text",
        unit: Annotated[
            str, typer.Option(help="What a document of a .txt is: paragraph, line or file.", rich_help_panel=_CORPUS)
        ] = "paragraph",
        streaming: Annotated[
            bool, typer.Option("--streaming", help="Read a hub dataset without storing it.", rich_help_panel=_CORPUS)
        ] = False,
        revision: Annotated[
            str | None, typer.Option(help="Of a hub dataset: commit or branch.", rich_help_panel=_CORPUS)
        ] = None,
        num_documents: Annotated[
            int | None, typer.Option(help="Only the first so many documents.", rich_help_panel=_CORPUS)
        ] = None,
        tokenizer: Annotated[
            str | None, typer.Option(help="A tokenizer.json, a folder with one or with GPT-2's files, or a hub id.")
        ] = None,
        train_tokenizer: Annotated[
            int | None, typer.Option(help="Train a byte-level BPE with so many entries on the corpus instead.")
        ] = None,
        tagger: Annotated[
            str | None,
            typer.Option(
                help="constituency: english (offline), lexicon (offline, less exact), stories, a .npz of "
                "scripts/train_tagger.py, or a spaCy model's name or path (default: en_core_web_md).",
                rich_help_panel=_IMPORTANCE,
            ),
        ] = None,
        model: Annotated[
            str | None,
            typer.Option(
                help="keybert: a sentence-transformers model (default: all-MiniLM-L6-v2).", rich_help_panel=_IMPORTANCE
            ),
        ] = None,
        scope: Annotated[
            str | None,
            typer.Option(
                help="keybert: what a word is compared with, document or window (default: document).",
                rich_help_panel=_IMPORTANCE,
            ),
        ] = None,
        window_words: Annotated[
            int | None,
            typer.Option(help="keybert: words of a window (default: 96).", rich_help_panel=_IMPORTANCE),
        ] = None,
        precision: Annotated[
            str | None,
            typer.Option(
                help="keybert: of the documents, float32 or bfloat16 (default: float32).", rich_help_panel=_IMPORTANCE
            ),
        ] = None,
        device: Annotated[
            str | None, typer.Option(help="keybert: auto, cpu or cuda (default: auto).", rich_help_panel=_IMPORTANCE)
        ] = None,
        word_cache: Annotated[
            Path | None,
            typer.Option(
                help="keybert: folder of embedded words, shared by all jobs (default: <out>/word_cache).",
                rich_help_panel=_IMPORTANCE,
            ),
        ] = None,
        seed: Annotated[
            int | None, typer.Option(help="random: the seed (default: 0).", rich_help_panel=_IMPORTANCE)
        ] = None,
        shards: Annotated[int, typer.Option(help="Parts on disk, each made by one task.")] = 1,
        shard: Annotated[
            int | None, typer.Option(help="Make this shard only: one task of a job array of your own.")
        ] = None,
        workers: Annotated[
            int | None, typer.Option(help="Processes, or tasks at a time on a cluster (default: the cores there are).")
        ] = None,
        executor: Annotated[str, typer.Option(help="Where tasks run: local, slurm or ray.")] = "local",
        partition: Annotated[str | None, typer.Option(help="Of Slurm.", rich_help_panel=_CLUSTER)] = None,
        account: Annotated[str | None, typer.Option(help="Of Slurm.", rich_help_panel=_CLUSTER)] = None,
        time_limit: Annotated[
            str, typer.Option("--time", help="Limit of a task.", rich_help_panel=_CLUSTER)
        ] = "24:00:00",
        cpus: Annotated[int, typer.Option(help="Cores of a task.", rich_help_panel=_CLUSTER)] = 1,
        memory_gb: Annotated[int, typer.Option(help="Memory per core.", rich_help_panel=_CLUSTER)] = 4,
        gpus: Annotated[int, typer.Option(help="GPUs of a task.", rich_help_panel=_CLUSTER)] = 0,
        setup: Annotated[
            str | None, typer.Option(help="Slurm: shell command that prepares a node.", rich_help_panel=_CLUSTER)
        ] = None,
        ray_address: Annotated[
            str | None,
            typer.Option(help="Of a Ray cluster; without it, one on this machine.", rich_help_panel=_CLUSTER),
        ] = None,
        out: Annotated[Path, typer.Option(help="Goes to <out>/<method>/<name>_<split>.")] = Path("data/preprocessed"),
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    ) -> None:
        """Make the shards; the help text is that of the method."""
        words = out / "word_cache" if word_cache is None and method in EMBEDDED else word_cache
        job = Job(
            CorpusChoice(dataset, split, name, form, text_field, unit, streaming, revision, num_documents),
            ScorerChoice(
                method,
                tagger=tagger,
                model=model,
                scope=scope,
                window_words=window_words,
                precision=precision,
                device=device,
                word_cache=None if words is None else str(words),
                seed=seed,
            ),
            tokenizer,
            train_tokenizer,
            shards,
            str(out),
        )
        resources = Resources(workers or -1, cpus, memory_gb, gpus, time_limit, partition, account, setup)
        with reported_errors(debug):
            run_job(job, executor=executor, workers=workers, resources=resources, shard=shard, ray_address=ray_address)

    return run


def run_job(
    job: Job,
    *,
    executor: str,
    workers: int | None,
    resources: Resources,
    shard: int | None = None,
    ray_address: str | None = None,
) -> None:
    """Prepares a job, runs its missing tasks and says what came out.

    Raises:
        CascadeError: see `prepare` and the executors.
    """
    resources.check(executor)
    if ray_address is not None and executor != "ray":
        raise ConfigError(f"--executor {executor} has no use for --ray-address; leave it out, or choose --executor ray")
    if shard is not None:
        job.check_shard(shard)
        if executor == "slurm":
            raise ConfigError("--shard is for a job array of your own, and --executor slurm submits one; leave one out")
    if workers is not None and workers < 1:
        raise ConfigError(f"the number of workers is {workers}; it must be at least 1")
    with working("reading the corpus: tokenizer and settings"):
        task = prepare(job)
        task.plan.check_shards()
        wanted = range(job.num_shards) if shard is None else [shard]
        complete = [index for index in wanted if task.plan.has_shard(index)]
    missing = [index for index in wanted if index not in complete]
    # What is booked on a cluster is used: inside a task by processes that score documents.
    placed = task if executor == "local" else task.on_processes(resources.cpus)
    tasks = Tasks(placed, task.plan.folder, job.num_shards, missing, complete)
    if hint := task.plan.corpus.hint():
        console.print(f"[yellow]note:[/] {escape(hint)}")
    started = time.monotonic()
    if task.plan.to_be_read_once(missing):
        _read_once(task.plan, missing)
    match executor:
        case _ if not missing:
            task.plan.complete(task.tokenizer())
        case "slurm":
            number = submit_slurm(tasks, resources, f"cdllm-{job.scorer.method}")
            console.print(f"job {number} makes {counted(len(missing), 'shard')}; logs are in {tasks.logs}")
            return
        case "ray":
            with working(f"{counted(len(missing), 'shard')} on Ray"):
                run_ray(tasks, resources, ray_address)
        case _:
            _run_here(task, tasks, workers or usable_cores())
    _say_what_came_out(task, time.monotonic() - started, len(missing))


def _read_once(plan: Plan, missing: Sequence[int]) -> None:
    """Reads a corpus of which every part costs as much as the whole, once for all shards that are to be made."""
    if not console.is_terminal:
        console.print(f"reading the corpus once for {counted(len(missing), 'shard')}")
    with progress_bar("records read") as (_, move):
        plan.read_once(missing, lambda number: move(number, None))


def _run_here(task: ShardTask, tasks: Tasks, workers: int) -> None:
    """Runs the tasks on this machine; workers that are not needed for shards score documents inside them."""
    at_once = min(workers, len(tasks.missing))
    tasks = tasks.with_task(task.on_processes(max(1, workers // at_once)))
    with progress_bar("documents") as (_, move):

        def tell(finished: int, in_progress: int) -> None:
            done = [shard for index in tasks.missing if (shard := _shard(tasks.folder, index)) is not None]
            records = sum(shard.counts.records for shard in done)
            # Shards differ by one record at most, so one of them tells the size of all.
            total = done[0].counts.records * len(tasks.missing) if done else None
            move(records + (0 if finished == len(tasks.missing) else in_progress), total)

        run_local(tasks, at_once, tell)


def _shard(folder: Path, index: int) -> Shard | None:
    """A shard, if it is there."""
    path = shard_folder(folder, index)
    return Shard.open(path) if path.exists() else None


def _say_what_came_out(task: ShardTask, seconds: float, num_made: int) -> None:
    """Prints and writes the counts of the dataset, or says what it still waits for."""
    folder, settings = task.plan.folder, task.plan.settings
    still = settings.num_shards - len(task.plan.folders_of_shards())
    if still:
        console.print(f"made {counted(num_made, 'shard')}; of {settings.num_shards}, {still:,} are still to be made")
        return
    counts = PreprocessedDataset.open(folder).counts
    told = summary(counts, seconds)
    console.print(
        f"{counted(counts.documents, 'document')}, {counts.tokens:,} tokens of a vocabulary of "
        f"{settings.vocab_size:,}, about {told[f'windows_of_{WINDOW_LENGTH}']:,} windows of {WINDOW_LENGTH}"
    )
    for reason, number in counts.dropped.items():
        console.print(f"dropped {number:,}: {reason}")
    if num_made == settings.num_shards:
        console.print(f"{told['tokens_per_second']:,} tokens/s in {seconds:.1f} s")
    console.print(f"in {folder}", markup=False, soft_wrap=True)


def _help(purpose: str, method: str, *examples: str) -> str:
    """The help text of a method."""
    lines = "\n    ".join(f"  cdllm preprocess {method} {example}" for example in examples)
    return f"""{purpose}

    Writes shards of tokens with importance, which `cdllm train` reads. Kill it at any time: a shard is on disk
    completely or not at all, and the same command makes what is missing.

    Examples:

    {lines}
    """


app.command(
    "constituency",
    short_help="Importance by part of speech.",
    help=_help(
        "Importance by part of speech: proper nouns first, then nouns, verbs, adjectives, adverbs, the rest.",
        "constituency",
        "--dataset train.txt.xz --tagger english --train-tokenizer 4096",
        "--dataset openwebtext --tokenizer gpt2 --shards 256 --executor slurm --partition cpu",
    ),
)(command_of("constituency"))
app.command(
    "keybert_no_stopword",
    short_help="Importance by KeyBERT's relevance, stop words last.",
    help=_help(
        "Importance by KeyBERT's relevance of a word to its document; stop words come last, full stops first.",
        "keybert_no_stopword",
        "--dataset wikitext103 --tokenizer gpt2 --shards 32 --workers 8",
        "--dataset notes.jsonl --tokenizer gpt2 --scope window --precision bfloat16",
    ),
)(command_of("keybert_no_stopword"))
app.command(
    "keybert",
    short_help="Importance by KeyBERT's relevance.",
    help=_help(
        "Importance by KeyBERT's relevance of a word to its document, stop words like all others.",
        "keybert",
        "--dataset wikitext2 --tokenizer gpt2",
    ),
)(command_of("keybert"))
app.command(
    "tfidf",
    short_help="Importance by frequency and rarity.",
    help=_help(
        "Importance by how often a word is in its document and how rare in the others; needs no model.",
        "tfidf",
        "--dataset papers.jsonl.gz --text-field abstract --train-tokenizer 8192",
    ),
)(command_of("tfidf"))
app.command(
    "random",
    short_help="Random importance, the control.",
    help=_help(
        "Random importance: the control that shows whether importance matters.",
        "random",
        "--dataset wikitext2 --tokenizer gpt2 --seed 1",
    ),
)(command_of("random"))
app.command("inspect")(inspect)
