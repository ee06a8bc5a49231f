"""Whether texts hold the keywords that were asked for."""

import re
from collections import Counter
from collections.abc import Sequence


def keyword_coverage_per_text(texts: Sequence[str], keywords: Sequence[str]) -> list[float]:
    """The share of the keywords that every text holds as whole words, in any order.

    A keyword that is given twice must be there twice. Case matters. The words of one keyword stand together, with any
    white space between them. A keyword inside a longer word is not found.

    Args:
        texts: decoded texts.
        keywords: at least one, none of them blank; the callers ensure it.
    """
    asked = Counter(map(_pattern, keywords))
    return [
        sum(min(number, len(pattern.findall(text))) for pattern, number in asked.items()) / len(keywords)
        for text in texts
    ]


def _pattern(keyword: str) -> re.Pattern[str]:
    """A pattern for a keyword that has no letter, digit or underscore next to it."""
    words = r"\s+".join(map(re.escape, keyword.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)")
