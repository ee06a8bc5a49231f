"""Importance by a function of one's own, which stands in a file of Python."""

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

NO_WORD = float(np.finfo(np.float32).min)
"""Importance of a token in no word: below every number that a function may give."""

# No number that is kept as a float32 may become that of no word.
_MOST = float(np.nextafter(np.finfo(np.float32).max, np.float32(0)))

_Function: TypeAlias = Callable[[list[str]], Iterable[Any]]
"""A list of texts to the words of each, (start, end, importance); it is not known to keep to that."""

# Of a text or a value that stands in a message, and of what an error says.
_SHOWN = 40
_SAID = 200


def split_scorer(scorer: str) -> tuple[Path, str]:
    """The file and the name in FILE.py:NAME.

    Raises:
        ConfigError: it is written otherwise.
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
        ConfigError: it is written otherwise, or the file cannot be read.
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
    """Scorer of the method "custom": words and their importance come from a function, larger numbers are kept longer.

    The function is given a list of texts, and returns for every one its words in text order, (start, end, importance):
    the characters `text[start:end]`, and any finite number, which is kept as a float32. What it says of a text must not
    depend on the others, which are those of a batch. In place of a function there may be a class: it is made without
    arguments, once in every process that scores texts, before the first of them, and called.

    The file is run when the scorer is made, and its folder is put behind the places where Python looks for modules.
    What it imports is not looked at, so that a change there has to be told by a change in the file.

    Args:
        scorer: FILE.py:NAME.

    Raises:
        ConfigError: it is written otherwise, the file cannot be read or run, or has nothing of that name that can be
            called.
    """

    method = "custom"
    background = NO_WORD

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
            DataError: the function fails, or does not give every text words of that text.
        """
        try:
            if isinstance(self._function, type):
                # Not before: whoever only plans a job may have no room for its model, and no GPU.
                self._function = self._function()
            with _collector_at_work():
                found = [[*words] for words in self._function([*texts])]
        except (Exception, SystemExit) as error:
            raise DataError(
                f"the scorer {self._name} {self._said(error)}, for {len(texts)} texts of which the first is "
                f"{_short(texts[0]) if texts else None}; mend it and run the same command again, under another --name "
                "if shards are complete, for they belong to the file as it was"
            ) from error
        if len(found) != len(texts):
            raise DataError(
                f"the scorer {self._name} gave words for {len(found)} texts where it had {len(texts)}; give a list for "
                "every text, an empty one where there is no word"
            )
        return [self._words(text, words) for text, words in zip(texts, found, strict=True)]

    def describe(self) -> dict[str, JsonScalar]:
        """The function, and a hash of its file; see `Scorer.describe`."""
        return {"function": self._name, "sha256": self._sha256}

    def _found(self, content: bytes, name: str) -> _Function:
        """The function, or the class of what is called, once the file has been run."""
        if (folder := str(self._path.parent)) not in sys.path:
            sys.path.append(folder)
        module = importlib.util.module_from_spec(self._spec())
        # Where dataclasses and pickle look for it.
        sys.modules[module.__name__] = module
        try:
            exec(compile(content, str(self._path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"the file of the scorer {self._name} {self._said(error)}; mend it first") from error
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
        """The file as a module: by the name under which other processes find it, if there is one."""
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
        """An error of the file, with the line of it that it comes from."""
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self._path)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        said = " ".join(str(error).split())
        place = "" if line is None else f" in line {line}"
        reason = f": {said if len(said) <= _SAID else f'{said[:_SAID]}...'}" if said else ""
        return f"raised {type(error).__name__}{place}{reason}"

    def _words(self, text: str, found: Sequence[Any]) -> list[Word]:
        """The words of one text, which is what they are found to be."""
        words: list[Word] = []
        end = 0
        for item in found:
            word = self._word(text, item)
            if not end <= word.start < word.end <= len(text):
                raise DataError(
                    f"the scorer {self._name} gave the characters {word.start} to {word.end} as a word behind {end}, "
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
    """Garbage collection, which our own scorers do without: a function may need it, as graphs of gradients do."""
    was_enabled = gc.isenabled()
    gc.enable()
    try:
        yield
    finally:
        if not was_enabled:
            gc.disable()


def _short(value: object) -> str:
    """A value in a message, cut where it is long."""
    shown = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return shown if len(shown) <= 2 * _SHOWN else f"{shown[: 2 * _SHOWN]}..."
