"""Whether texts hold the keywords that were asked for."""

import re
from collections import Counter
from collections.abc import Sequence


def keyword_coverage_per_text(texts: Sequence[str], keywords: Sequence[str]) -> list[float]:
    """The share of the keywords that every text holds as whole words, in any order.

    A keyword that is asked for twice must be there twice. Letters count as they are written, large or small; the words
    of one keyword stand together, with any blanks between them. A keyword inside of a longer word is not found.

    Args:
        texts: as they are read.
        keywords: at least one, none of them blank; `sample_figures` and `Control` see to it.
    """
    asked = {_pattern(keyword): number for keyword, number in Counter(keywords).items()}
    return [
        sum(min(number, len(pattern.findall(text))) for pattern, number in asked.items()) / len(keywords)
        for text in texts
    ]


def _pattern(keyword: str) -> re.Pattern[str]:
    """What finds a keyword, next to which no letter, digit or underscore stands."""
    words = r"\s+".join(map(re.escape, keyword.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)")
