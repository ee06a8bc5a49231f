"""The files that a path stands for: itself, those of a folder, or those that a pattern matches."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.text.local import SUFFIXES, checked_suffix, suffix_of
from cascaded_dllm.text.rows import unreadable


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern, with "*", "?" or "["."""
    return any(sign in str(path) for sign in "*?[")


def chosen_files(path: Path) -> list[Path]:
    """The files that a path stands for, in the order of their names.

    Raises:
        DataError: there is none, or one is empty, of an unknown kind, out of reach or has a name that is not UTF-8.
    """
    try:
        if path.exists():
            files = _files_of_folder(path) if path.is_dir() else [path]
        elif is_pattern(path):
            files = _matching_files(path)
        else:
            raise DataError(f"there is no file or folder {path}; check the name")
    except OSError as error:
        raise unreadable(path, error) from error
    for file in files:
        checked_suffix(file)
        _require_name(file)
    return files


def _files_of_folder(folder: Path) -> list[Path]:
    """The files of a folder, in order, except hidden ones; a broken link is among them, as a missing file.

    Raises:
        DataError: it has no file, or holds a folder.
    """
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if inner := next((path for path in found if path.is_dir()), None):
        raise DataError(
            f"the folder {folder} holds the folder {inner.name}; give a pattern, {folder}/* for the files "
            f"beside it or {folder}/**/* for all files, or move it"
        )
    if not found:
        raise DataError(f"the folder {folder} holds 0 files; put at least one of {', '.join(SUFFIXES)} into it")
    return found


def _matching_files(pattern: Path) -> list[Path]:
    """The files that match a pattern, in order, except hidden ones.

    Raises:
        DataError: there is none, "**" is part of a name, there is a link to a folder, which "**" does not follow, or a
            folder cannot be read.
    """
    root = _root(pattern)
    if wrong := next((part for part in pattern.parts if "**" in part and part != "**"), None):
        raise DataError(f"the pattern {pattern} has {wrong}; ** must stand between two slashes, inside a name use *")
    if "**" in pattern.parts and (link := next(_linked_folders(root), None)):
        raise DataError(
            f"{link} is a link to a folder, which ** does not follow; give a pattern that names it, or put the "
            "files themselves there"
        )
    names = [*pattern.relative_to(root).parts, *(["*"] if pattern.name == "**" else [])]
    _require_readable(root, names)
    found = sorted(path for path in _visible(root, names) if not path.is_dir())
    if not found:
        raise DataError(f"no file matches {pattern}; check the pattern")
    return found


def _visible(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """What a pattern of these names matches below a folder, except hidden files and all in hidden folders."""
    found = root.glob("/".join(names)) if names else iter([root])
    return (path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _require_readable(root: Path, names: Sequence[str]) -> None:
    """Checks the folders in which a pattern looks for files: `glob` passes over those that it cannot read.

    Raises:
        DataError: one cannot be read.
    """
    for depth in range(len(names)):
        for folder in _visible(root, names[:depth]):
            try:
                if folder.is_dir():
                    os.scandir(folder).close()
            except OSError as error:
                raise unreadable(folder, error) from error


def names_of(files: Sequence[Path], path: Path) -> list[str]:
    """The names of the files that a path stands for, in document ids and manifests: relative to the path's folder."""
    root = _root(path)
    return [file.relative_to(root).as_posix() for file in files]


def kinds_of(files: Iterable[Path]) -> set[str]:
    """Which of txt, jsonl and parquet the files are; .json counts as jsonl."""
    kinds = {suffix_of(file).split(".")[1] for file in files}
    return kinds - {"json"} | ({"jsonl"} if "json" in kinds else set())


def require_outside(folder: Path, path: Path) -> None:
    """Checks that files written to `folder` do not become part of the corpus `path`.

    Raises:
        ConfigError: they would.
    """
    root = _root(path).resolve()
    reaches = path.is_dir() or "**" in path.parts
    if reaches and root in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(
            f"the output folder {folder} lies inside the corpus {path}; choose another one with --out, or "
            "name the files of the corpus by a pattern without **"
        )


def _root(path: Path) -> Path:
    """The folder to which file names are relative: the deepest one of the path that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _linked_folders(root: Path) -> Iterator[Path]:
    """The links to folders below a folder, except hidden ones."""
    for folder, names, _ in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (path for path in (Path(folder, name) for name in names) if path.is_symlink())


def _require_name(file: Path) -> None:
    """Checks that the name of a file can be part of document ids.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise DataError(f"the name of the file {str(file)!r} is not UTF-8; rename it") from None
