"""What the file tree must not hold: paths of one machine, leftovers, swallowed errors, folders without tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.repo.source_tree import CHECKOUT, PACKAGE_ROOT, Module, in_every_module, parse, project_files, text_files

# Preceded by a letter, a dot or a slash it is part of an address or of a longer path, and not the root of a disk.
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:home|Users|scratch|mnt|root|lustre\w*)/")
LEFTOVER = re.compile(r"\b(?:TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
GLOBAL_SEED = re.compile(r"torch(?:\.\w+)*\.(?:manual_seed(?:_all)?|seed)|(?:(?:np|numpy)\.)?random\.seed")
HOLDS_NO_TESTS = {"golden", "reference"}


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def matching_lines(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def swallowing_handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    """Handlers of everything, `except:` and `except Exception:`, also inside a tuple, that may keep what they catch.

    Two forms keep nothing: cleaning up before a final bare `raise`, and passing on, first of all, whatever is not
    Exception itself, for a library that raises nothing narrower.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            is_broad = re.search(r"\b(Base)?Exception\b", caught)
            narrows = ast.unparse(node.body[0]) == f"if type({node.name}) is not Exception:\n    raise"
            leaves_early = any(isinstance(inner, ast.Return | ast.Continue | ast.Break) for inner in ast.walk(node))
            cleans_up = ast.unparse(node.body[-1]) == "raise" and not leaves_early
            if is_broad and not narrows and not cleans_up:
                yield node


def prints(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node


def test_no_path_of_a_machine() -> None:
    assert matching_lines(MACHINE_PATH) == []
    assert matching_lines(re.compile(re.escape(str(CHECKOUT)) + r"\b")) == []


def test_no_leftovers() -> None:
    assert matching_lines(LEFTOVER) == [], "finish it, or open an issue"


def test_no_module_of_odds_and_ends() -> None:
    assert [path for path in python_files() if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []


def test_no_error_is_swallowed() -> None:
    found = [(path, handler) for path in python_files() for handler in swallowing_handlers(parse(path))]
    # What a user's own code raises is not for us to know; it is passed on as the cause of an error of ours.
    own_code = PACKAGE_ROOT / "importance" / "custom.py"
    assert [f"{path}:{handler.lineno}" for path, handler in found if path != own_code] == []
    of_own_code = [handler for path, handler in found if path == own_code]
    assert all(ast.unparse(handler.body[-1]).endswith(f" from {handler.name}") for handler in of_own_code)


def test_library_does_not_print() -> None:
    def printing(module: Module) -> list[str]:
        return [] if module.part == "cli" else [f"line {call.lineno}" for call in prints(module.tree)]

    assert in_every_module(printing) == []


def test_global_generators_are_left_alone() -> None:
    assert in_every_module(lambda m: [f"line {e.lineno}: {ast.unparse(e)}" for e in global_seeds(m.tree)]) == []


def global_seeds(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that seed a generator all code shares, unless inside `with torch.random.fork_rng`, which puts it back."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items):
            continue
        if isinstance(node, ast.Call) and GLOBAL_SEED.fullmatch(ast.unparse(node.func)):
            yield node
        yield from global_seeds(node)


def test_every_test_folder_has_tests() -> None:
    files = {path for path in project_files() if path.is_relative_to(CHECKOUT / "tests")}
    folders = {path.parent for path in files if path.suffix == ".py"} - {CHECKOUT / "tests"}
    empty = [
        str(folder.relative_to(CHECKOUT))
        for folder in sorted(folders)
        if not HOLDS_NO_TESTS.intersection(folder.relative_to(CHECKOUT).parts)
        and not any(path.is_relative_to(folder) and path.name.startswith("test_") for path in files)
    ]
    assert empty == []


def test_every_test_file_is_collected() -> None:
    """A file of tests that pytest passes over, because of its name, would look like tests that pass."""
    defining = [
        path for path in python_files() if path.is_relative_to(CHECKOUT / "tests") and functions_named_test(path)
    ]
    assert [path.name for path in defining if not path.name.startswith("test_")] == []


def functions_named_test(path: Path) -> list[str]:
    return [node.name for node in parse(path).body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"]


def test_package_holds_only_what_the_wheel_should() -> None:
    allowed = {".py", ".typed", ".html", ".css", ".js", ".svg", ".json", ".txt", ".yaml", ".npz", ".safetensors", ".md"}
    inside = [path for path in project_files() if path.is_relative_to(PACKAGE_ROOT)]
    assert [str(path) for path in inside if path.suffix not in allowed] == []


def test_checks_find_what_they_look_for() -> None:
    home = "/".join(["", "home", "someone", "x"])
    assert MACHINE_PATH.search(f'path = "{home}"')
    assert MACHINE_PATH.search(f"cd {home}")
    assert not MACHINE_PATH.search(f"https://example.org{home}")
    assert LEFTOVER.search("# TO" + "DO: later")
    source = "try: pass\nexcept (KeyError, Exception): pass\ntry: pass\nexcept: pass\nx = print()"
    assert [handler.lineno for handler in swallowing_handlers(ast.parse(source))] == [2, 4]
    assert [call.lineno for call in prints(ast.parse(source))] == [5]
    seeds = "torch.manual_seed(1)\ntorch.Generator().manual_seed(1)\ndef f():\n  np.random.seed(1)\n"
    seeds += "with torch.random.fork_rng([]):\n  torch.manual_seed(1)"
    assert [node.lineno for node in global_seeds(ast.parse(seeds))] == [1, 4]
    for body, is_fault in [
        ("except OSError: pass", False),
        ("except BaseException:\n    close()\n    raise", False),
        ("except BaseException:\n    for x in y: break\n    raise", True),
        ("except Exception as error:\n    raise DataError() from error", True),
        (
            "except Exception as e:\n    if type(e) is not Exception:\n        raise\n    raise DataError() from e",
            False,
        ),
    ]:
        assert bool(list(swallowing_handlers(ast.parse(f"try: pass\n{body}")))) is is_fault, body
