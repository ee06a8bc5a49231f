"""A preprocessing job as objects: the corpus, the tokenizer, and the task that makes a shard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias, final

from cascaded_dllm.assemble.scorers import BUILT_IN_TAGGERS, MakeEncoder, encoder_identity, make_scorer
from cascaded_dllm.atomic import complete_folder
from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.data.preprocessed import read_identity
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.importance.custom import split_scorer
from cascaded_dllm.importance.tfidf import (
    TfidfScorer,
    document_frequencies,
    load_frequencies,
    save_frequencies,
)
from cascaded_dllm.preprocess.completion import PREPARED_FOLDER, remember_hashes
from cascaded_dllm.preprocess.encoder import EncodeAll, encoder_of_process, encoder_processes
from cascaded_dllm.preprocess.job import COUNTED, CorpusChoice, Job, ScorerChoice
from cascaded_dllm.preprocess.pipeline import Plan, check_known_settings, check_name, dataset_folder
from cascaded_dllm.preprocess.progress import TaskLog, has_total, known_records, write_total
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus, require_numbers
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.file_choice import require_outside
from cascaded_dllm.text.local_files import LocalFiles
from cascaded_dllm.text.tokenizer import Tokenizer, require_vocab_size


@final
@dataclass(frozen=True, slots=True)
class ShardTask:
    """Makes one shard of a dataset, and completes the dataset with the last; an executor calls it, on any machine.

    Attributes:
        plan: the dataset.
        make_encoder: makes the encoder that turns its documents into tokens.
        num_processes: processes that score documents of one shard at the same time.
    """

    plan: Plan
    make_encoder: MakeEncoder
    num_processes: int = 1

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Makes shard `rank`, unless it exists.

        Args:
            data: output of the step before, which is None.
            rank: the shard.
            world_size: the number of shards.
        """
        assert data is None
        assert world_size == self.plan.settings.num_shards
        self.run(rank)

    def run(self, index: int) -> dict[str, object] | None:
        """Makes shard `index` and returns its summary; None if it existed before."""
        summary = None
        if not self.plan.has_shard(index):
            log = TaskLog(self.plan.folder, index)
            with self._encoder() as encode_all:
                summary = log.finish(self.plan.write(index, encode_all, log.tell))
        self.plan.put_tokenizer(self.tokenizer)
        self.complete(is_new=summary is not None)
        return summary

    def complete(self, *, is_new: bool = False) -> None:
        """Completes the dataset, if all shards exist, and writes the summary of all tasks.

        Args:
            is_new: whether a shard was made just now, so that an existing summary is out of date.
        """
        dataset = self.plan.complete(self.tokenizer)
        if dataset is not None and (is_new or not has_total(self.plan.folder)):
            write_total(self.plan.folder, dataset.counts, self.plan.settings.num_shards)

    def on_processes(self, number: int) -> "ShardTask":
        """The same task with `number` processes that score documents."""
        return replace(self, num_processes=number)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the dataset."""
        return Tokenizer.load(self.make_encoder.tokenizer)

    @contextmanager
    def _encoder(self) -> Iterator[EncodeAll]:
        # A process makes many shards, and on a cluster it may outlive the job and the files of its tokenizer.
        content = fingerprint(asdict(self.plan.settings))
        if self.num_processes > 1:
            with encoder_processes(self.make_encoder, self.num_processes, content) as encode_all:
                yield encode_all
            return
        yield encoder_of_process(self.make_encoder, content).encode_all


OnPass: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the purpose of a pass through a corpus, the documents done, and about how many there are."""

_WORD_COUNTS_FILE = "word_counts.json"
# Documents between two calls of OnPass.
_TOLD_EVERY = 256


def prepare(job: Job, *, workers: int = 1, on_pass: OnPass = lambda *_: None) -> ShardTask:
    """The task that makes the shards of a job, after all that is done once: train the tokenizer, count words.

    What it writes is kept in the folder of the dataset, so that another call finds it.

    Args:
        job: what is to be made.
        workers: processes that count words.
        on_pass: see `OnPass`.

    Raises:
        CascadeError: a setting is unknown, or something that the job needs is missing; if possible, this is raised
            before any long work.
    """
    job.check()
    if job.train_tokenizer is not None:
        require_vocab_size(job.train_tokenizer)
    # Fails on a missing model or library before a corpus is fetched from the hub and a tokenizer is trained.
    known = None if job.scorer.word_counts is None else word_counts_of(Path(job.scorer.word_counts))
    is_counted = job.scorer.method in COUNTED
    scorer = make_scorer(job.scorer, known) if known is not None or not is_counted else None
    given = None if job.tokenizer is None else Tokenizer.load(job.tokenizer)
    if given is not None:
        given.require_every_byte()
    corpus = make_corpus(job.corpus)
    # Another process may have another working directory.
    out_dir = Path(job.out).absolute()
    check_name("dataset", corpus.name)
    check_name("split", job.corpus.split)
    if isinstance(corpus.reader, LocalFiles):
        require_outside(out_dir, corpus.reader.path)
    folder = dataset_folder(out_dir, job.scorer.method, corpus.name, job.corpus.split)
    prepared = folder / PREPARED_FOLDER
    remember_hashes(folder)
    if given is None or scorer is None:
        # Before passes through the corpus whose results would fit no shard.
        check_known_settings(folder, corpus, num_shards=job.num_shards)
    source = _tokenizer_source(job, corpus, prepared, on_pass)
    frequencies = known
    if scorer is None:
        frequencies = _word_counts(corpus, prepared, workers, on_pass)
        scorer = make_scorer(job.scorer, frequencies)
    tokenizer = Tokenizer.load(source) if given is None else given
    plan = Plan.make(
        corpus,
        split=job.corpus.split,
        out_dir=out_dir,
        tokenizer=tokenizer,
        scorer=scorer,
        num_shards=job.num_shards,
    )
    counts = None if frequencies is None else str(frequencies.resolve())
    return ShardTask(plan, MakeEncoder(_anywhere(job.scorer), source, counts, encoder_identity(tokenizer, scorer)))


