"""Shell commands in Markdown, taken apart far enough to ask whether what they name exists."""

import re
import shlex
from collections.abc import Iterator

FENCE = re.compile(r"^[ \t]*```(?:bash|sh|shell|console)\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
SEPARATORS = {"&&", "||", ";", "|", "&"}
REDIRECTION = re.compile(r"^\d*[<>]")


def shell_commands(markdown: str) -> Iterator[list[str]]:
    """The words of every command in the shell blocks; comments, prompts, variables and redirections are removed."""
    for block in FENCE.findall(markdown):
        for line in block.replace("\\\n", " ").splitlines():
            yield from _split(line.strip().removeprefix("$ "))


def _split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in SEPARATORS:
            if words:
                yield words
            words = []
        elif not REDIRECTION.match(word) and not (not words and re.match(r"^\w+=", word)):
            words.append(word)
