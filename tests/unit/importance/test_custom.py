import gc
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance.base import Scorer
from cascaded_dllm.importance.custom import BACKGROUND, CustomScorer, read_scorer, split_scorer
from cascaded_dllm.preprocess.encoder import collector_paused

DOCUMENT = Path(__file__).parents[3] / "docs" / "preprocessing.md"
TEXTS = ["The cat saw the dog.", "", "\u65e5\u672c \U0001f600 ok"]
LONG_WORDS = """
import re

def f(texts):
    return [[(*word.span(), len(word.group())) for word in re.finditer(r"\\w+", text)] for text in texts]
"""
ROW = """
class Row:
    def __repr__(self):
        return "Row"

    def __iter__(self):
        raise RuntimeError
"""


def scorer(folder: Path, content: str, name: str = "f") -> CustomScorer:
    (folder / "mine.py").write_text(content)
    return CustomScorer(f"{folder / 'mine.py'}:{name}")


def giving(folder: Path, words: str) -> CustomScorer:
    """One that says the same of every text."""
    return scorer(folder, f"def f(texts):\n    return [{words} for text in texts]\n")


def test_words_are_those_of_the_function(tmp_path):
    found = scorer(tmp_path, LONG_WORDS)
    assert [[tuple(word) for word in words] for words in found.score(TEXTS)] == [
        [(0, 3, 3.0), (4, 7, 3.0), (8, 11, 3.0), (12, 15, 3.0), (16, 19, 3.0)],
        [],
        [(0, 2, 2.0), (5, 7, 2.0)],
    ]
    assert found.score([]) == []
    assert isinstance(found, Scorer)
    assert (found.method, found.background) == ("custom", BACKGROUND)
    assert np.float32(BACKGROUND) == np.finfo(np.float32).min


def test_iterators_and_numbers_of_libraries_will_do(tmp_path):
    content = """
import numpy as np

def f(texts):
    for text in texts:
        yield iter([[np.int64(0), len(text), np.float32(7)]] if text else ())
"""
    assert scorer(tmp_path, content).score(["ab", ""]) == [[(0, 2, 7.0)], []]


def test_class_is_made_once(tmp_path):
    content = """
class F:
    def __init__(self):
        self.calls = 0

    def __call__(self, texts):
        self.calls += 1
        return [[(0, 1, self.calls)] for text in texts]
"""
    found = scorer(tmp_path, content, "F")
    assert [found.score(["a"])[0][0].importance for _ in range(3)] == [1, 2, 3]


def test_class_is_not_made_to_plan_a_job(tmp_path):
    """Where a job is planned there may be no GPU for its model, or no room for a second one."""
    content = "class F:\n    def __init__(self, path):\n        pass\n\n    def __call__(self, texts):\n        pass\n"
    found = scorer(tmp_path, content, "F")
    with pytest.raises(DataError, match=r"mine.py:F raised TypeError: .*'path', for 1 texts"):
        found.score(["a"])


def test_garbage_of_the_function_is_collected(tmp_path):
    """Of a batch of gradients, what their graphs hold would fill a GPU."""
    found = scorer(tmp_path, "import gc\n\n\ndef f(texts):\n    return [[(0, 1, gc.isenabled())] for text in texts]\n")
    with collector_paused():
        assert found.score(["a"])[0][0].importance == 1
        assert not gc.isenabled()
    assert found.score(["a"])[0][0].importance == 1
    assert gc.isenabled()


def test_processes_of_the_function(tmp_path, monkeypatch):
    """They know the file by its name: a Pool that cannot find it waits for ever."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    content = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor


def words(text):
    return [(0, len(text), 2.5)]


def f(texts):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(words, texts))
"""
    (tmp_path / "scorer_with_processes.py").write_text(content)
    found = CustomScorer(f"{tmp_path / 'scorer_with_processes.py'}:f")
    assert found.score(["a", "bc"]) == [[(0, 1, 2.5)], [(0, 2, 2.5)]]
    del sys.modules["scorer_with_processes"]


