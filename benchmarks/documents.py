"""Documents for the benchmarks of preprocessing, of 700 words by default."""

import argparse
import itertools
import json
import lzma
import random
import re
from collections.abc import Iterator
from pathlib import Path

from cascaded_dllm.text.stories import StoryGrammar

NOVELS = Path("prose", "eltec_eng_novels.jsonl.xz")
WORDS = 700


def require_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with a message if the novels are needed and missing."""
    if options.quick:
        return
    if options.data is None:
        parser.error("--data is needed, or --quick")
    if not (options.data / NOVELS).is_file():
        parser.error(f"--data {options.data} holds no {NOVELS}; give the folder that does, or --quick")


def novels(data: Path, num: int, words: int = WORDS) -> list[str]:
    """`num` documents cut from the novels, taken evenly from all of them."""
    draw = random.Random(0)
    with lzma.open(data / NOVELS, "rt", encoding="utf-8") as lines:
        documents = [text for line in lines for text in cut(json.loads(line)["text"], words, draw)]
    return documents[:: len(documents) // num][:num]


def cut(text: str, words: int, draw: random.Random) -> Iterator[str]:
    """The whole documents in a text: of `WORDS` words each, or of half to one and a half times another number."""
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    lengths = (words if words == WORDS else draw.randint(words // 2, words * 3 // 2) for _ in itertools.count())
    ends = itertools.takewhile(lambda end: end < len(starts), itertools.accumulate(lengths, initial=0))
    yield from (text[starts[first] : starts[end]] for first, end in itertools.pairwise(ends))


def stories(num: int) -> list[str]:
    """Documents that need no data."""
    texts = [document.text for document in StoryGrammar().documents(3 * num, 0)]
    return [" ".join(texts[place::num]) for place in range(num)]
