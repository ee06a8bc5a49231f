"""Which corpora read which options; an option that a corpus does not read is an error."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, TypeAlias

from cascaded_dllm.errors import ConfigError

Kind: TypeAlias = Literal["built in", "known by name", "files", "hub"]
"""Kinds of corpora: made on this machine, one of `HUB_CORPORA`, a path, any other dataset of the hub."""

_KINDS: Mapping[Kind, str] = {
    "built in": "is built in and has nothing to choose",
    "known by name": "is known by name, which decides how it is read",
    "files": "lies on this machine",
    "hub": "is a dataset of the hub",
}


class _Option(NamedTuple):
    """What an option does, which kinds of corpora read it, and which kinds of files of a path."""

    meaning: str
    readers: tuple[Kind, ...]
    suffixes: tuple[str, ...] = ()


_OPTIONS: Mapping[str, _Option] = {
    "text_field": _Option("names the field or column that holds the text", ("files", "hub"), ("jsonl", "parquet")),
    "unit": _Option("says what a document of a .txt file is", ("files",), ("txt",)),
    "form": _Option("says in which tokenised form the texts are", ("files", "hub"), ("txt", "jsonl", "parquet")),
    "bad_records": _Option("says what becomes of lines that cannot be read", ("files",), ("txt", "jsonl")),
    "revision": _Option("names a commit of a dataset of the hub", ("known by name", "hub")),
    "streaming": _Option("reads a dataset of the hub over the network", ("known by name", "hub")),
}


def require_read(dataset: str, kind: Kind, options: Mapping[str, object]) -> None:
    """Checks that a corpus reads all options that are given.

    Args:
        dataset: name of the corpus.
        kind: of the corpus.
        options: by name; None or False for an option that is not given.

    Raises:
        ConfigError: it does not read one of them.
    """
    for name, value in _given(options):
        if kind not in _OPTIONS[name].readers:
            raise _unread(name, value, f"{dataset} {_KINDS[kind]}")


def require_read_by_files(dataset: str, kinds: Collection[str], options: Mapping[str, object]) -> None:
    """Checks that each given option is read by some file of a path.

    Args:
        dataset: the path.
        kinds: of its files: txt, jsonl, parquet.
        options: see `require_read`.

    Raises:
        ConfigError: no file reads one of them.
    """
    for name, value in _given(options):
        if not set(kinds) & set(_OPTIONS[name].suffixes):
            raise _unread(name, value, f"{dataset} has only .{' and .'.join(sorted(kinds))}")


def _given(options: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(name, value) for name, value in options.items() if value is not None and value is not False]


def _unread(name: str, value: object, why: str) -> ConfigError:
    shown = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value!r}")
    return ConfigError(f"{shown} {_OPTIONS[name].meaning}, but {why}; leave it out")
