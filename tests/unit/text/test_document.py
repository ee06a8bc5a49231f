import dataclasses

import pytest

from cascaded_dllm.text.document import Document, Holdout, Part


def test_document_cannot_change() -> None:
    document = Document("a:0", "Hello.")
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.text = "Bye."  # type: ignore[misc]
    assert document == Document(id="a:0", text="Hello.")


@pytest.mark.parametrize("every", [2, 3, 10])
@pytest.mark.parametrize("stop", [None, 0, 7, 20])
def test_the_sides_of_a_holdout_are_all_records(every, stop):
    items = range(23)
    sides = {held: list(Part(stop=stop, holdout=Holdout(every, held)).of(items)) for held in (True, False)}
    assert sides[True] == list(items)[:stop][every - 1 :: every]
    assert sorted(sides[True] + sides[False]) == list(items)[:stop]
    for held, side in sides.items():
        assert [Holdout(every, held).place(number) for number in side] == list(range(len(side)))
        for index in range(4):
            part = Part(index, 4, stop, Holdout(every, held))
            assert list(part.of(items)) == side[index::4]
            assert list(zip(part.numbers(), side[index::4], strict=False)) == [(item, item) for item in side[index::4]]
