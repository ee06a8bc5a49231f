from pathlib import Path

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.python_docs import MIN_CHARACTERS, python_docs_documents

LONG = "A module docstring " * 12


def write_module(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_docstrings_in_source_order(tmp_path: Path) -> None:
    source = f'''"""{LONG}"""
if True:
    class Outer:
        """Outer."""

        async def method(self):
            """Method
            in two lines.
            """
            def inner():
                "Inner."
        x = "not a docstring"
    def last(): "Last."
    def silent(): pass
    def blank(): "  "
'''
    write_module(tmp_path, "pkg/module.py", source)
    (document,) = python_docs_documents(folder=tmp_path)
    assert document.id == "pkg/module.py"
    assert document.text.split("\n\n") == [LONG, "Outer.", "Method\nin two lines.", "Inner.", "Last."]


def test_docstrings_inside_of_every_statement(tmp_path: Path) -> None:
    source = f'''"""{LONG}"""
try:
    def a(): "1"
except ValueError:
    def a(): "2"
else:
    def a(): "3"
finally:
    def a(): "4"
match a:
    case 0:
        def a(): "5"
    case _:
        with a, a:
            def a(): "6"
for _ in a:
    while a:
        def a(): "7"
    else:
        def a(): "8"
else:
    async def a(): "9"
b = lambda: a
'''
    write_module(tmp_path, "module.py", source)
    (document,) = python_docs_documents(folder=tmp_path)
    assert document.text.split("\n\n") == [LONG, *"123456789"]


def test_order_duplicates_and_short_modules(tmp_path: Path) -> None:
    write_module(tmp_path, "b.py", f'"""b {LONG}"""\ndef f(): "Same."\ndef g(): "Same."')
    write_module(tmp_path, "a/b.py", f'"""a {LONG}"""\ndef f(): "Same."')
    write_module(tmp_path, "copy.py", f'"""b {LONG}"""')
    write_module(tmp_path, "short.py", f'"""{"x" * (MIN_CHARACTERS - 1)}"""')
    write_module(tmp_path, "just.py", f'"""{"x" * MIN_CHARACTERS}"""')
    documents = list(python_docs_documents(folder=tmp_path))
    assert [document.id for document in documents] == ["a/b.py", "b.py", "just.py"]
    assert [document.text.count("Same.") for document in documents] == [1, 0, 0]


@pytest.mark.parametrize("folder", ["test", "x/tests", "idlelib", "site-packages/y", "lib2to3"])
def test_left_out_folders(tmp_path: Path, folder: str) -> None:
    write_module(tmp_path, f"{folder}/a.py", f'"""a {LONG}"""')
    write_module(tmp_path, "b.py", f'"""b {LONG}"""')
    assert [document.id for document in python_docs_documents(folder=tmp_path)] == ["b.py"]


def test_modules_that_do_not_parse_are_left_out(tmp_path: Path) -> None:
    write_module(tmp_path, "a.py", f'"""{LONG}"""')
    write_module(tmp_path, "broken.py", f'"""{LONG}"""\nprint "x"')
    write_module(tmp_path, "nul.py", f'"""{LONG}"""\n\0')
    (tmp_path / "latin.py").write_bytes(b'"""' + LONG.encode() + b'\xe9"""')
    write_module(tmp_path, "warns.py", f'"""\\d {LONG}"""')
    assert [document.id for document in python_docs_documents(folder=tmp_path)] == ["a.py", "warns.py"]


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 Python modules with 200 or more characters of documentation"):
        list(python_docs_documents(folder=tmp_path))


@pytest.mark.slow
def test_standard_library_of_this_interpreter() -> None:
    documents = list(python_docs_documents())
    names = [document.id for document in documents]
    assert names == sorted(set(names))
    assert {"json/decoder.py", "argparse.py"} <= set(names)
    assert not [name for name in names if "site-packages" in name or name.startswith("test/")]
    assert 1_000_000 < sum(len(document.text) for document in documents) < 3_000_000
    assert min(len(document.text) for document in documents) >= MIN_CHARACTERS
    for document in documents:
        document.text.encode()
