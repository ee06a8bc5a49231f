import itertools

from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.cascade.select import select_positions

LABELS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, -100])
SCORES = st.sampled_from([-1.2, -1.1, -1.0, -0.3, 0.0, 0.2, 0.2, 0.7, 1.0, 1.1])


@st.composite
def cases(draw, values):
    ids = draw(st.lists(st.integers(0, 12), min_size=1, max_size=40))
    importance = draw(st.lists(values, min_size=len(ids), max_size=len(ids)))
    lengths = draw(st.lists(st.integers(1, len(ids)), min_size=1, max_size=5, unique=True))
    return ids, importance, sorted(lengths)


def check_shape(ids, lengths, stages):
    assert [len(stage) for stage in stages] == lengths
    for stage in stages:
        assert all(a < b for a, b in itertools.pairwise(stage))
    for inner, outer in itertools.pairwise(stages):
        assert set(inner) <= set(outer)
    if lengths[-1] == len(ids):
        assert stages[-1] == list(range(len(ids)))


@given(cases(LABELS))
def test_constituency(case):
    ids, labels, lengths = case
    stages = select_positions(ids, labels, lengths, method="constituency")
    shortened = [length for length in lengths if length < len(ids)]
    capacity = len({token for token, label in zip(ids, labels, strict=True) if label != -100})
    assert (stages is None) == bool(shortened and shortened[-1] > capacity)
    if stages is None:
        return
    check_shape(ids, lengths, stages)
    for stage in stages[: len(shortened)]:
        kept = [ids[i] for i in stage]
        assert len(set(kept)) == len(kept)
        assert all(labels[i] != -100 for i in stage)
        # Whatever is left out with a better label than something kept is a copy of a kept token.
        worst = max(labels[i] for i in stage)
        for i in set(range(len(ids))) - set(stage):
            if labels[i] != -100 and labels[i] < worst:
                assert ids[i] in kept


@given(cases(SCORES))
def test_keybert(case):
    ids, scores, lengths = case
    stages = select_positions(ids, scores, lengths, method="keybert_no_stopword")
    shortened = [length for length in lengths if length < len(ids)]
    words = {token for token, score in zip(ids, scores, strict=True) if score <= 1}
    capacity = len(words) + sum(score > 1 for score in scores)
    assert (stages is None) == bool(shortened and shortened[-1] > capacity)
    if stages is None:
        return
    check_shape(ids, lengths, stages)
    for stage in stages[: len(shortened)]:
        once = [ids[i] for i in stage if scores[i] <= 1]
        assert len(set(once)) == len(once)
        worst = min(scores[i] for i in stage)
        for i in set(range(len(ids))) - set(stage):
            assert scores[i] <= worst or ids[i] in once
