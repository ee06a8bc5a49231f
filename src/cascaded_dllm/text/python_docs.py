"""Real prose that every machine has: the docstrings of the running interpreter's standard library."""

import ast
import hashlib
import os
import platform
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.document import Document, Dropped, Part

# Tests, and vendored or generated trees: not prose, or not the standard library's own.
EXCLUDED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
)
MIN_CHARACTERS = 200
_EVERY = 20
"""Of this many documents, one is for validation and one for test."""
_BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")
"""The fields in which a syntax tree node holds statements, in source order."""


@final
@dataclass(frozen=True, slots=True)
class PythonDocs:
    """The documents of one split, train, valid or test, as a `Reader`."""

    split: str

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`; every part parses all modules, because a repeated docstring is kept only where it is first."""
        remainder = {"valid": 0, "test": 1}.get(self.split)
        places = enumerate(python_docs_documents())
        return part.of(
            document
            for number, document in places
            if (number % _EVERY == remainder if remainder is not None else number % _EVERY > 1)
        )

    def source(self) -> dict[str, object]:
        """See `Reader`."""
        sha256 = hashlib.sha256()
        for name, path in _modules(_standard_library()):
            sha256.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return {
            "kind": "python-docs",
            "python": platform.python_version(),
            "modules": sha256.hexdigest(),
            "min_characters": MIN_CHARACTERS,
            "split": self.split,
        }


def python_docs_documents(folder: Path | None = None) -> Iterator[Document]:
    """One document per module, in the order of their paths: its docstrings in source order, with blank lines between.

    Sources are parsed, never imported. Left out are docstrings that occurred earlier, modules with fewer than
    `MIN_CHARACTERS` characters of docstrings, and modules that this interpreter cannot parse.

    Args:
        folder: root of the sources; None for the standard library of this interpreter.

    Yields:
        Documents named by the path below `folder`, such as "json/decoder.py".

    Raises:
        DataError: no module has documentation, as where the standard library is installed without sources.
    """
    root = _standard_library() if folder is None else folder
    seen: set[str] = set()
    num_documents = 0
    for name, path in _modules(root):
        module = _parse(path)
        if module is None:
            continue
        docstrings = [docstring for docstring in dict.fromkeys(_docstrings(module)) if docstring not in seen]
        seen.update(docstrings)
        text = "\n\n".join(docstrings)
        if len(text) >= MIN_CHARACTERS:
            num_documents += 1
            yield Document(name, text)
    if num_documents == 0:
        raise DataError(
            f"{root} holds 0 Python modules with {MIN_CHARACTERS} or more characters of documentation; install the "
            "sources of the standard library, or choose another corpus"
        )


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """The names, such as "json/decoder.py", and paths of the modules below `root`, in the order of their names."""
    found: list[tuple[str, Path]] = []
    for folder, subfolders, names in os.walk(root):
        # In place, so that os.walk does not enter them: site-packages may hold far more than the library.
        subfolders[:] = [subfolder for subfolder in subfolders if subfolder not in EXCLUDED_FOLDERS]
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        found += ((path.relative_to(root).as_posix(), path) for path in paths)
    yield from sorted(found)


def _parse(path: Path) -> ast.Module | None:
    """The syntax tree, or None if this interpreter cannot parse the file."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            # Old modules have invalid escape sequences, about which a user can do nothing.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _docstrings(module: ast.Module) -> Iterator[str]:
    """The docstrings of a module and of every class and function inside, cleaned of indentation, in source order."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=True)
            if docstring:
                yield docstring
        # Only statements are visited, and parts of them that hold statements: an expression has no docstring.
        inside = [child for name in _BLOCKS for child in getattr(node, name, ())]
        waiting.extend(reversed(inside))
