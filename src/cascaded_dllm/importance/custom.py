"""Importance by a user's own function in a Python file."""

import contextlib
import difflib
import gc
import hashlib
import importlib.util
import operator
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance.base import JsonScalar, Word

BACKGROUND = float(np.finfo(np.float32).min)
"""Importance of a token outside all words: below every number that a function may return."""

# Largest importance: no number within it may become BACKGROUND when it is stored as a float32.
_MOST = float(np.nextafter(np.finfo(np.float32).max, np.float32(0)))

_Function: TypeAlias = Callable[[list[str]], Iterable[Any]]
"""Should return, for a list of texts, the words of each as (start, end, importance); this is checked."""

# Characters of a text or value in a message, and of the message of the user's error.
_SHOWN = 40
_SAID = 200


def split_scorer(scorer: str) -> tuple[Path, str]:
    """The file and the name in FILE.py:NAME.

    Raises:
        ConfigError: `scorer` has another form.
    """
    path, _, name = scorer.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ConfigError(
            f"the scorer is {scorer!r}; give a file of Python and a function in it, for example saliency.py:importance"
        )
    return Path(os.path.expanduser(path)), name


def read_scorer(scorer: str) -> bytes:
    """The content of the file in FILE.py:NAME.

    Raises:
        ConfigError: `scorer` has another form, or the file cannot be read.
    """
    path, _ = split_scorer(scorer)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the file of the scorer {scorer} cannot be read ({error.strerror}); name one that can, FILE.py:FUNCTION"
        ) from error


@final
class CustomScorer:
    """Scorer of the method "custom": a function returns words and their importance; larger numbers are kept longer.

    The function gets a list of texts, and returns for each of them its words in text order as (start, end, importance):
    the characters `text[start:end]`, and any finite number, which is stored as a float32. The words of a text must not
    depend on the other texts, which are those of a batch. The name may also be that of a class, of which every process
    that scores texts makes one object, without arguments and before its first text, and calls it.

    The file is run when the scorer is made, and its folder is appended to `sys.path`. Only the file is hashed, not the
    modules that it imports: if one of them changes, change the file too.

    Args:
        scorer: FILE.py:NAME.

    Raises:
        ConfigError: `scorer` has another form, the file cannot be read or run, or has nothing callable of that name.
    """

    method = "custom"
    background = BACKGROUND

    def __init__(self, scorer: str) -> None:
        path, function = split_scorer(scorer)
        self._path = path.absolute()
        self._name = f"{self._path.name}:{function}"
        content = read_scorer(scorer)
        self._sha256 = hashlib.sha256(content).hexdigest()
        self._function = self._found(content, function)

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their importance; see `Scorer.score`.

        Raises:
            DataError: the function fails, or what it returns is not the words of every text.
        """
        try:
            if isinstance(self._function, type):
                # Not earlier: the process that plans a job may lack a GPU, or the memory for its model.
                self._function = self._function()
            with _collector_at_work():
                found = [[*words] for words in self._function([*texts])]
        except (Exception, SystemExit) as error:
            raise DataError(
                f"the scorer {self._name} {self._said(error)}, for {len(texts)} texts of which the first is "
                f"{_short(texts[0]) if texts else None}; repair it and run the same command again, with another --name "
                "if shards are complete, since they belong to the old file"
            ) from error
        if len(found) != len(texts):
            raise DataError(
                f"the scorer {self._name} gave words for {len(found)} texts, but got {len(texts)}; give a list for "
                "every text, an empty one if it has no words"
            )
        return [self._words(text, words) for text, words in zip(texts, found, strict=True)]

    def describe(self) -> dict[str, JsonScalar]:
        """The function, and a hash of its file; see `Scorer.describe`."""
        return {"function": self._name, "sha256": self._sha256}

    def _found(self, content: bytes, name: str) -> _Function:
        """Runs the file and returns the function, or the class, with that name.

        Raises:
            ConfigError: the file cannot be run, or has nothing callable of that name.
        """
        if (folder := str(self._path.parent)) not in sys.path:
            sys.path.append(folder)
        module = importlib.util.module_from_spec(self._spec())
        # dataclasses and pickle look for the module there.
        sys.modules[module.__name__] = module
        try:
            exec(compile(content, str(self._path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"the file of the scorer {self._name} {self._said(error)}; repair it first") from error
        function: Any = vars(module).get(name)
        if isinstance(function, type):
            is_callable = any("__call__" in vars(base) for base in function.__mro__)
        else:
            is_callable = callable(function)
        if is_callable:
            return function
        if function is not None:
            raise ConfigError(
                f"{name} in {self._path} is {_short(function)}, which cannot be called with texts; name a function, or "
                "a class that has __call__"
            )
        near = difflib.get_close_matches(name, [key for key, value in vars(module).items() if callable(value)], n=1)
        hint = f"did you mean {self._path.name}:{near[0]}?" if near else "name one of its functions"
        raise ConfigError(f"{self._path} has no function {name}; {hint}")

    def _spec(self) -> ModuleSpec:
        """The spec of the file as a module, under the name by which other processes can import it, if there is one."""
        name = self._path.stem
        importlib.invalidate_caches()
        if name in sys.modules:
            found = getattr(sys.modules[name], "__spec__", None)
        else:
            found = importlib.util.find_spec(name) if name.isidentifier() else None
        if found is None or not found.has_location or Path(str(found.origin)) != self._path:
            found = importlib.util.spec_from_file_location(f"cascaded_dllm_scorer_{self._sha256[:16]}", self._path)
        assert found is not None
        return found

    def _said(self, error: BaseException) -> str:
        """The words of a message for an error of the file, with the line from which it comes."""
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self._path)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        said = " ".join(str(error).split())
        place = "" if line is None else f" in line {line}"
        reason = f": {said if len(said) <= _SAID else f'{said[:_SAID]}...'}" if said else ""
        return f"raised {type(error).__name__}{place}{reason}"

    def _words(self, text: str, found: Sequence[Any]) -> list[Word]:
        """The words of one text, checked.

        Raises:
            DataError: they are not words of the text, in order.
        """
        words: list[Word] = []
        end = 0
        for item in found:
            word = self._word(text, item)
            if not end <= word.start < word.end <= len(text):
                raise DataError(
                    f"the scorer {self._name} gave the characters {word.start} to {word.end} as a word after {end}, "
                    f"in a text of {len(text)} that begins with {_short(text)}; give words in text order, inside the "
                    "text, of at least one character, and no character twice"
                )
            words.append(word)
            end = word.end
        return words

    def _word(self, text: str, item: Any) -> Word:
        try:
            start, end, importance = item
            word = Word(operator.index(start), operator.index(end), float(importance))
        except Exception as error:
            raise DataError(
                f"the scorer {self._name} gave {_short(item)} for a word of a text that begins with {_short(text)}; "
                "give (start, end, importance), two whole numbers and a number"
            ) from error
        if not abs(word.importance) <= _MOST:
            raise DataError(
                f"the scorer {self._name} gave the importance {word.importance} to "
                f"{_short(text[word.start : word.end])}; give finite numbers below {_MOST:.4g}"
            )
        return word


@contextlib.contextmanager
def _collector_at_work() -> Iterator[None]:
    """Turns garbage collection on inside the block: the user's function may need it, as graphs of gradients do."""
    was_enabled = gc.isenabled()
    gc.enable()
    try:
        yield
    finally:
        if not was_enabled:
            gc.disable()


def _short(value: object) -> str:
    """A value for a message, shortened if it is long."""
    shown = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return shown if len(shown) <= 2 * _SHOWN else f"{shown[: 2 * _SHOWN]}..."
