"""The data of a study: one tokenizer, and two folders for every method of its arms."""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from cascaded_dllm.assemble.preprocess import prepare
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.manifest import Settings, choice_of, fingerprint, learnt_choice
from cascaded_dllm.data.preprocessed import Identity, read_identity
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import DONE, TOKENIZER_FILE
from cascaded_dllm.importance.custom import read_scorer, split_scorer
from cascaded_dllm.preprocess.job import COUNTED, CUSTOM, EMBEDDED, TAGGED, CorpusChoice, Job, ScorerChoice
from cascaded_dllm.preprocess.pipeline import dataset_folder
from cascaded_dllm.processes import usable_cores
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study_config import PER_WORD, CorpusSettings, StudySettings, is_custom, preprocessing_method
from cascaded_dllm.text.corpora import BUILT_IN
from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.text.tokenizer import MOST_TOKENS, NUM_BYTES

DATA = "data"
"""Name of the part that all others need."""
# The characters that `preprocess.pipeline.check_name` refuses.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class MethodData:
    """The data of one method.

    Attributes:
        train: folder to train on.
        valid: folder to measure on.
        train_identity: settings and fingerprint of `train`.
        valid_identity: settings and fingerprint of `valid`.
    """

    train: Path
    valid: Path
    train_identity: Identity
    valid_identity: Identity

    @classmethod
    def open(cls, train: Path, valid: Path) -> "MethodData":
        """The data in two folders; raises a DataError if one holds none."""
        return cls(train, valid, read_identity(train), read_identity(valid))


def require_sound_corpus(corpus: CorpusSettings) -> None:
    """Checks what can be checked of a corpus before any work.

    Raises:
        ConfigError: nothing says which tokenizer it has, or two settings do, or a number is out of range.
    """
    if corpus.num_documents is not None:
        require_at_least("corpus.num_documents", corpus.num_documents, 1, hint="or null for all")
    if corpus.train_tokenizer is not None:
        hint = "all bytes and an end"
        require_at_least("corpus.train_tokenizer", corpus.train_tokenizer, NUM_BYTES + 1, most=MOST_TOKENS, hint=hint)
        if corpus.tokenizer is not None:
            raise ConfigError(
                f"corpus.tokenizer is {corpus.tokenizer} and corpus.train_tokenizer {corpus.train_tokenizer}; give "
                "one of them, a tokenizer that is there or the vocabulary size of one to train"
            )
    has_tokenizer = corpus.folders or corpus.dataset == "stories" or corpus.tokenizer is not None
    if not has_tokenizer and corpus.train_tokenizer is None:
        raise ConfigError(
            f"corpus.dataset is {corpus.dataset} and neither corpus.tokenizer (a file, a folder or a hub id) nor "
            "corpus.train_tokenizer (a vocabulary size) is given; give one"
        )


def study_data(study: StudySettings, folder: StudyFolder, callbacks: StudyCallbacks) -> dict[str, MethodData]:
    """The data of every method; the first process that finds it missing preprocesses it.

    Raises:
        ConfigError: a setting of the corpus is out of range.
        DataError: data is missing or damaged, or folders have different tokenizers or another method than they should.
    """
    require_sound_corpus(study.corpus)
    if not study.corpus.folders:
        with callbacks.waiting_for(folder, DATA):
            if not data_is_there(study, folder):
                _preprocess(study, folder, callbacks)
    return open_data(study, folder)


def data_is_there(study: StudySettings, folder: StudyFolder) -> bool:
    """Whether nothing remains to be preprocessed; folders that the study file names are taken to exist."""
    if study.corpus.folders:
        return True
    record = folder.record(DATA)
    folders = [path for pair in _folders(study, folder).values() for path in pair]
    is_whole = all((path / MANIFEST_FILE).is_file() for path in folders)
    return record is not None and record["of"] == fingerprint(plain_corpus(study)) and is_whole


def open_data(study: StudySettings, folder: StudyFolder) -> dict[str, MethodData]:
    """The data of every method, which must exist.

    Raises:
        DataError: it is missing or damaged, or folders have different tokenizers or another method than they should.
    """
    named = {entry.method: (_named(entry.train), _named(entry.valid)) for entry in study.corpus.folders}
    found = {method: MethodData.open(*pair) for method, pair in (named or _folders(study, folder)).items()}
    _require_alike(found)
    return {method: found[method] for method in study.methods}


def _named(folder: str) -> Path:
    """The path of a folder that the study file names.

    Raises:
        DataError: there is no such folder.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    remedy = "; give one that cdllm preprocess has written"
    if not path.is_absolute():
        remedy = f", looked for from {Path.cwd()}: begin where the study was begun, or give the whole path"
    raise DataError(f"corpus.folders gives {folder}, and there is no such folder{remedy}")


def _folders(study: StudySettings, folder: StudyFolder) -> dict[str, tuple[Path, Path]]:
    """The folders of the preprocessed data of every method, for training and for validation."""

    def of_split(method: str, split: str) -> Path:
        return dataset_folder(folder.data, preprocessing_method(method), _corpus_name(study, method), split)

    train, valid = study.corpus.train_split, study.corpus.valid_split
    return {method: (of_split(method, train), of_split(method, valid)) for method in study.methods}


def _preprocess(study: StudySettings, folder: StudyFolder, callbacks: StudyCallbacks) -> None:
    """Preprocesses the corpus with every method."""
    splits, tokenizer = (study.corpus.train_split, study.corpus.valid_split), _tokenizer(study, folder)
    for method in study.methods:
        for is_valid in (False, True):
            callbacks.raise_if_stopping()
            callbacks.say(f"data: {method}, {splits[is_valid]}")
            tokenizer = _make(study, folder, method, tokenizer, is_valid=is_valid)
    folder.settle(DATA, {"of": fingerprint(plain_corpus(study)), "status": DONE})


def _corpus_name(study: StudySettings, method: str) -> str:
    """The corpus name in folders, distinct for methods that would share one: both kinds of random, users' functions."""
    if is_custom(method):
        name = _named_after(method)
        alike = [other for other in study.methods if is_custom(other) and _named_after(other) == name]
        # Such as v1/mine.py:f and v2/mine.py:f.
        return f"{study.name}_{name}" + (f"_{fingerprint({'method': method})[:8]}" if len(alike) > 1 else "")
    return f"{study.name}_per_word" if method == PER_WORD else study.name


