"""Documents of 700 words for the benchmarks of preprocessing."""

import itertools
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from cascaded_dllm.text.stories import StoryGrammar

NOVELS = Path("prose", "eltec_eng_novels.jsonl.xz")
WORDS = 700


def novels(data: Path, num: int) -> list[str]:
    """Documents that are cut from the novels, evenly from all."""
    with lzma.open(data / NOVELS, "rt", encoding="utf-8") as lines:
        documents = [text for line in lines for text in cut(json.loads(line)["text"])]
    return documents[:: len(documents) // num][:num]


def cut(text: str) -> Iterator[str]:
    """The whole documents that a text can be cut into."""
    starts = [word.start() for word in re.finditer(r"\S+", text)][::WORDS]
    yield from (text[start:end] for start, end in itertools.pairwise(starts))


def stories(num: int) -> list[str]:
    """Documents that need no data."""
    texts = [document.text for document in StoryGrammar().documents(3 * num, 0)]
    return [" ".join(texts[place::num]) for place in range(num)]
