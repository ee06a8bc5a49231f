import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.importance.tagger_features import JOINT, NUM_PROPERTIES, REACH, joint_hash
from cascaded_dllm.importance.word_layout import BOUNDARY_ROW, lay_out

# Of each paragraph, the rows of its words.
PARAGRAPHS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), max_size=5)


def laid_out(paragraphs):
    rows = np.array([row for paragraph in paragraphs for row in paragraph], dtype=np.int64)
    begins = np.array([place == 0 for paragraph in paragraphs for place in range(len(paragraph))], dtype=bool)
    return lay_out(rows, begins)


def neighbours(paragraphs, offset):
    """What stands `offset` words on from every word, looked up in its own paragraph."""
    return [
        paragraph[place + offset] if 0 <= place + offset < len(paragraph) else BOUNDARY_ROW
        for paragraph in paragraphs
        for place in range(len(paragraph))
    ]


@given(PARAGRAPHS)
def test_neighbours_are_those_of_the_paragraph(paragraphs):
    layout = laid_out(paragraphs)
    for offset in range(-REACH, REACH + 1):
        assert layout.at(offset, layout.rows)[layout.places].tolist() == neighbours(paragraphs, offset)


@given(PARAGRAPHS)
def test_joint_hashes_are_those_of_the_neighbours(paragraphs):
    layout = laid_out(paragraphs)
    properties = np.random.default_rng(0).integers(0, 1 << 63, (6, NUM_PROPERTIES), dtype=np.uint64)
    found = list(layout.joint_hashes(properties))
    assert len(found) == len(JOINT)
    for number, hashes in enumerate(found):
        parts = [properties[neighbours(paragraphs, offset), column] for column, offset in JOINT[number]]
        expected = joint_hash(number, parts) if paragraphs else np.zeros(0)
        assert hashes[layout.places].tolist() == expected.tolist()


def test_no_words():
    layout = laid_out([])
    assert len(layout.at(0, layout.rows)) == len(layout.places) == 0
