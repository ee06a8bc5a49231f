"""Texts to go on from, read from a run, its file, a listing that a person has edited, or a plain text."""

import json
from pathlib import Path

import pytest

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.sample.constraints import constraints
from cascaded_dllm.sample.control import Control, GivenStage
from cascaded_dllm.sample.given import read_given, read_outline
from cascaded_dllm.text.listing import SEPARATOR, listing, texts_of_listing
from cascaded_dllm.text.tokenizer import Tokenizer

RECORDS = [
    {
        "sample": i,
        "settings": {"tokenizer_fingerprint": "?"},
        "stages": [{"stage": k, "ids": list(range(i, i + 2 * k)), "text": ""} for k in (1, 2, 3)],
    }
    for i in range(2)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["storm lighthouse keeper " * 9], 290)


def stored(folder: Path, records: list[dict[str, object]], tokenizer: Tokenizer) -> Path:
    path = folder / "samples.jsonl"
    records = [record | {"settings": {"tokenizer_fingerprint": tokenizer.fingerprint}} for record in records]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_a_run_gives_all_stages_up_to_the_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = stored(tmp_path, RECORDS, tokenizer)
    expected = GivenStage(stage=2, ids=(((0, 1), (0, 1, 2, 3)), ((1, 2), (1, 2, 3, 4))))
    assert read_given(path, 2, tokenizer) == read_given(tmp_path, 2, tokenizer) == expected
    assert read_given(tmp_path, 1, tokenizer).ids == (((0, 1),), ((1, 2),))
    assert expected.first_stage == 1


def test_separators_of_lines_inside_a_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Characters at which other programs break lines."""
    stage = {"stage": 1, "ids": [0, 1], "text": "a\u2028b\u2029c\u0085d"}
    record = {"settings": {"tokenizer_fingerprint": tokenizer.fingerprint}, "stages": [stage]}
    path = tmp_path / "samples.jsonl"
    path.write_text(f"{json.dumps(record, ensure_ascii=False)}\n" * 2, encoding="utf-8")
    assert read_given(path, 1, tokenizer).ids == (((0, 1),), ((0, 1),))


def test_a_listing_gives_one_stage(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "sample_stage2.txt"
    path.write_text(listing([" storm keeper", "lighthouse\nkeeper"]), encoding="utf-8")
    found = read_given(path, 2, tokenizer)
    assert [tokenizer.decode(ids) for (ids,) in found.ids] == [" storm keeper", "lighthouse\nkeeper"]
    assert found.first_stage == 2
    path.write_text(" storm keeper\n", encoding="utf-8")
    assert [tokenizer.decode(ids) for (ids,) in read_given(path, 1, tokenizer).ids] == [" storm keeper"]


def test_carriage_returns_are_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "sample_stage1.txt"
    texts = ["storm\r\nkeeper\r", "light\rhouse"]
    path.write_bytes(listing(texts).encode())
    assert read_given(path, 1, tokenizer) == GivenStage.of_texts(1, texts, tokenizer)
    path.write_bytes(listing(["storm\nkeeper"]).replace("\n", "\r\n").encode())
    assert read_given(path, 1, tokenizer) == GivenStage.of_texts(1, ["storm\nkeeper"], tokenizer)
    path.write_bytes(b"storm\rkeeper\n")
    assert read_outline(path) == "storm\rkeeper"


def test_a_byte_order_mark_is_no_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Some editors write one at the beginning of a file; further on it is a character."""
    path = tmp_path / "edited.txt"
    path.write_bytes(b"\xef\xbb\xbf storm \xef\xbb\xbfkeeper\r\n")
    assert read_outline(path) == " storm \ufeffkeeper"
    assert read_given(path, 1, tokenizer) == GivenStage.of_texts(1, [" storm \ufeffkeeper"], tokenizer)
    run = stored(tmp_path, RECORDS, tokenizer)
    expected = read_given(run, 1, tokenizer)
    run.write_bytes(b"\xef\xbb\xbf" + run.read_bytes())
    assert read_given(run, 1, tokenizer) == expected