def _anywhere(choice: ScorerChoice) -> ScorerChoice:
    """The same choice with absolute paths, which are valid in any working directory."""
    cache = None if choice.word_cache is None else str(Path(choice.word_cache).absolute())
    # A folder may have the name of a built-in tagger, such as "stories".
    tagger = choice.tagger if choice.tagger in BUILT_IN_TAGGERS else _if_path(choice.tagger)
    scorer = choice.scorer
    if scorer is not None:
        path, name = split_scorer(scorer)
        scorer = f"{path.absolute()}:{name}"
    return replace(choice, tagger=tagger, model=_if_path(choice.model), word_cache=cache, scorer=scorer)


def _if_path(name: str | None) -> str | None:
    """The absolute path, if `name` is an existing path; otherwise `name`."""
    return str(Path(name).absolute()) if name is not None and Path(name).exists() else name


def make_corpus(choice: CorpusChoice) -> Corpus:
    """The chosen corpus, under the chosen name.

    Raises:
        ConfigError: `holdout` is set and the split is neither train nor valid, or a number is out of range.
        CascadeError: see `open_corpus`.
    """
    if choice.holdout is not None and choice.split not in ("train", "valid"):
        raise ConfigError(
            f"--holdout {choice.holdout} divides the train split of a corpus, and --split is {choice.split!r}; give "
            "--split valid for the records that are held out, or --split train for the others"
        )
    require_numbers(choice.num_documents, choice.holdout)
    corpus = open_corpus(
        choice.dataset,
        split=choice.split if choice.holdout is None else "train",
        text_field=choice.text_field,
        unit=choice.unit,
        form=choice.form,
        bad_records=choice.bad_records,
        revision=choice.revision,
        streaming=choice.streaming,
    ).first(choice.num_documents)
    if choice.holdout is not None:
        corpus = corpus.side(choice.holdout, held=choice.split == "valid")
    return corpus if choice.name is None else replace(corpus, name=choice.name)


def _told(corpus: Corpus, what: str, on_pass: OnPass) -> Iterator[Document]:
    """The documents of a corpus; calls `on_pass` with the number read so far."""
    total, number = known_records(corpus), 0
    on_pass(what, 0, total)
    for number, document in enumerate(corpus.documents(), start=1):
        yield document
        if number % _TOLD_EVERY == 0:
            on_pass(what, number, total)
    on_pass(what, number, number)


def _word_counts(corpus: Corpus, prepared: Path, workers: int, on_pass: OnPass) -> Path:
    """The file with the word counts of a corpus, made now if it does not exist."""
    folder = prepared / f"word_counts_{fingerprint(corpus.source)}"
    table = folder / _WORD_COUNTS_FILE
    if not table.is_file():
        with complete_folder(folder) as temporary:
            documents = _told(corpus, "counting words", on_pass)
            frequencies = document_frequencies(documents, folder=temporary, workers=workers)
            save_frequencies(frequencies, temporary / table.name)
    return table


def word_counts_of(folder: Path) -> Path:
    """The file with the word counts by which the importance of a dataset of tfidf was found.

    Another part of the corpus needs them: with counts of its own, its stages would keep other words than those that a
    cascade was trained on.

    Raises:
        ConfigError: the dataset is of another method.
        DataError: it is missing or incomplete, or its word counts are no longer there.
    """
    settings = read_identity(folder).settings
    if settings.method not in COUNTED:
        raise ConfigError(
            f"--word-counts is {folder}, which was made with the method {settings.method} and has none; name the "
            f"folder of the training data that `cdllm preprocess {COUNTED[0]}` printed"
        )
    for table in sorted(folder.glob(f"{PREPARED_FOLDER}/word_counts_*/{_WORD_COUNTS_FILE}")):
        # A dataset that was made again from another corpus leaves the counts of the former one.
        if TfidfScorer(load_frequencies(table)).describe().items() <= settings.scorer.items():
            return table
    raise DataError(
        f"--word-counts is {folder}, in which the word counts that it was made with (table_sha256 "
        f"{settings.scorer.get('table_sha256')}) are not there: they lie in {PREPARED_FOLDER}/ of the dataset whose "
        "words were counted; name that one, or make it again"
    )


def _tokenizer_source(job: Job, corpus: Corpus, prepared: Path, on_pass: OnPass) -> str:
    """The path or hub id of a job's tokenizer; one that is to be trained is trained now, unless it exists."""
    if job.tokenizer is not None:
        path = Path(job.tokenizer)
        return str(path.resolve()) if path.exists() else job.tokenizer
    assert job.train_tokenizer is not None
    folder = prepared / f"tokenizer_{job.train_tokenizer}_{fingerprint(corpus.source)}"
    if not (folder / TOKENIZER_FILE).is_file():
        # The folder is made first, so that one that cannot be written is noticed before the corpus is read.
        with complete_folder(folder) as temporary:
            texts = (document.text for document in _told(corpus, "training the tokenizer", on_pass))
            Tokenizer.train(texts, job.train_tokenizer).save(temporary)
    return str(folder.resolve())
