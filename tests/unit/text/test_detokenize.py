import itertools
import lzma
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.text.detokenize import DETOKENIZERS, lambada, lm1b, ptb, wikitext

WIKITEXT = [
    ("The band 's second album sold 1 @,@ 200 copies .", "The band's second album sold 1,200 copies."),
    ("A well @-@ known , 3 @.@ 5 km ( 2 @.@ 2 mi ) long road", "A well-known, 3.5 km (2.2 mi) long road"),
    ('He said : " It was late . " Then he left .', 'He said: "It was late." Then he left.'),
    ('Both " North " and " South " ( 1991 ) failed ; why ?', 'Both "North" and "South" (1991) failed; why?'),
    ("The players ' bench was n't moved , was it ?", "The players' bench wasn't moved, was it?"),
    ("They called it ' the end of the road ' in 1987 .", "They called it 'the end of the road' in 1987."),
    ("In the ' 90s and the ' 80s prices rose 5 % .", "In the '90s and the '80s prices rose 5%."),
    ("It cost $ 5 million , or £ 3 million ; US $ 7 in all .", "It cost $5 million, or £3 million; US$7 in all."),
    ("O 'Neil did not see d 'Artagnan , and they 're late .", "O'Neil did not see d'Artagnan, and they're late."),
    ("The 1939 – 45 war , the Paris – Rouen race", "The 1939–45 war, the Paris – Rouen race"),
    ("He led 3 : 2 at 10 : 30 : a surprise .", "He led 3:2 at 10:30: a surprise."),
    ("20 km / h at 10 ° C [ sic ] and 4 ° north .", "20 km/h at 10°C [sic] and 4° north."),
    ("A <unk> of <unk> , as ever .", "A <unk> of <unk>, as ever."),
    ("One word — another ... and so on !", "One word—another... and so on!"),
    ("Yahoo ! ' s page , get 'em !", "Yahoo!'s page, get 'em!"),
    (" Alvarez ' friend came . \n", "Alvarez' friend came.\n"),
    ("the queen ’ s “ own ” words .", "the queen’s “own” words."),
    ("", ""),
    (" \n", "\n"),
]
PTB = [
    ("mr. <unk> says the plan does n't cost $ N million", "mr. <unk> says the plan doesn't cost $N million"),
    ("the traders ' losses were n't theirs but they 'll pay", "the traders' losses weren't theirs but they'll pay"),
    ("it 's N N of the company 's u.s. sales", "it's N N of the company's u.s. sales"),
    ("about N \\/ N of all \\* orders", "about N / N of all * orders"),
    ("no black monday this time", "no black monday this time"),
]
LM1B = [
    ("He said it didn 't matter , and she 's gone .", "He said it didn't matter, and she's gone."),
    ('" We \'re late , " she said ; " go ! "', '"We\'re late," she said; "go!"'),
    ("Read http : / / www.example.org / news ( in English ) .", "Read http://www.example.org/news (in English)."),
    ("Prices rose 3 % to $ 40 , or £ 25 .", "Prices rose 3% to $40, or £25."),
    ("Is it the workers ' fault ? ", "Is it the workers' fault?"),
    ("It ended -- at last -- in a well-known way .", "It ended -- at last -- in a well-known way."),
]
LAMBADA = [
    ("“No,” he said. “It’s late.”", '"No," he said. "It\'s late."'),
    ("``Why?'' she asked\n\nHe didn't know", '"Why?" she asked\n\nHe didn\'t know'),
    ("  'I am,' she said \n", "'I am,' she said"),
]
EVERY = [
    *((wikitext, *pair) for pair in WIKITEXT),
    *((ptb, *pair) for pair in PTB),
    *((lm1b, *pair) for pair in LM1B),
    *((lambada, *pair) for pair in LAMBADA),
]


@pytest.mark.parametrize(("detokenize", "text", "expected"), EVERY)
def test_golden_pairs(detokenize, text: str, expected: str) -> None:
    assert detokenize(text) == expected
    assert detokenize(expected) == expected


CLEAN = """"No," said Tom's friends' dog, "it isn't 5% - it's $5.40 (or so)... 'really'!" At 10:30, they'd left.
The '90s were the players' years; see http://example.org/a?b=c, and "don't" (ever) say 'never'."""


@pytest.mark.parametrize("detokenize", DETOKENIZERS.values())
def test_clean_text_stays(detokenize) -> None:
    assert detokenize(CLEAN) == CLEAN


PIECES = st.sampled_from(
    [
        *"""",.;:?!()[]%$#'/—–°""",
        "@-@",
        "@,@",
        "@.@",
        "'s",
        "n't",
        "...",
        "U.S.",
        "word",
        "Words",
        "N",
        "<unk>",
        "45",
        "😀",
        "語",
    ]
)


@pytest.mark.parametrize("name", ["wikitext", "ptb", "lm1b"])
@given(tokens=st.lists(PIECES))
@example(tokens=["@-@"])
@example(tokens=["@,@", "45"])
def test_nothing_but_blanks_is_lost(name: str, tokens: list[str]) -> None:
    text = " ".join(tokens)
    plain = re.sub(r"@([-,.])@", r"\1", text) if name == "wikitext" else text
    assert DETOKENIZERS[name](text).replace(" ", "") == plain.replace(" ", "")


@pytest.mark.parametrize("name", DETOKENIZERS)
@given(text=st.text(max_size=60))
def test_any_text_will_do(name: str, text: str) -> None:
    assert DETOKENIZERS[name](text).count("\n") <= text.count("\n")


def test_long_lines_take_linear_time() -> None:
    line = "one , ' two ' " * 15_000
    assert len(wikitext(line)) == len("one, 'two' ") * 15_000 - 1


def test_wikitext_keeps_every_character(shared: Path) -> None:
    path = shared / "data" / "wikitext2" / "valid.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in itertools.islice(lines, 800):
            assert "".join(wikitext(line).split()) == "".join(re.sub(r"@([-,.])@", r"\1", line).split())
