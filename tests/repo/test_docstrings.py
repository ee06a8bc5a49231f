"""Docstrings tell the truth: a section that is there fits the signature. Which sections are there is up to the author.

A checker that demands all sections once there is one would force "path: the path" into every function that has
something to say about its errors.
"""

import ast
import builtins
import inspect
import re
from collections.abc import Iterator, Set

import pytest

from tests.repo.error_sites import error_names
from tests.repo.source_tree import Module, in_every_module

SECTIONS = {"Args", "Attributes", "Returns", "Yields", "Raises"}
MISNAMED = {"Arguments", "Params", "Parameters", "Return", "Yield", "Raise", "Exceptions", "Throws"}
HEADER = re.compile(r"^(\w+):$")
ENTRY = re.compile(r"^ {2,}\*{0,2}([\w.]+(?:, \*{0,2}[\w.]+)*)(?: \([^)]*\))?:(?: |$)")

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines of every section, still indented; continuation lines are indented deeper than entries."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        header = HEADER.match(line)
        if header and header[1] in SECTIONS | MISNAMED:
            lines = found.setdefault(header[1], [])
        elif line and not line.startswith(" "):
            lines = []
        else:
            lines.append(line)
    return found


def entry_names(lines: list[str]) -> list[str]:
    """The names that a section describes, in its order."""
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    entries = [line for line in lines if line.strip() and len(line) - len(line.lstrip()) == min(indents)]
    names: list[str] = []
    for line in entries:
        match = ENTRY.match(line)
        names += match[1].replace("*", "").split(", ") if match else [f"({line.strip()})"]
    return names


def parameters(node: Documented) -> list[str]:
    """What the Args section may name: arguments, or for a class those of __init__ and its annotated fields."""
    if isinstance(node, ast.ClassDef):
        fields = [item.target.id for item in node.body if is_field(item)]  # type: ignore[attr-defined]
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return fields + [name for init in inits for name in parameters(init)]
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args, arguments.vararg]
    every = [argument.arg for argument in [*positional, *arguments.kwonlyargs, arguments.kwarg] if argument]
    return [name for name in every if name not in {"self", "cls"}]


def is_field(item: ast.stmt) -> bool:
    return isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)


def faults(node: Documented, errors: Set[str]) -> list[str]:
    """What a docstring claims and the code does not have."""
    found = sections(ast.get_docstring(node) or "")
    result = [f"write the section {name} as one of {sorted(SECTIONS)}" for name in found if name in MISNAMED]
    result += [f"the section {name} is empty" for name, lines in found.items() if not "".join(lines).strip()]
    if "Args" in found:
        named, known = entry_names(found["Args"]), parameters(node)
        result += [f"there is no argument {name}" for name in named if name not in known]
        if named != sorted(named, key=lambda name: known.index(name) if name in known else 0):
            result.append(f"arguments in another order than in the signature: {named}")
    if "Raises" in found:
        raised = [name for name in entry_names(found["Raises"]) if "." not in name]
        result += [f"{name} is no exception" for name in raised if name not in errors and not is_builtin_error(name)]
    if not isinstance(node, ast.ClassDef):
        returns = ast.unparse(node.returns) if node.returns else "None"
        if "Returns" in found and returns in {"None", "NoReturn", "Never"}:
            result.append(f"Returns is described, the annotation says {returns}")
        if "Yields" in found and not re.match(r"(contextlib\.)?(Async)?(Iterator|Generator|Iterable)\b", returns):
            result.append(f"Yields is described, the annotation says {returns}")
    return [f"{node.name} (line {node.lineno}): {fault}" for fault in result]


def is_builtin_error(name: str) -> bool:
    value = getattr(builtins, name, None)
    return isinstance(value, type) and issubclass(value, BaseException)


def test_sections_fit_the_signature() -> None:
    errors = error_names()

    def faults_of(module: Module) -> Iterator[str]:
        for node in ast.walk(module.tree):
            if isinstance(node, Documented):
                yield from faults(node, errors)

    assert in_every_module(faults_of) == []


GOOD = '''
def f(path: Path, *, steps: int = 1, **names: int) -> int:
    """The number of lines.

    Why: because
    it says so.

    Args:
        path: where, for instance
            a.txt: a file.
        steps: how many.

    Returns:
        At least 1.

    Raises:
        DataError: it is missing.
        ValueError, json.JSONDecodeError: it is broken.
    """
'''


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path: where", "folder: where", "there is no argument folder"),
        ("path: where", "names: where", "in another order"),
        ("Args:", "Arguments:", "write the section Arguments"),
        ("-> int:", "-> None:", "Returns is described"),
        ("Returns:", "Yields:", "Yields is described"),
        ("DataError", "DataFault", "DataFault is no exception"),
        ("At least 1.", "", "Returns is empty"),
        ("steps: how", "how", "there is no argument (how many.)"),
    ],
)
def test_a_false_docstring_is_found(old: str, new: str, message: str) -> None:
    [good] = ast.parse(GOOD).body
    [bad] = ast.parse(GOOD.replace(old, new)).body
    assert isinstance(good, Documented)
    assert isinstance(bad, Documented)
    assert faults(good, {"DataError"}) == []
    [fault] = faults(bad, {"DataError"})
    assert message in fault


def test_fields_and_init_are_arguments_of_a_class() -> None:
    source = 'class A:\n    """X.\n\n    Args:\n        a: a.\n        b: b.\n    """\n    a: int\n'
    source += "    def __init__(self, b): ..."
    [node] = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert faults(node, set()) == []
