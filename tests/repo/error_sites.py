"""Which of the package's error messages the tests have produced, so that none is written and never seen.

`record` notes where each of our errors is built while the tests run; `written_sites` lists where the source builds one.
"""

import ast
import functools
import os
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import beartype
import jaxtyping

from tests.repo.source_tree import CHECKOUT, PACKAGE_ROOT, modules, parse, project_files

ALLOWED = Path(__file__).with_name("unreached_errors.txt")
# Code that stands between the line that builds an error and its constructor: ours, and the run-time type checks.
BETWEEN = (
    str(PACKAGE_ROOT / "errors.py"),
    str(PACKAGE_ROOT / "checks.py"),
    os.path.dirname(beartype.__file__) + os.sep,
    os.path.dirname(jaxtyping.__file__) + os.sep,
    "<",
)


@dataclass(frozen=True)
class ErrorSite:
    """A place in the source that builds one of our errors; lines are inclusive."""

    path: str
    first_line: int
    last_line: int
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.first_line} {self.source}"

    def is_reached(self, reached: set[tuple[str, int]]) -> bool:
        return any((self.path, line) in reached for line in range(self.first_line, self.last_line + 1))


def record() -> set[tuple[str, int]]:
    """The set to which, from now on, every construction of one of our errors adds its (path, line)."""
    from cascaded_dllm.errors import CascadeError

    reached: set[tuple[str, int]] = set()

    def recording_init(self: CascadeError, *args: object) -> None:
        frame = _building_frame(sys._getframe(1))
        if frame is not None:
            path = os.path.relpath(frame.f_code.co_filename, PACKAGE_ROOT)
            reached.add((path.replace(os.sep, "/"), frame.f_lineno))
        super(CascadeError, self).__init__(*args)

    CascadeError.__init__ = recording_init  # type: ignore[assignment,method-assign]
    return reached


def _building_frame(frame: FrameType | None) -> FrameType | None:
    """The frame that builds the error if it belongs to the package, and not for instance to a test."""
    while frame is not None and (frame.f_code.co_filename.startswith(BETWEEN) or _is_constructor(frame)):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE_ROOT) + os.sep):
        return None
    return frame


def _is_constructor(frame: FrameType) -> bool:
    """Whether it is that of an error which takes more than a message."""
    return frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), Exception)


@functools.cache
def error_names() -> frozenset[str]:
    """Every class that derives from CascadeError, found in the source, wherever it is defined."""
    classes = [node for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    names = frozenset({"CascadeError"})
    while True:
        derived = {node.name for node in classes if names & {_last_name(base) for base in node.bases}}
        if derived <= names:
            return names
        names |= derived


@functools.cache
def check_names() -> frozenset[str]:
    """The functions of checks.py, which build an error for whoever calls them."""
    functions = [node for node in parse(PACKAGE_ROOT / "checks.py").body if isinstance(node, ast.FunctionDef)]
    return frozenset(node.name for node in functions if not node.name.startswith("_"))


@functools.cache
def written_sites() -> tuple[ErrorSite, ...]:
    """Every construction of one of our errors in the package, with or without arguments, and every check."""
    names = error_names() | check_names()
    return tuple(
        ErrorSite(module.relative_path, node.lineno, node.end_lineno or node.lineno, ast.unparse(node))
        for module in modules()
        if module.relative_path != "checks.py"
        for node in constructions(module.tree, names)
    )


def _allowed_fragments() -> list[tuple[str, str]]:
    """(path, part of the source) of every excused error; each line must also give the reason."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    fields = [[field.strip() for field in line.split(" | ")] for line in lines]
    assert [line for line, parts in zip(lines, fields, strict=True) if len(parts) != 3 or not all(parts)] == []
    return [(path, fragment) for path, fragment, _reason in fields]


def excused_sites(sites: Sequence[ErrorSite]) -> list[ErrorSite]:
    """Those of `sites` that no test need reach."""
    excused = []
    for path, fragment in _allowed_fragments():
        found = [site for site in sites if site.path == path and fragment in site.source]
        assert len(found) == 1, f"{ALLOWED.name}: {fragment!r} names {len(found)} errors of {path}, it must name one"
        excused += found
    return excused


def shortcomings(reached: set[tuple[str, int]]) -> list[str]:
    """What is wrong with a run of all tests that reached these places: errors never seen, and needless excuses."""
    sites = written_sites()
    excused = excused_sites(sites)
    missed = [site for site in sites if not site.is_reached(reached) and site not in excused]
    return [f"no test reaches {site}; test it, or excuse it with a reason in {ALLOWED.name}" for site in missed] + [
        f"{site} need not be excused in {ALLOWED.name}: it is reached" for site in excused if site.is_reached(reached)
    ]


def constructions(tree: ast.AST, names: Set[str]) -> Iterator[ast.expr | ast.Raise]:
    """Calls of an error class or a check, and `raise Name` without a call."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func) if _last_name(func) in names:
                yield node
            case ast.Raise(exc=ast.expr() as raised) if _last_name(raised) in names:
                yield node


def expectations_without_match(names: Set[str]) -> Iterator[str]:
    """`pytest.raises` of one of our errors that would accept any message."""
    for path in project_files():
        if path.suffix == ".py" and path.is_relative_to(CHECKOUT / "tests"):
            for node in ast.walk(parse(path)):
                if isinstance(node, ast.Call) and accepts_any_message(node, names):
                    yield f"{path.relative_to(CHECKOUT)}:{node.lineno}"


def accepts_any_message(call: ast.Call, names: Set[str]) -> bool:
    if _last_name(call.func) != "raises" or not call.args:
        return False
    expected = call.args[0].elts if isinstance(call.args[0], ast.Tuple) else [call.args[0]]
    is_ours = any(_last_name(node) in names for node in expected)
    return is_ours and not any(keyword.arg == "match" for keyword in call.keywords)


def _last_name(node: ast.expr) -> str:
    """The final name of a dotted expression, "" for anything else."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