def _named_after(method: str) -> str:
    """Part of a folder name for a user's function, with any character replaced that the name may not have."""
    path, function = split_scorer(method)
    return _NOT_IN_NAMES.sub("-", f"{path.stem}_{function}")


def plain_corpus(study: StudySettings) -> dict[str, object]:
    """All that decides the data of a study, as plain values."""
    plain: dict[str, object] = {"name": study.name, "corpus": asdict(study.corpus), "methods": list(study.methods)}
    custom = {method: _sha256(method) for method in study.methods if is_custom(method)}
    # Absent in a study without such functions, so that its existing data keeps its fingerprint.
    return plain | {"scorers": custom} if custom else plain


def _sha256(method: str) -> str:
    """The hash of the file of a user's function."""
    return hashlib.sha256(read_scorer(method)).hexdigest()


def _tokenizer(study: StudySettings, folder: StudyFolder) -> str | None:
    """The tokenizer to preprocess with; None if it is yet to be trained on the corpus."""
    corpus = study.corpus
    if corpus.tokenizer is not None or corpus.train_tokenizer is not None:
        return corpus.tokenizer
    path = folder.data / "tokenizer"
    if not (path / TOKENIZER_FILE).is_file():
        story_tokenizer().save(path)
    return str(path / TOKENIZER_FILE)


def _make(study: StudySettings, folder: StudyFolder, method: str, tokenizer: str | None, *, is_valid: bool) -> str:
    """Preprocesses one split with one method; returns its tokenizer, for the others."""
    corpus = study.corpus
    assert corpus.dataset is not None
    dataset = corpus.valid_dataset if is_valid and corpus.valid_dataset is not None else corpus.dataset
    split = corpus.valid_split if is_valid else corpus.train_split
    own = "stories" if corpus.dataset == "stories" else None
    of_job = preprocessing_method(method)
    job = Job(
        CorpusChoice(dataset, split, _corpus_name(study, method), num_documents=corpus.num_documents),
        ScorerChoice(
            of_job,
            tagger=(corpus.tagger or own) if method in TAGGED else None,
            model=corpus.model if method in EMBEDDED else None,
            seed=corpus.random_seed if of_job == "random" else None,
            per="word" if method == PER_WORD else None,
            scorer=method if is_custom(method) else None,
            # Counted on the validation part, other words would be kept than in training.
            word_counts=str(_folders(study, folder)[method][0]) if is_valid and of_job in COUNTED else None,
        ),
        tokenizer,
        corpus.train_tokenizer if tokenizer is None else None,
        num_shards=1,
        out=str(folder.data),
    )
    task = prepare(job)
    # A built-in corpus takes less time than starting processes.
    task.on_processes(1 if dataset in BUILT_IN else usable_cores()).run(0)
    return tokenizer or str(task.plan.folder)


def _method_of(settings: Settings) -> str:
    """What a study calls the method of a dataset; for a user's function, in the form that `_wanted` has."""
    if settings.method in CUSTOM:
        return learnt_choice(choice_of(settings.method, settings.scorer))
    is_per_word = settings.method == "random" and settings.scorer.get("per") == "word"
    return PER_WORD if is_per_word else settings.method


def _wanted(method: str, settings: Settings) -> str:
    """What `_method_of` returns for a dataset that has this method."""
    if not is_custom(method):
        return method
    path, function = split_scorer(method)
    # Data that was preprocessed elsewhere may be here without the file, which then cannot be compared.
    sha256 = _sha256(method) if path.exists() else settings.scorer.get("sha256")
    return learnt_choice({"function": f"{path.name}:{function}", "sha256": sha256})


def _require_alike(found: dict[str, MethodData]) -> None:
    """Checks that all data has one tokenizer, and that every folder holds the method that it is given for.

    Raises:
        DataError: tokenizers differ, or a folder holds another method.
    """
    first = next(iter(found.values())).train_identity.settings.tokenizer
    for method, data in found.items():
        for folder, (settings, _) in ((data.train, data.train_identity), (data.valid, data.valid_identity)):
            made_with, wanted = _method_of(settings), _wanted(method, settings)
            if made_with != wanted:
                now = f", now {wanted}," if is_custom(method) else ","
                raise DataError(
                    f"corpus.folders gives {folder} for the method {method}{now} and it was made with {made_with}; "
                    "give a folder of that method"
                )
            if settings.tokenizer != first:
                raise DataError(
                    f"{folder} has the tokenizer {settings.tokenizer} and other data of the study {first}; preprocess "
                    "all of it with one tokenizer"
                )
