"""Reads the texts of a stage to continue from: of a sampling run, one of its files, or any text file."""

import json
from collections.abc import Iterator
from pathlib import Path

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.sample.control import GivenStage
from cascaded_dllm.sample.progress import SAMPLES_FILE
from cascaded_dllm.text.listing import texts_of_listing, with_line_feeds
from cascaded_dllm.text.tokenizer import Tokenizer


def read_given(path: Path, stage: int, tokenizer: Tokenizer) -> GivenStage:
    """The texts of stage `stage` in `path`.

    From a sampling run, which is a folder or its samples.jsonl, the ids are taken, with those of the stages before. Any
    other file is a listing such as sample_stage<k>.txt, which may have been edited, or a single text.

    Raises:
        ConfigError: there is no such file, or the run has no such stage or another tokenizer.
        DataError: the file is damaged, or is not text in UTF-8.
    """
    file = path / SAMPLES_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; name a sampling run, its {SAMPLES_FILE}, or a text file")
    content = _text_of(file)
    if file.suffix == ".jsonl":
        return GivenStage(stage=stage, ids=tuple(_stored(file, content, stage, tokenizer)))
    return GivenStage.of_texts(stage, texts_of_listing(content), tokenizer)


def read_outline(path: Path) -> str:
    """The text of an outline: that of the file, or the only one of a listing such as sample_stage<k>.txt.

    Raises:
        ConfigError: there is no such file, or it holds several texts.
        DataError: it is not text in UTF-8.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name a text file that holds the outline")
    texts = texts_of_listing(_text_of(path))
    if len(texts) != 1:
        raise ConfigError(
            f"{path} holds {len(texts)} texts, each before a line of 80 '=', and an outline is one; leave one of them"
        )
    return texts[0]


def _text_of(file: Path) -> str:
    """The text of a file, without a byte-order mark and the line ends of some editors; see `with_line_feeds`.

    Raises:
        DataError: it is not text in UTF-8.
    """
    try:
        return with_line_feeds(file.read_bytes().decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def _stored(file: Path, content: str, stage: int, tokenizer: Tokenizer) -> Iterator[tuple[tuple[int, ...], ...]]:
    """For every text of a run, the ids of the stages up to `stage` that the run holds."""
    # Not splitlines, which also breaks at characters that a text may contain.
    lines = content.removesuffix("\n").split("\n") if content else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            written_with = record["settings"]["tokenizer_fingerprint"]
            stages = {entry["stage"]: tuple(map(int, entry["ids"])) for entry in record["stages"]}
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"line {number} of {file} is damaged ({error!r}); remove it, or give another run"
            ) from error
        if written_with != tokenizer.fingerprint:
            raise ConfigError(
                f"{file} was written with the tokenizer {written_with}, and the stages have {tokenizer.fingerprint}, "
                "for which its ids mean something else; give its texts instead, sample_stage<k>.txt"
            )
        if stage not in stages:
            raise ConfigError(
                f"from_stage is {stage}, and {file} has the stages {', '.join(map(str, sorted(stages)))}; choose one "
                "of them"
            )
        yield tuple(stages[k] for k in sorted(stages) if k <= stage)
