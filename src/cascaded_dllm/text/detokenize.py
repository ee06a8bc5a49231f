r"""Detokenizers: they turn texts of benchmark corpora from their distributed form into text as people write it.

Each is a pure function of one text and keeps its line breaks. Apart from marks such as WikiText's "@-@", PTB's escapes
and LAMBADA's quotation marks, only white space changes, so no word is lost. `wikitext`, `lm1b` and `ptb` return a line
without traces of its form unchanged, except for white space around it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

VERSION = 1
"""Recorded with everything made from detokenized texts; raise it with every change of what a detokenizer returns."""

_PUNCTUATION = frozenset(
    {",", ".", ";", ":", "?", "!", ")", "]", "}", "%", "...", "…", "”", "°", "\N{PRIME}", "\N{DOUBLE PRIME}"}
)
_OPENING = frozenset({"(", "[", "{", "$", "£", "€", "¥", "₹", "#", "“", "„"})
_EN_DASH = "\N{EN DASH}"
_FRACTION = "\N{FRACTION SLASH}"
_APOSTROPHES = frozenset({"'", "\N{RIGHT SINGLE QUOTATION MARK}"})
_CLITIC = re.compile(r"n't|'(?!(?:em|til|cause|tis|twas)$)[^\W\d_].*", re.IGNORECASE)
_AFTER_APOSTROPHE = frozenset({"s", "t", "re", "ve", "m", "ll", "d"})
_BEFORE_DOLLAR = frozenset({"US", "HK", "NZ", "AU", "CA"})


@dataclass(frozen=True, slots=True)
class _Form:
    """Where the words and marks of a form stand together without a space.

    Attributes:
        trace: found in lines of this form, and in hardly any other line.
        closing: marks without a space before them.
        opening: marks without a space after them.
        joining: marks without a space on either side -> what is written for them.
        quotes: marks that open and close in turn.
    """

    trace: re.Pattern[str]
    closing: frozenset[str] = frozenset()
    opening: frozenset[str] = frozenset()
    joining: Mapping[str, str] = field(default_factory=dict)
    quotes: frozenset[str] = frozenset()

    def detokenize(self, text: str) -> str:
        return "\n".join(map(self._line, text.split("\n")))

    def _line(self, line: str) -> str:
        line = line.strip()
        return self._joined(line.split()) if self.trace.search(line) else line

    def _joined(self, tokens: Sequence[str]) -> str:
        pieces: list[str] = []
        is_glued = True
        for token, (left, right) in zip(tokens, self._glue(tokens), strict=True):
            if not (is_glued or left):
                pieces.append(" ")
            pieces.append(self.joining.get(token, token))
            is_glued = right
        return "".join(pieces)

    def _glue(self, tokens: Sequence[str]) -> Iterator[tuple[bool, bool]]:
        """For every token, whether it stands without a space before it and after it."""
        is_open = dict.fromkeys(self.quotes, False)
        last = max((place for place, token in enumerate(tokens) if token == "'"), default=-1)
        for place, (before, token, after) in enumerate(zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)):
            if token not in self.quotes or (
                token == "'" and not is_open[token] and (place == last or _is_apostrophe(before, after))
            ):
                yield self._is_close(before, token, after), self._is_close_behind(before, token, after)
            else:
                yield is_open[token], not is_open[token]
                is_open[token] = not is_open[token]

    def _is_close(self, before: str, token: str, after: str) -> bool:
        is_joined = token in self.joining or _joins_numbers(before, token, after)
        is_price = token == "$" and before in _BEFORE_DOLLAR
        is_clitic = _CLITIC.fullmatch(token) is not None or (token in _APOSTROPHES and not _is_number(after))
        return is_joined or is_price or is_clitic or token in self.closing

    def _is_close_behind(self, before: str, token: str, after: str) -> bool:
        is_joined = token in self.joining or _joins_numbers(before, token, after)
        is_apostrophe = token in _APOSTROPHES and after in _AFTER_APOSTROPHE
        is_decade = token == "'" and _is_number(after)
        is_degree = token == "°" and after in {"C", "F"}
        return is_joined or is_apostrophe or is_decade or is_degree or token in self.opening


def _is_apostrophe(before: str, after: str) -> bool:
    """Whether a "'" is probably an apostrophe, not an opening quotation mark: "the players ' bench", "the ' 90s"."""
    return before[-1:] in {"s", "S"} or after in _AFTER_APOSTROPHE or _is_number(after)


def _joins_numbers(before: str, token: str, after: str) -> bool:
    """Whether a mark joins the numbers around it, as in spans of years and in scores: "3 : 2"."""
    return token in {_EN_DASH, ":"} and before[-1:].isdecimal() and after[:1].isdecimal()


def _is_number(token: str) -> bool:
    return token[:1].isdecimal()


_SPACED_MARK = re.compile(r"\s(?:[,.;:?!)\"']|n't|'(?:s|t|re|ve|m|ll|d))(?:\s|$)|(?:^|\s)(?:[(\"]|@[-,.]@)(?:\s|$)")
_WIKITEXT = _Form(
    trace=_SPACED_MARK,
    closing=_PUNCTUATION | {"♯", "♭", "〉"},
    opening=_OPENING | {"〈"},
    joining={"@-@": "-", "@,@": ",", "@.@": ".", "/": "/", _FRACTION: _FRACTION, "—": "—"},
    quotes=frozenset({'"', "'"}),
)
_LM1B = _Form(
    trace=_SPACED_MARK, closing=_PUNCTUATION, opening=_OPENING, joining={"/": "/"}, quotes=frozenset({'"', "'"})
)
_PTB = _Form(trace=re.compile(r"\s(?:n't|'(?:s|re|ve|m|ll|d)?)(?:\s|$)|(?:^|\s)[$#](?:\s|$)"), opening=frozenset("$#"))
_PTB_ESCAPES = re.compile(r"\\([/*])")
_LAMBADA_QUOTES = {
    **dict.fromkeys(("“", "”", "„", "``", "''"), '"'),
    **dict.fromkeys(("\N{LEFT SINGLE QUOTATION MARK}", "\N{RIGHT SINGLE QUOTATION MARK}"), "'"),
}
_LAMBADA_QUOTE = re.compile("|".join(map(re.escape, _LAMBADA_QUOTES)))


def wikitext(text: str) -> str:
    """A text of WikiText: " @-@ " becomes a hyphen, and punctuation, quotation marks and brackets join their words."""
    return _WIKITEXT.detokenize(text)


def lm1b(text: str) -> str:
    """A sentence of the One Billion Word Benchmark, in which marks are separate words: "don 't", "http : / /"."""
    return _LM1B.detokenize(text)


def ptb(text: str) -> str:
    """A sentence of the Penn Treebank as language models use it: lower case, no punctuation, <unk> and N for numbers.

    <unk> and N stay, since what they replaced is lost.
    """
    return _PTB_ESCAPES.sub(r"\1", _PTB.detokenize(text))


def lambada(text: str) -> str:
    """A passage of LAMBADA with straight quotation marks and without white space around it."""
    return _LAMBADA_QUOTE.sub(lambda match: _LAMBADA_QUOTES[match[0]], text).strip()


DETOKENIZERS: Mapping[str, Callable[[str], str]] = {"wikitext": wikitext, "ptb": ptb, "lm1b": lm1b, "lambada": lambada}