def test_the_only_text_of_a_listing_is_an_outline(tmp_path: Path) -> None:
    """Its separator is no word, and of several texts none is the outline."""
    path = tmp_path / "sample_stage2.txt"
    path.write_text(listing([" storm\nkeeper"]), encoding="utf-8")
    assert read_outline(path) == " storm\nkeeper"
    path.write_text(listing([" storm", " keeper"]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sample_stage2\.txt holds 2 texts, each before a line of 80 '='.*leave one"):
        read_outline(path)


def test_a_run_that_has_no_text_yet(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Nothing in it is damaged; what has no text is refused like any other."""
    given = read_given(stored(tmp_path, [], tokenizer), 1, tokenizer)
    with pytest.raises(ConfigError, match="there is no text to continue from; give a file that holds at least one"):
        constraints(Control(given=given), tokenizer, (2, 4), lambda text: ([], [], ""))


def test_listings_are_read_as_they_are_written() -> None:
    for texts in (["a"], ["", ""], ["a\nb", " c "], ["a\n"]):
        assert texts_of_listing(listing(texts)) == texts
    # What a person adds behind the last separator counts, blanks do not.
    assert texts_of_listing(f"a\n{SEPARATOR}\nb\n") == ["a", "b"]
    assert texts_of_listing(f"a\n{SEPARATOR}\n\n \n") == ["a"]
    assert texts_of_listing("one text\nof two lines") == ["one text\nof two lines"]
    # Put together from files of two editors.
    assert texts_of_listing(f"a\r\n{SEPARATOR}\r\nb\n{SEPARATOR}\nc\n{SEPARATOR}\r\nd") == ["a", "b", "c", "d"]


def test_what_cannot_be_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere does not exist; name a sampling run, its samples\.jsonl"):
        read_given(tmp_path / "nowhere", 1, tokenizer)
    with pytest.raises(ConfigError, match=r"samples\.jsonl does not exist"):
        read_given(tmp_path, 1, tokenizer)
    path = stored(tmp_path, RECORDS, tokenizer)
    with pytest.raises(ConfigError, match=r"from_stage is 4, and .*samples\.jsonl has the stages 1, 2, 3; choose one"):
        read_given(path, 4, tokenizer)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"settings": {"tokenizer_fingerprint": ""}, "stages": [{"stage": 1}]}\n')
    with pytest.raises(DataError, match=r"line 3 of .*samples\.jsonl is damaged \(KeyError\('ids'\)\); remove it"):
        read_given(path, 1, tokenizer)
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin is not text in UTF-8 \(unexpected end of data at byte 3\); convert it"):
        read_given(tmp_path / "latin", 1, tokenizer)
    with pytest.raises(DataError, match=r"latin is not text in UTF-8"):
        read_outline(tmp_path / "latin")
    with pytest.raises(ConfigError, match="nowhere does not exist; name a text file that holds the outline"):
        read_outline(tmp_path / "nowhere")
    (tmp_path / "outline.txt").write_text("storm\nkeeper", encoding="utf-8")
    assert read_outline(tmp_path / "outline.txt") == "storm\nkeeper"


def test_a_run_of_another_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Its ids would be other words."""
    other = Tokenizer.train(["fox key door " * 9], 290)
    path = stored(tmp_path, RECORDS, other)
    message = rf"samples\.jsonl was written with the tokenizer {other.fingerprint}, and the stages have "
    with pytest.raises(ConfigError, match=message + tokenizer.fingerprint):
        read_given(path, 1, tokenizer)


def test_an_end_of_text_is_spelt_out_in_a_listing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """It is read as the one token that it was written from."""
    ids = [*tokenizer.encode(" storm").ids, tokenizer.eos_id, tokenizer.eos_id]
    (tmp_path / "texts.txt").write_text(listing([tokenizer.decode(ids)]), encoding="utf-8")
    assert read_given(tmp_path / "texts.txt", 1, tokenizer).ids == ((tuple(ids),),)
