import hashlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.importance.tagger_features import (
    BOUNDARY,
    JOINT,
    NUM_PROPERTIES,
    REACH,
    ROLES,
    VERSION,
    joint_hash,
    word_features,
)
from cascaded_dllm.importance.tagger_weights import bucket

LEXICON = {"fox": "NN", "ran": "VBD", "Paris": "NNP"}
WORDS = ["fox", "Fox", "Paris", "1987", "don\u2019t", "me@here.org", "\u65e5\u672c", "\U0001f98a", "...", ""]

DESCRIBE = """
import json, sys
from cascaded_dllm.importance.tagger_features import word_features
features = word_features(json.loads(sys.argv[1]), {"fox": "NN", "ran": "VBD", "Paris": "NNP"})
print(json.dumps([array.tolist() for array in (features.hashes, features.counts, features.properties)]))
"""


def as_lists(features):
    return [array.tolist() for array in (features.hashes, features.counts, features.properties)]


def of_role(word, role, lexicon=LEXICON):
    """The hashes of a word's features in a role."""
    features = word_features([word], lexicon)
    ends = np.cumsum(features.counts[0])
    number = [other.name for other in ROLES].index(role)
    return set(features.hashes[ends[number] - features.counts[0, number] : ends[number]].tolist())


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_hashes_are_the_same_in_every_process(seed):
    command = [sys.executable, "-c", DESCRIBE, json.dumps(WORDS)]
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    assert json.loads(printed) == as_lists(word_features(WORDS, LEXICON))


def test_hashes_belong_to_their_version():
    """Weights in files are for these features: whoever changes them gives VERSION a new number, and trains anew."""
    features = word_features(WORDS, LEXICON)
    joint = [joint_hash(number, [features.properties[:, 0]] * 2) for number in range(len(JOINT))]
    arrays = [features.hashes, features.counts.astype(np.uint64), features.properties, *joint]
    digest = hashlib.sha256(b"".join(array.astype("<u8").tobytes() for array in arrays)).hexdigest()[:16]
    assert (VERSION, digest) == (1, "b3034e16a52f7fe6")


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_words_do_not_depend_on_one_another(words):
    together = word_features(words, LEXICON)
    single = [word_features([word], LEXICON) for word in words]
    assert together.hashes.tolist() == [value for features in single for value in features.hashes.tolist()]
    assert together.counts.tolist() == [features.counts[0].tolist() for features in single]
    assert together.properties.tolist() == [features.properties[0].tolist() for features in single]
    assert together.counts.shape == (len(words), len(ROLES))
    assert together.properties.shape == (len(words), NUM_PROPERTIES)
    assert together.counts.min() >= 1
    assert together.counts.sum() == len(together.hashes)


def test_roles_have_features_of_their_own():
    roles = [role.name for role in ROLES]
    found = [of_role("fox", role) for role in roles]
    assert len(set.union(*found)) == sum(map(len, found))
    assert all(len(of_role(BOUNDARY, role)) == 1 for role in roles)


def test_what_neighbours_share():
    for role in ("left", "right 2"):
        # Digits are alike, capitals are not, and neither are words with another entry.
        assert of_role("1987", role, {}) == of_role("2024", role, {})
        assert len(of_role("fox", role, {}) - of_role("Fox", role, {})) == 1, "the shape"
        assert len(of_role("fox", role, {}) - of_role("fox", role, {"fox": "NN"})) == 1, "the entry"
        assert of_role("don't", role) == of_role("don\u2019t", role), "one apostrophe is like another"


def test_endings_and_beginnings_are_shared():
    shared = of_role("jumping", "centre", {}) & of_role("running", "centre", {})
    # The bias, three endings, the form's length, the ending with the shape, the shape and three kinds of no entry.
    assert len(shared) == 10
    assert len(of_role("under", "centre", {}) & of_role("understand", "centre", {})) == 4 + 5


@pytest.mark.parametrize(
    ("word", "same", "other"),
    [
        ("Fox", "Cat", "fox"),
        ("NASA", "UNESCO", "Nasa"),
        ("3rd", "5th", "3.0"),
        ("me@here.org", "http://x.org/a", "here.org"),
        ("\u65e5\u672c", "\u4e2d\u56fd", "no"),
    ],
)
def test_shapes(word, same, other):
    shape = word_features([word, same, other], {}).properties[:, 2].tolist()
    assert shape[0] == shape[1] != shape[2]


def test_joint_features_are_told_apart():
    a, b = word_features(["fox", "hare"], {}).properties[:, :2].T
    before = a.tolist()
    hashes = [joint_hash(0, [a, b]), joint_hash(0, [b, a]), joint_hash(1, [a, b]), joint_hash(0, [a, a])]
    assert len({value for found in hashes for value in found.tolist()}) == 8
    assert a.tolist() == before, "what is given stays as it is"
    assert max(abs(offset) for feature in JOINT for _, offset in feature) == REACH


def test_buckets_are_filled_evenly():
    """10,000 hashes of words: of 64 parts of the table each has 156 on average, with a deviation of 12.4."""
    features = word_features(["".join(letters) for letters in itertools.product("abcdefghij", repeat=4)], {})
    properties = features.properties[:, 0]
    for hashes in (properties, joint_hash(3, [properties, properties[::-1]])):
        counts = np.bincount(bucket(hashes) >> 15, minlength=64)
        assert len(counts) == 64
        assert counts.min() > 156 - 75
        assert counts.max() < 156 + 75
