"""The sources as the repository tests see them: files, parsed modules and what each one imports."""

import ast
import functools
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "cascaded_dllm"
PACKAGE_ROOT = CHECKOUT / "src" / PACKAGE
DIVIDED = "assemble"
"""The package whose modules are parts of their own: what reads no weights there must not import what does."""


@dataclass(frozen=True)
class Import:
    """One imported thing: `target` is dotted and absolute; `is_lazy` says that it is inside a function."""

    target: str
    line: int
    is_lazy: bool
    is_for_types: bool


@dataclass(frozen=True)
class Module:
    """One module of the package, parsed and not executed."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        """The top-level package or module it belongs to, "text" for cascaded_dllm.text.local; "" for the root."""
        return part_of(self.name)

    @property
    def relative_path(self) -> str:
        return self.path.relative_to(PACKAGE_ROOT).as_posix()

    @functools.cached_property
    def imports(self) -> list[Import]:
        """Everything the module imports, wherever the statement stands."""
        visitor = _ImportVisitor(self)
        visitor.visit(self.tree)
        return visitor.found


class _ImportVisitor(ast.NodeVisitor):
    def __init__(self, module: Module) -> None:
        is_package = module.path.name == "__init__.py"
        self.package = module.name.split(".") if is_package else module.name.split(".")[:-1]
        self.found: list[Import] = []
        self.function_depth = 0
        self.type_checking_depth = 0

    def _add(self, target: str, line: int) -> None:
        self.found.append(Import(target, line, self.function_depth > 0, self.type_checking_depth > 0))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        for alias in node.names:
            self._add(".".join([*base, *filter(None, [node.module]), alias.name]), node.lineno)

    def visit_If(self, node: ast.If) -> None:
        is_type_checking = ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        self.type_checking_depth += is_type_checking
        for statement in node.body:
            self.visit(statement)
        self.type_checking_depth -= is_type_checking
        for statement in node.orelse:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.function_depth += 1
        self.generic_visit(node)
        self.function_depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef


def part_of(name: str) -> str:
    """The part of ours that a dotted name leads to; "" for the root."""
    parts = name.split(".")[1:3]
    return ".".join(parts if parts[:1] == [DIVIDED] else parts[:1])


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module under src, sorted by name."""
    found = []
    for path in sorted(PACKAGE_ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(PACKAGE_ROOT).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found.append(Module(".".join(parts), path, parse(path)))
    return tuple(found)


def in_every_module(check: Callable[[Module], Iterable[str]]) -> list[str]:
    """What `check` finds, each with the name of the module."""
    return [f"{module.name}: {fault}" for module in modules() for fault in check(module)]


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file that is, or could next be, committed; in an unpacked archive, every file outside hidden folders."""
    if (CHECKOUT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=CHECKOUT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        candidates = [CHECKOUT / name for name in listing.split("\0") if name]
    else:
        candidates = [path for path in CHECKOUT.rglob("*") if not _is_generated(path.relative_to(CHECKOUT))]
    return tuple(sorted(path for path in candidates if path.is_file()))


def _is_generated(path: Path) -> bool:
    return any(part == "__pycache__" or (part.startswith(".") and part != ".ci") for part in path.parts)


def text_files() -> Iterator[tuple[Path, str]]:
    """The project's files that hold text, with it; weights and pictures are passed over."""
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content.decode("utf-8")
