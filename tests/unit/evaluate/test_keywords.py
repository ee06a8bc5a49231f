import pytest

from cascaded_dllm.evaluate.keywords import keyword_coverage_per_text


@pytest.mark.parametrize(
    ("text", "keywords", "share"),
    [
        ("the fox met a hare", ("fox", "hare"), 1),
        ("the hare met a fox", ("fox", "hare"), 1),
        ("the fox met a dog", ("fox", "hare"), 0.5),
        ("foxes met an outfox", ("fox",), 0),
        ("Fox", ("fox",), 0),
        ("a fox, a (hare).", ("fox", "hare"), 1),
        ("one fox", ("fox", "fox"), 0.5),
        ("one fox, two fox", ("fox", "fox"), 1),
        ("the light \n house", ("light house",), 1),
        ("the house light", ("light house",), 0),
        ("the light house", ("light house", "light  house"), 0.5),
        ("the light house, a light house", ("light house", "light  house "), 1),
        ("it cost $5.", ("$5", "5."), 1),
        ("", ("fox",), 0),
    ],
)
def test_by_hand(text, keywords, share):
    assert keyword_coverage_per_text([text, "nothing"], keywords) == [share, 0]
