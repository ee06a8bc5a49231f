"""Opens a corpus by its name or path."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.corpus_options import require_read, require_read_by_files
from cascaded_dllm.text.file_choice import is_pattern
from cascaded_dllm.text.forms import FORMS, Form
from cascaded_dllm.text.hub import open_hub
from cascaded_dllm.text.hub_corpora import HUB_CORPORA, HubCorpus
from cascaded_dllm.text.local import BAD_RECORDS, DEFAULT_UNIT, SUFFIXES, UNITS, Unit
from cascaded_dllm.text.local_files import LocalFiles
from cascaded_dllm.text.python_docs import PythonDocs
from cascaded_dllm.text.rows import DEFAULT_TEXT_FIELD, unreadable
from cascaded_dllm.text.stories import Stories

BUILT_IN = ("stories", "python-docs")
"""Corpora that every machine has."""

SPLITS = ("train", "valid", "test")

_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[^:]+))?")


def open_corpus(
    dataset: str | Path,
    *,
    split: str,
    text_field: str | None = None,
    unit: str | None = None,
    form: str | None = None,
    bad_records: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Corpus:
    """The corpus called `dataset`: built in, known by name, a file or folder, or any dataset of the hub.

    Args:
        dataset: stories or python-docs; one of `HUB_CORPORA`; a path, as a `Path`, or written ./name if it is called
            like one of these; or a dataset of the hub, as owner/name or owner/name:configuration.
        split: train, valid or test, or a name of the dataset's own; ignored for a path.
        text_field: the field or column that holds the text, DEFAULT_TEXT_FIELD if None; a corpus known by name has its
            own.
        unit: what one document of a .txt file is, see `LocalFiles`. If None, DEFAULT_UNIT, or a line if `form` is
            given.
        form: the form in which the texts of a path or a dataset are written, one of `FORMS`; None for plain text.
        bad_records: of a path: whether a record that cannot be read, such as a line that is not JSON, is an error
            ("refuse", the default) or is dropped and counted ("drop").
        revision: of a dataset of the hub: a commit, branch or tag.
        streaming: of a dataset of the hub: whether to read it over the network each time, instead of downloading it
            first.

    Raises:
        ConfigError: there is no such name, split, unit or form, or the corpus does not read an option.
        DataError: the path does not exist, one of its files is empty or of an unknown kind, or the hub has no such
            dataset or column or does not answer.
        MissingExtraError: the corpus is on the hub and the datasets library is not installed.
    """
    known_unit = None if unit is None else one_of("the unit", unit, UNITS)
    known_form = None if form is None else one_of("the form", form, FORMS)
    of_files = {"text_field": text_field, "unit": unit, "bad_records": bad_records}
    options = of_files | {"form": form, "revision": revision, "streaming": streaming}
    if isinstance(dataset, Path):
        # As a text it could be a name: a `Path` does not keep the ./ that says otherwise.
        dataset = str(dataset.expanduser().absolute())
    if dataset in BUILT_IN:
        require_read(dataset, "built in", options)
        return _built_in(dataset, split)
    path = Path(dataset).expanduser()
    if dataset in HUB_CORPORA:
        require_read(dataset, "known by name", options)
        hub = HUB_CORPORA[dataset]
    elif dataset and (_exists(path) or is_pattern(path)):
        require_read(dataset, "files", options)
        return _local(path, of_files, known_unit, known_form)
    else:
        hub = _hub_corpus(dataset, text_field, known_form)
        require_read(dataset, "hub", options)
    return Corpus(_folder_name(dataset), open_hub(hub, split=split, revision=revision, streaming=streaming))


def _built_in(dataset: str, split: str) -> Corpus:
    one_of(f"the split of {dataset}", split, SPLITS)
    return Corpus(dataset, Stories.of_split(split) if dataset == "stories" else PythonDocs(split))


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Raises:
        DataError: the system cannot tell.
    """
    try:
        return path.exists()
    except OSError as error:
        raise unreadable(path, error) from error


def _local(path: Path, options: Mapping[str, str | None], unit: Unit | None, form: Form | None) -> Corpus:
    if form is not None and unit not in (None, "line"):
        raise ConfigError(f"the form {form} is read line by line, but the unit is {unit}; leave one of them out")
    text_field, bad_records = options["text_field"], options["bad_records"]
    # Absolute: the processes that read parts may have another working directory.
    files = LocalFiles(
        path.absolute(),
        DEFAULT_TEXT_FIELD if text_field is None else text_field,
        (unit or DEFAULT_UNIT) if form is None else "line",
        form,
        "refuse" if bad_records is None else one_of("--bad-records", bad_records, BAD_RECORDS),
    )
    require_read_by_files(str(path), files.kinds(), options)
    files.checked_files()  # A fault is reported here, not later by a process that reads a part.
    named = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    return Corpus(_folder_name(named.name.split(".")[0]), files)


def _hub_corpus(dataset: str, text_field: str | None, form: Form | None) -> HubCorpus:
    """The dataset of the hub with the name owner/name or owner/name:configuration.

    Raises:
        ConfigError: the name has another form.
        DataError: the name looks like a path.
    """
    if dataset.startswith((".", "/", "~")) or dataset.lower().endswith(SUFFIXES):
        raise DataError(f"{dataset} is not a file or folder; check the path")
    match = _HUB_ID.fullmatch(dataset)
    if match is not None:
        column = DEFAULT_TEXT_FIELD if text_field is None else text_field
        return HubCorpus(match["id"], match["config"], text_field=column, form=form)
    known = [*BUILT_IN, *HUB_CORPORA]
    near = difflib.get_close_matches(dataset.lower(), known, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"{dataset!r} is not a corpus, file or folder; {meant}Give one of {', '.join(known)}, a path, or owner/name of "
        "a dataset on the Hugging Face hub"
    )


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "corpus"
