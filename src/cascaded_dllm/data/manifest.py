"""The manifest of a preprocessed folder: the settings with which it was made, and the counts of its content."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, final

from cascaded_dllm.errors import DataError
from cascaded_dllm.os_errors import remedy_for
from cascaded_dllm.versions import installed_versions

FILE_NAME = "manifest.json"
FORMAT_VERSION = 2
# Their versions may explain a difference between two results; they do not decide whether a shard is kept.
_LIBRARIES = (
    "numpy",
    "pyarrow",
    "tokenizers",
    "datasets",
    "spacy",
    "textblob",
    "scikit-learn",
    "sentence-transformers",
    "torch",
)


_FILES_NAMED = 8
"""Maximum number of differing files of a corpus that a message names."""
_FILES_DIGEST = "files_sha256"


@final
class DamagedError(DataError):
    """A file of a folder is missing, truncated or changed, as after a killed process or with a full disk.

    Only a damaged folder may be overwritten without asking; any other one that cannot be used may be somebody's work.
    """


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the records of a dataset.

    Attributes:
        dataset: name of the corpus.
        split: of the corpus, such as "train".
        source: where the documents come from and how they are read: files with their hashes (see `brief`) or a hub id
            with its revision, the detokenizer, the unit of a document.
        num_shards: shards of the dataset; record j of the corpus lies in shard j % num_shards.
        method: selection rule for the importance values.
        scorer: the scorer's description of itself.
        background: importance of tokens outside all words, and of padding.
        tokenizer: fingerprint of the tokenizer.
        vocab_size: its number of real tokens.
        eos_id: id of its end-of-text token.
    """

    dataset: str
    split: str
    source: dict[str, Any]
    num_shards: int
    method: str
    scorer: dict[str, Any]
    background: float
    tokenizer: str
    vocab_size: int
    eos_id: int

    def brief(self) -> "Settings":
        """The same settings, with a list of the corpus' files, if any, replaced by the number of files and a hash."""
        files = self.source.get("files")
        if not isinstance(files, list):
            return self
        digest = hashlib.sha256(_canonical(files)).hexdigest()
        return replace(self, source=self.source | {"files": len(files), _FILES_DIGEST: digest})

    def differences(self, other: "Settings") -> str:
        """The fields in which two settings differ, as "field: mine, not theirs"; empty if they are equal.

        Of the files of a corpus, only those that differ are named, and none if one of the settings is brief.
        """
        one, two = self, other
        if _FILES_DIGEST in self.source or _FILES_DIGEST in other.source:
            one, two = self.brief(), other.brief()
        pairs = [(item.name, getattr(one, item.name), getattr(two, item.name)) for item in fields(self)]
        return "; ".join(_difference(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs)


def choice_of(method: str, scorer: Mapping[str, Any]) -> dict[str, Any] | None:
    """What decides, besides the method, which words of a text are kept; None if a model need not know more.

    For the method "random", how numbers were drawn: "per" occurrence or word, and the "seed". For "custom", the
    "function" and the "sha256" of its file, or of the description if an object in its place has no "sha256".

    Args:
        method: of a dataset, or of stages.
        scorer: the scorer's description of itself, which contains "per" only for words.
    """
    match method:
        case "random":
            return {"per": scorer.get("per", "occurrence"), "seed": scorer.get("seed")}
        case "custom":
            return {
                "function": str(scorer.get("function", "a scorer")),
                "sha256": str(scorer.get("sha256", fingerprint(dict(scorer)))),
            }
    return None


def learnt_choice(choice: Mapping[str, Any] | None) -> str:
    """The part of `choice` that a model learns, such as "chance per word with the seed 3"; empty for None.

    If numbers are drawn per word, the seed decides which words are kept. If they are drawn per occurrence, it is left
    out, since the texts of all seeds have the same law.

    Args:
        choice: see `choice_of`.
    """
    if choice is None:
        return ""
    if "function" in choice:
        return f"{choice['function']} of SHA-256 {str(choice['sha256'])[:12]}"
    return f"chance per {choice['per']}" + (f" with the seed {choice['seed']}" if choice["per"] == "word" else "")


def _difference(name: str, mine: Any, theirs: Any) -> str:
    """A field in which settings differ, as "field: mine, not theirs"."""
    if name != "source":
        return f"{name}: {mine!r}, not {theirs!r}"
    keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
    return f"source: {', '.join(_difference_of_source(key, mine.get(key), theirs.get(key)) for key in sorted(keys))}"


def _difference_of_source(key: str, mine: Any, theirs: Any) -> str:
    """A difference in the source of settings; of lists of files, those that differ are named."""
    if not (isinstance(mine, list) and isinstance(theirs, list)):
        shown = [f"{len(value):,}" if isinstance(value, list) else repr(value) for value in (mine, theirs)]
        return f"{key} {shown[0]}, not {shown[1]}"
    ours, others = ({file["name"]: file for file in files} for files in (mine, theirs))
    differing = sorted(file for file in ours.keys() | others.keys() if ours.get(file) != others.get(file))
    if not differing:
        return "the same files in another order"
    more = f" and {len(differing) - _FILES_NAMED} more" if len(differing) > _FILES_NAMED else ""
    return f"other content or another list of files, in {', '.join(differing[:_FILES_NAMED])}{more}"


@final
@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of what a shard or a dataset contains and of what was dropped, which add up to the input.

    Attributes:
        documents: kept documents.
        tokens: of the kept documents.
        characters: of the kept documents.
        dropped: number of dropped records, by reason.
        dropped_characters: of the dropped records.
    """

    documents: int = 0
    tokens: int = 0
    characters: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_characters: int = 0

    @property
    def records(self) -> int:
        """Number of all records of the input, kept or dropped."""
        return self.documents + sum(self.dropped.values())

    def __add__(self, other: "Counts") -> "Counts":
        reasons = sorted(self.dropped.keys() | other.dropped.keys())
        return Counts(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.characters + other.characters,
            {reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons},
            self.dropped_characters + other.dropped_characters,
        )


def fingerprint(value: Mapping[str, Any]) -> str:
    """16 hex digits that are equal for equal values, whatever the order of the keys."""
    return hashlib.sha256(_canonical(value)).hexdigest()[:16]


def _canonical(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Bytes that are the same for equal values, whatever the order of the keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def header(kind: str) -> dict[str, Any]:
    """The first fields of a manifest: the kind of the folder, its format, and the versions that wrote it."""
    return {"kind": kind, "format_version": FORMAT_VERSION, "versions": installed_versions(_LIBRARIES)}


def read_manifest(folder: Path, kind: str, *, whole: Path | None = None) -> dict[str, Any]:
    """The manifest of `folder`.

    Args:
        folder: the folder that it describes.
        kind: the kind that the folder should have.
        whole: the folder to remove if the format is old, of which `folder` is a part; None for `folder` itself.

    Raises:
        DamagedError: there is no manifest, or it is broken.
        DataError: it cannot be read, or describes another kind of folder or another format.
    """
    path = folder / FILE_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except NotADirectoryError as error:
        raise DataError(
            f"{folder} is a file, but a {kind} is a folder; make one from it with `cdllm preprocess`, and name the "
            "folder that it prints"
        ) from error
    except FileNotFoundError as error:
        lack = f"it has no {FILE_NAME}" if folder.is_dir() else "there is no such folder"
        raise DamagedError(
            f"{folder} is not a complete {kind}: {lack}; name the folder that preprocessing printed, or preprocess "
            "again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise DamagedError(f"{path} is broken ({error}); remove {folder} and preprocess again") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else manifest
        meant = f"{folder.parent}, of which it is a part" if found == "shard" else "a folder made by preprocessing"
        raise DataError(f"{path} describes {found!r}, not {kind!r}; name {meant}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {manifest.get('format_version')!r}, and this version of the package reads "
            f"{FORMAT_VERSION}; remove {folder if whole is None else whole} and preprocess again"
        )
    return manifest


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file of preprocessed data that the system cannot read."""
    remedy = remedy_for(error, "check the disk and the rights to read it")
    return DataError(f"{path} cannot be read ({error.strerror}); {remedy}")


def parse_settings(manifest: Mapping[str, Any], path: Path) -> Settings:
    """The settings in a manifest.

    Raises:
        DataError: fields are missing or unknown.
    """
    try:
        return Settings(**manifest["settings"])
    except (KeyError, TypeError) as error:
        raise _incomplete(path, error) from error


def parse_counts(manifest: Mapping[str, Any], path: Path) -> Counts:
    """The counts in a manifest.

    Raises:
        DataError: fields are missing or unknown.
    """
    found = manifest.get("counts")
    # The defaults of the fields are for sums, not for manifests with missing fields.
    if not isinstance(found, dict) or found.keys() != {item.name for item in fields(Counts)}:
        raise _incomplete(path, KeyError("counts"))
    return Counts(**found)


def parse_text(manifest: Mapping[str, Any], key: str, path: Path) -> str:
    """One text field of a manifest.

    Raises:
        DataError: it is missing or not a text.
    """
    value = manifest.get(key)
    if not isinstance(value, str):
        raise _incomplete(path, KeyError(key))
    return value


def _incomplete(path: Path, error: Exception) -> DataError:
    return DataError(f"{path / FILE_NAME} is incomplete ({error}); remove {path} and preprocess again")
