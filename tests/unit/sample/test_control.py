"""From what a person asks to constraints of every stage, and the words for what cannot be."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.constraints import Constraints, StageConstraints, constraints, coverage_words, words_of
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.unchecked import without_type_checks

LENGTHS = (6, 12, 24)
TEXT = "the storm took the lighthouse and the keeper saw it from the boat at night " * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 310)


def by_length(tokenizer: Tokenizer) -> Any:
    """Tokens of longer words are more important: the later of two equals too."""

    def importance(text: str) -> tuple[Sequence[int], Sequence[float], str]:
        encoding = tokenizer.encode(text)
        values = [min(1.0, len(text[start:end]) / 20 + start / 1e5) for start, end in encoding.offsets]
        return encoding.ids, values, "keybert_no_stopword"

    return importance


def found(tokenizer: Tokenizer, **asked: Any) -> Constraints:
    return constraints(Control(**asked), tokenizer, LENGTHS, by_length(tokenizer))


def ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text).ids)


def test_nothing_is_asked_by_default(tokenizer: Tokenizer) -> None:
    assert found(tokenizer) == Constraints((StageConstraints(),) * 3, 1, require_coverage=False)


def test_keywords_have_the_space_before_them(tokenizer: Tokenizer) -> None:
    asked = found(tokenizer, keywords=("storm", " keeper ", "the boat"), require_coverage=True)
    expected = tuple(ids(tokenizer, text) for text in (" storm", " keeper", " the boat"))
    assert [stage.words for stage in asked.stages] == [(expected,), (), ()]
    assert asked.require_coverage
    assert words_of("storm  \n keeper", tokenizer) == expected[:2]


def test_outline_enters_where_it_has_room(tokenizer: Tokenizer) -> None:
    short = found(tokenizer, outline="storm took\nthe boat")
    assert [bool(stage.words) for stage in short.stages] == [True, False, False]
    assert short.stages[0].words == (words_of("storm took the boat", tokenizer),)
    text = "storm took the lighthouse and the keeper saw it"
    assert LENGTHS[0] < sum(map(len, words_of(text, tokenizer))) <= LENGTHS[1]
    longer = found(tokenizer, outline=text)
    assert longer.stages[1] == StageConstraints(words=(words_of(text, tokenizer),))
    (first,) = longer.stages[0].given
    # The most important ones, in their order: a part of the outline.
    assert len(first) == LENGTHS[0]
    rest = iter(ids(tokenizer, " " + text))
    assert all(token in rest for token in first)
    assert ids(tokenizer, " lighthouse")[0] in first
    assert longer.stages[2] == StageConstraints()


def test_pins(tokenizer: Tokenizer) -> None:
    asked = found(tokenizer, pins=(Pin(3, "start", "the storm"), Pin(3, "end", " the boat"), Pin(2, 4, " keeper")))
    start, end, middle = (ids(tokenizer, text) for text in ("the storm", " the boat", " keeper"))
    assert asked.stages[2].pinned == dict(enumerate(start)) | dict(enumerate(end, start=24 - len(end)))
    assert asked.stages[1].pinned == dict(enumerate(middle, start=4))
    assert not asked.stages[0].pinned
    # The same text twice at the same place is no contradiction.
    assert found(tokenizer, pins=(Pin(2, 4, " keeper"),) * 2).stages[1].pinned == asked.stages[1].pinned


def test_pinned_tokens_need_not_be_those_of_their_text(tokenizer: Tokenizer) -> None:
    letters = tuple(token for letter in " storm" for token in ids(tokenizer, letter))
    assert letters != ids(tokenizer, " storm")
    asked = found(tokenizer, pins=(Pin(2, 3, letters), Pin(1, "end", (0,))))
    assert asked.stages[1].pinned == dict(enumerate(letters, start=3))
    assert asked.stages[0].pinned == {5: 0}


def test_an_outline_after_a_given_text(tokenizer: Tokenizer) -> None:
    first = tuple(range(6))
    given = GivenStage(stage=1, ids=((first,),))
    asked = found(tokenizer, given=given, outline="the storm")
    assert [stage.given for stage in asked.stages] == [(first,), (), ()]
    assert [stage.words for stage in asked.stages] == [(), (words_of("the storm", tokenizer),), ()]
    both = GivenStage(stage=2, ids=((first, (*first, *first)),))
    assert found(tokenizer, given=both, outline="boat").stages[2].words == (words_of("boat", tokenizer),)
    # Its own words are what a stage with an outline covers.
    asked = found(tokenizer, given=given, outline="boat", require_coverage=True)
    assert asked.require_coverage
    assert asked.stages[1].words == (words_of("boat", tokenizer),)


def test_ends_of_text_in_an_outline_are_no_words(tokenizer: Tokenizer) -> None:
    """They are spelt out in texts of samples, from which an outline may come."""
    given = GivenStage(stage=1, ids=((tuple(range(6)),),))
    end = tokenizer.decode([tokenizer.eos_id])
    asked = found(tokenizer, given=given, outline=f"the storm{end}boat{end}{end}")
    assert asked.stages[1].words == (words_of("the storm boat", tokenizer),)
    assert Control(outline=f"boat{end}").outline == "boat "


def test_a_pinned_end_of_text_is_the_token(tokenizer: Tokenizer) -> None:
    end = tokenizer.decode([tokenizer.eos_id])
    asked = found(tokenizer, pins=(Pin(2, "end", f" boat{end}"),))
    expected = (*ids(tokenizer, " boat"), tokenizer.eos_id)
    assert asked.stages[1].pinned == dict(enumerate(expected, start=LENGTHS[1] - len(expected)))


def test_given_texts(tokenizer: Tokenizer) -> None:
    first, second = tuple(range(6)), tuple(range(12))
    both = found(tokenizer, given=GivenStage(stage=2, ids=((first, second), (second[:6], second))))
    assert both.first_stage == 1
    assert [stage.given for stage in both.stages] == [(first, second[:6]), (second, second), ()]
    later = found(tokenizer, given=GivenStage(stage=2, ids=((second,),)))
    assert later.first_stage == 2
    assert [stage.given for stage in later.stages] == [(second,), ()]


def test_a_shorter_text_of_stage_1_is_written_around(tokenizer: Tokenizer) -> None:
    keeper, whole = ids(tokenizer, " keeper storm"), ids(tokenizer, " boat" * 6)
    asked = found(tokenizer, given=GivenStage(stage=1, ids=((keeper,), (whole[:6],))))
    assert asked.first_stage == 1
    assert asked.stages[0].given == ()
    assert [tuple(itertools.chain(*words)) for words in asked.stages[0].words] == [keeper, whole[:6]]
    assert [tokenizer.decode(word) for word in asked.stages[0].words[0]] == [" keeper", " storm"]


def test_an_end_of_text_belongs_to_no_word(tokenizer: Tokenizer) -> None:
    storm, eos = ids(tokenizer, " storm")[0], tokenizer.eos_id
    given = GivenStage(stage=1, ids=(((storm, eos, *ids(tokenizer, "t")),),))
    assert found(tokenizer, given=given).stages[0].words == (((storm,), (eos,), ids(tokenizer, "t")),)


def test_one_stage_is_followed_by_none(tokenizer: Tokenizer) -> None:
    given = Control(given=GivenStage(stage=1, ids=(((1, 2),),)))
    with pytest.raises(ConfigError, match="from_stage is 1, and there is only one stage, after which none is written"):
        constraints(given, tokenizer, (6,), by_length(tokenizer))


def test_what_the_next_stage_must_contain() -> None:
    assert coverage_words([1, 2, 3, 2], []) == ((1,), (2,), (3,), (2,))
    assert coverage_words([1, 2, 3, 2, 3], [(2, 3), (2, 3)]) == ((1,), (2, 3), (2, 3))
    assert coverage_words([2, 3, 1], [(1,)]) == ((2,), (3,), (1,))
    assert coverage_words([], []) == ()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keywords": ("storm", " ")}, "keyword 2 of 2 is empty; leave it out"),
        (
            {"keywords": ("lighthouse keeper storm boat",) * 3},
            r"the keywords have \d+ tokens and stage 1 writes 6; leave some out, or give them as an outline",
        ),
        (
            {"keywords": ("storm", "quasar spaceships")},
            r"which enters at a later stage; most tokens, \d+, has 'quasar spaceships'$",
        ),
        ({"outline": " \n"}, "the outline is empty; give at least one word"),
        ({"outline": "storm boat " * 20}, r"the outline has \d+ tokens and the last stage writes 24; shorten it"),
        (
            {"outline": "the the the the the the the boat"},
            r"the outline has 2 different tokens, and stage 1 needs 6 of them .* or at most 6 tokens",
        ),
        ({"pins": (Pin(4, 0, "a"),)}, "text is pinned in stage 4; the stages are 1 to 3"),
        ({"pins": (Pin(0, 0, "a"),)}, "text is pinned in stage 0; the stages are 1 to 3"),
        ({"pins": (Pin(1, 0, ""),)}, "the text that is pinned at 0 of stage 1 is empty; leave it out"),
        (
            {"pins": (Pin(1, 6, " boat"),)},
            r"' boat' has 1 tokens and is pinned at 6 of stage 1, which writes 6; its first token must be at 0 to 5",
        ),
        ({"pins": (Pin(1, -1, " boat"),)}, "is pinned at -1 of stage 1"),
        ({"pins": (Pin(1, 0, "storm " * 9),)}, r"has \d+ tokens and is pinned in stage 1, which writes 6; shorten it"),
        (
            {"pins": (Pin(2, 0, " boat"), Pin(2, 0, " storm"))},
            "two texts are pinned at position 0 of stage 2; move one of them",
        ),
        ({"given": GivenStage(stage=3, ids=((tuple(range(24)),),))}, "from_stage is 3; it must be from 1 to 2"),
        ({"given": GivenStage(stage=0, ids=(((1,),),))}, "from_stage is 0; it must be from 1 to 2"),
        ({"given": GivenStage(stage=1, ids=())}, "there is no text to continue from; give a file that holds at least"),
        (
            {"given": GivenStage(stage=1, ids=((tuple(range(6)),), (tuple(range(7)),)))},
            "text 1 of stage 1 has 7 tokens and must have 6 or fewer, but at least one; change it, or give its words",
        ),
        (
            {"given": GivenStage(stage=1, ids=(((1, 2, 302, 3, 4, 5),),))},
            "text 0 of stage 1 holds the id 302, and the tokenizer has those from 0 to 301; give texts of this",
        ),
        ({"given": GivenStage(stage=1, ids=(((-1,),),))}, "text 0 of stage 1 holds the id -1"),
        ({"given": GivenStage(stage=1, ids=(((),),))}, "text 0 of stage 1 has 0 tokens and must have 6 or fewer, but"),
        (
            {"given": GivenStage(stage=2, ids=((tuple(range(6)), tuple(range(11))),))},
            "text 0 of stage 2 has 11 tokens and must have 12; change it, or give its words as an outline",
        ),
        (
            {"given": GivenStage(stage=1, ids=((tuple(range(6)),),)), "pins": (Pin(1, 0, " boat"),)},
            "' boat' is pinned in stage 1, which is not written: its text or a later one is given; pin it in a later",
        ),
        (
            {"given": GivenStage(stage=2, ids=((tuple(range(12)),),)), "pins": (Pin(1, 0, " boat"),)},
            "' boat' is pinned in stage 1, which is not written",
        ),
        (
            {"given": GivenStage(stage=1, ids=(((1, 2), (3, 4)),))},
            "texts of stage 1 are given with 2 stages each; give for all of them that stage, .* 1 at most",
        ),
        (
            {"given": GivenStage(stage=2, ids=((tuple(range(12)),), (tuple(range(6)), tuple(range(12)))))},
            "texts of stage 2 are given with 1 or 2 stages each",
        ),
        (
            {"given": GivenStage(stage=1, ids=((tuple(range(6)),),)), "outline": " "},
            "the outline is empty; give at least one word",
        ),
        (
            {"given": GivenStage(stage=1, ids=((tuple(range(6)),),)), "outline": TEXT},
            r"the outline has \d+ tokens and stage 2 writes 12; shorten it",
        ),
        (
            {"given": GivenStage(stage=1, ids=(((1, 2),),)), "outline": "boat"},
            "outline of stage 2 is given beside 1 texts of stage 1, the first of 2 tokens; give one text, with all of "
            "its 6 tokens",
        ),
        (
            {"given": GivenStage(stage=1, ids=((tuple(range(6)),), (tuple(range(1, 7)),))), "outline": "boat"},
            "beside 2 texts of stage 1",
        ),
        ({"pins": (Pin(1, 5, (97, 98)),)}, "'.*' has 2 tokens and is pinned at 5 of stage 1"),
        ({"pins": (Pin(1, 0, (1, 9999)),)}, "the id 9999 is pinned in stage 1, and the tokenizer has those from 0 to"),
        ({"keywords": ("storm",), "outline": "boat"}, "keywords and outline are given together, and a text begins"),
    ],
)
def test_what_cannot_be(tokenizer: Tokenizer, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found(tokenizer, **asked)


def test_there_is_no_word_without_tokens(tokenizer: Tokenizer) -> None:
    """The tokenizer knows every byte: what it has never seen takes more tokens, and may be too long."""
    (words,) = found(tokenizer, keywords=("Ωé",)).stages[0].words
    assert tokenizer.decode(words[0]) == " Ωé"
    with pytest.raises(ConfigError, match=r"the keywords have \d+ tokens and stage 1 writes 6"):
        found(tokenizer, keywords=("日本語",))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keywords": {"storm", "boat"}}, r"keywords is \{.*\}; give a list of words"),
        ({"keywords": None}, r"keywords is None; give a list of words"),
        ({"keywords": ("storm", None)}, r"keyword 2 is None; it must be a text"),
        ({"outline": 5}, r"the outline is 5; it must be a text"),
        ({"pins": Pin(1, 0, "a")}, r"pinned is Pin\(.*\); give a list of Pin\(stage, position, text\)"),
        ({"pins": ("a",)}, r"pinned holds 'a'; give a list of Pin\(stage, position, text\)"),
        ({"given": "storm"}, r"given is a str; it must be a GivenStage, of CascadeSamples\.given or GivenStage\.of_t"),
        ({"require_coverage": "no"}, r"require_coverage is 'no'; it must be True or False"),
    ],
)
@without_type_checks()
def test_values_of_other_kinds(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Control(**asked)


@pytest.mark.parametrize("kind", [list, iter, np.array, dict.fromkeys, lambda words: dict.fromkeys(words).keys()])
@without_type_checks()
def test_several_in_an_order(kind: Callable[[list[Any]], Any]) -> None:
    """Of any type, also one that can be read only once."""
    assert Control(keywords=kind(["storm", "boat"])) == Control(keywords=("storm", "boat"))
    pin = Pin(1, 0, kind([7, 5]))
    assert pin == Pin(1, 0, (7, 5))
    assert {type(token) for token in pin.text} == {int}
    assert Control(pins=iter([pin])) == Control(pins=(pin,))


@pytest.mark.parametrize("kind", [np.array, np.int64, torch.tensor])
@without_type_checks()
def test_whole_numbers_of_other_libraries(kind: Callable[[int], Any]) -> None:
    pin = Pin(kind(2), kind(0), (kind(7),))
    assert repr(pin) == repr(Pin(2, 0, (7,)))
    assert repr(GivenStage(stage=kind(1), ids=(((5,),),))) == repr(GivenStage(stage=1, ids=(((5,),),)))


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ((1.0, 0, "a"), r"the stage of a pin is 1\.0; it must be a whole number"),
        ((1, 0.5, "a"), r"the position of a pin is 0\.5; it must be a whole number, start or end"),
        ((1, "middle", "a"), r"the position of a pin is 'middle'; it must be a whole number, start or end"),
        ((1, 0, None), r"the text of a pin is None; give a list of ids"),
        ((1, 0, (5.5,)), r"an id of a pin is 5\.5; it must be a whole number"),
    ],
)
@without_type_checks()
def test_pins_of_other_kinds(pin: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pin(*pin)


@without_type_checks()
def test_given_texts_of_other_kinds(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"texts is 'storm'; give a list of texts"):
        GivenStage.of_texts(1, "storm", tokenizer)
    with pytest.raises(ConfigError, match=r"a given text is 5; it must be a text"):
        GivenStage.of_texts(1, [5], tokenizer)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"the stage of given texts is 1\.5; it must be a whole number"):
        GivenStage(stage=1.5, ids=(((1,),),))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"an id of stage 1 is 6\.5; it must be a whole number"):
        GivenStage(stage=1, ids=(((5, 6.5),),))  # type: ignore[arg-type]
