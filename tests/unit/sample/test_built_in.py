"""The cascades that come with the package: what is there is what was trained, and does what is said of it."""

import re
from pathlib import Path

import pytest

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.sample.bundle import BUILT_IN
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.loading import bundle_folder
from cascaded_dllm.sample.settings import absolute_source
from cascaded_dllm.text.stories import StoryGrammar, story_tokenizer

# Said in the model card: of 1,024 texts. Of 128 such texts fewer than this are accepted once in a million times.
ACCEPTED, AT_LEAST = 0.964, 0.86


@pytest.mark.parametrize("name", BUILT_IN)
def test_name_and_folder_are_one(name: str) -> None:
    folder = bundle_folder(name)
    assert folder == BUILT_IN[name]
    by_name, by_folder = (Cascade.from_pretrained(source).generate(1, seed=3) for source in (name, folder))
    assert by_name.texts == by_folder.texts
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"from_pretrained\(['\"]{name}['\"]\)", card)
    assert 'license: "mit"' in card


def test_a_folder_of_that_name_is_written_with_a_dot(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories").mkdir()
    assert bundle_folder("stories") == BUILT_IN["stories"]
    assert [absolute_source(name) for name in ("stories", "./stories")] == ["stories", str(tmp_path / "stories")]
    assert absolute_source(Path("stories")) == str(tmp_path / "stories")
    with pytest.raises(CheckpointError, match=r"\./stories is not a bundle of all stages"):
        bundle_folder("./stories")
    with pytest.raises(CheckpointError, match=r"there is no bundle stori; did you mean stories, which comes with"):
        bundle_folder("stori")
    # The card of another cascade in such a folder does not load the built-in one.
    other = Cascade.from_pretrained("stories").save_pretrained(tmp_path / "b" / "stories")
    assert "from_pretrained('./stories')" in (other / "README.md").read_text()
    monkeypatch.chdir(other.parent)
    # What a command finds is loaded as a `Path`.
    assert bundle_folder(bundle_folder("./stories")) == Path("stories")


@pytest.mark.slow
def test_stories_are_such() -> None:
    cascade, grammar = Cascade.from_pretrained("stories"), StoryGrammar()
    assert cascade.tokenizer.fingerprint == story_tokenizer().fingerprint
    assert cascade.method == "constituency"
    texts = cascade.generate(128, seed=0).final_texts
    assert sum(map(grammar.accepts, texts)) >= 128 * AT_LEAST
    assert len(set(texts)) == 128
    card = (BUILT_IN["stories"] / "README.md").read_text(encoding="utf-8")
    assert f"{100 * ACCEPTED:.1f} %" in card


@pytest.mark.parametrize("keywords", [("fox", "castle"), ("Zoe", "farmer", "ball")])
def test_stories_hold_their_keywords(keywords: tuple[str, ...]) -> None:
    cascade = Cascade.from_pretrained("stories")
    for text in cascade.generate(8, seed=1, keywords=keywords, require_coverage=True).final_texts:
        assert re.search(".*".join(rf"\b{word}\b" for word in keywords), text)