@pytest.mark.parametrize("name", ["json.py", "re.py", "__main__.py", "two words.py", "a.b.py"])
def test_file_takes_the_place_of_no_module(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {key: module for key, module in sys.modules.items() if not key.startswith("cascaded_dllm_scorer_")}
    (tmp_path / name).write_text("def f(texts):\n    return [[] for text in texts]\n")
    assert CustomScorer(f"{tmp_path / name}:f").score(["a"]) == [[]]
    assert {key: sys.modules[key] for key in before} == before


def test_function_cannot_change_what_is_scored(tmp_path):
    texts = ["ab", "cd"]
    found = scorer(tmp_path, "def f(texts):\n    n = len(texts)\n    texts.clear()\n    return [[]] * n\n")
    assert found.score(texts) == [[], []]
    assert texts == ["ab", "cd"]


def test_what_is_run_is_what_is_named(tmp_path):
    """A file that is changed at once has another hash and another function, whatever its size and time of change."""
    first = giving(tmp_path, "[(0, 1, 1)]")
    other = giving(tmp_path, "[(0, 1, 2)]")
    assert first.describe() == {
        "function": "mine.py:f",
        "sha256": hashlib.sha256(b"def f(texts):\n    return [[(0, 1, 1)] for text in texts]\n").hexdigest(),
    }
    assert first.describe() != other.describe()
    assert [found.score(["a"])[0][0].importance for found in (first, other)] == [1, 2]


def test_modules_beside_the_file_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_the_scorer.py").write_text("VALUE = 5\n")
    content = """
def f(texts):
    import beside_the_scorer

    return [[(0, 1, beside_the_scorer.VALUE)] for text in texts]
"""
    assert scorer(tmp_path, content).score(["a"])[0][0].importance == 5
    # Behind everything, so that it hides nothing.
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("written", ["mine.py", "mine:f", "mine.py:", "mine.py:f()", ":f", "", "mine.pyc:f"])
def test_scorer_that_is_written_otherwise(written):
    with pytest.raises(
        ConfigError, match=rf"the scorer is '{re.escape(written)}'; give a file of Python and a function"
    ):
        split_scorer(written)


def test_tilde_is_the_home(tmp_path, monkeypatch):
    """No shell looks into --scorer=~/mine.py:f, or into the file of a study."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert split_scorer("~/mine.py:f") == (tmp_path / "mine.py", "f")
    assert split_scorer("~no_such_user/mine.py:f") == (Path("~no_such_user/mine.py"), "f")


def test_path_may_hold_colons():
    assert split_scorer("C:/x/mine.py:f") == (Path("C:/x/mine.py"), "f")


@pytest.mark.parametrize(("name", "reason"), [("nowhere.py", "No such file"), ("folder.py", "Is a directory")])
def test_file_that_cannot_be_read(tmp_path, name, reason):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError, match=rf"{name}:f cannot be read \({reason}"):
        read_scorer(f"{tmp_path / name}:f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\ny = x / 0\n", r"mine.py:f raised ZeroDivisionError in line 2: division by zero; repair it first"),
        ("x = 1\n\nf(texts:\n", r"mine.py:f raised SyntaxError in line 3: "),
        ("import no_such_module_here\n", r"ModuleNotFoundError in line 1: No module named 'no_such_module_here'"),
        ("import sys\n\nsys.exit(0)\n", r"mine.py:f raised SystemExit in line 3: 0; repair it first"),
        (
            "class f:\n    pass\n",
            r"f in \S*mine.py is <class '\S*f'>, which cannot be called with texts; name a function",
        ),
        (
            "def g(texts):\n    pass\nf = 3\n",
            r"f in \S*mine.py is 3, which cannot be called with texts; name a function",
        ),
        ("f: int\n", r"mine.py has no function f; name one of its functions"),
        ("def ff(texts):\n    pass\n", r"mine.py has no function f; did you mean mine.py:ff\?"),
    ],
)
def test_file_without_such_a_function(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        scorer(tmp_path, content)


def test_function_that_fails(tmp_path):
    found = scorer(tmp_path, "def f(texts):\n    return [[(0, 1, 1 / len(t))] for t in texts]\n")
    message = r"mine.py:f raised ZeroDivisionError in line 2: .*for 2 texts of which the first is 'a'.* another --name"
    with pytest.raises(DataError, match=message):
        found.score(["a", ""])
    with pytest.raises(DataError, match=r"raised TypeError: 'NoneType' object is not iterable, for 0 texts"):
        scorer(tmp_path, "def f(texts):\n    pass\n").score([])


def test_function_that_ends_the_program(tmp_path):
    """In a process of a pool it would end the command with nothing done, and without a word."""
    found = scorer(tmp_path, "import sys\n\n\ndef f(texts):\n    sys.exit()\n")
    with pytest.raises(DataError, match=r"mine.py:f raised SystemExit in line 5, for 1 texts"):
        found.score(["a"])


def test_words_for_other_texts(tmp_path):
    with pytest.raises(DataError, match=r"gave words for 1 texts, but got 2; give a list for every text"):
        scorer(tmp_path, "def f(texts):\n    return [[]]\n").score(["a", "b"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("[(0, 1, 1), (0, 2, 1)]", r"the characters 0 to 2 as a word after 1, in a text of 3 that begins with 'abc'"),
        ("[(1, 2, 1), (0, 1, 1)]", r"the characters 0 to 1 as a word after 2"),
        ("[(2, 4, 1)]", r"the characters 2 to 4 as a word after 0, in a text of 3"),
        ("[(1, 1, 1)]", r"the characters 1 to 1 as a word after 0"),
        ("[(-1, 1, 1)]", r"the characters -1 to 1 as a word after 0"),
        ("[(0, 1)]", r"gave \(0, 1\) for a word of a text that begins with 'abc'; give \(start, end, importance\)"),
        ("[(0.0, 1, 1)]", r"gave \(0.0, 1, 1\) for a word"),
        ("[(0, 1, 'x')]", r"gave \(0, 1, 'x'\) for a word"),
        ("[(0, 1, 10**400)]", r"gave \(0, 1, 1000+\.\.\. for a word"),
        ("[(0, 1, None)]", r"gave \(0, 1, None\) for a word"),
        ("[3]", r"gave 3 for a word"),
        # Rows of some libraries are read when they are looked at, and fail as they like.
        ("[Row()]", r"gave Row for a word"),
        ("[(0, 1, float('nan'))]", r"gave the importance nan to 'a'; give finite numbers below 3.403e\+38"),
        ("[(0, 2, -float('inf'))]", r"gave the importance -inf to 'ab'"),
        # As a float32 it would be the number of a token in no word.
        ("[(0, 1, -3.40282346e38)]", r"gave the importance -3.40282346e\+38 to 'a'"),
        ("[(0, 2, 1e39)]", r"gave the importance 1e\+39 to 'ab'"),
    ],
)
def test_what_is_no_word_of_the_text(tmp_path, words, message):
    with pytest.raises(DataError, match=message):
        scorer(tmp_path, f"def f(texts):\n    return [{words} for text in texts]\n{ROW}").score(["abc"])


def test_messages_are_short(tmp_path):
    with pytest.raises(DataError, match="for a word of a text that begins with") as caught:
        giving(tmp_path, "['x' * 10_000]").score(["abc" * 10_000])
    assert len(str(caught.value)) < 400
    # Such as a table of all texts, which lacks one.
    with pytest.raises(DataError, match=r"raised KeyError in line 2: 'abc.*\.\.\., for 1 texts") as caught:
        scorer(tmp_path, "def f(texts):\n    return [{}[text] for text in texts]\n").score(["abc" * 10_000])
    assert len(str(caught.value)) < 500


def test_examples_of_the_document(tmp_path, monkeypatch):
    blocks = re.findall(r"^ *```python\n *# (\w+\.py)\n(.*?)^ *```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == ["saliency.py", "looked_up.py"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scored.jsonl").write_text('{"text": "a dog", "words": [[2, 5, 0.5]]}\n')
    for (name, code), words in zip(blocks, ([(0, 1, 1), (2, 5, 3)], [(2, 5, 0.5)]), strict=True):
        indent = len(code.splitlines()[0]) - len(code.splitlines()[0].lstrip())
        Path(name).write_text("".join(f"{line[indent:]}\n" for line in code.splitlines()))
        assert CustomScorer(f"{name}:importance").score(["a dog"]) == [words]
