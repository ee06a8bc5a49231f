"""What is asked of texts holds in every text, by every predictor, and does not depend on the batch."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.overlap import ordered_coverage_per_text
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.completing import draw_missing
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.predictors import PREDICTORS, has_grid, predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.settings import RunSettings, SampleSettings
from cascaded_dllm.text.listing import listing
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.reference.enumerate import contains_in_order
from tests.unit.model.tiny import tiny_model

LENGTHS, COUNT = (5, 8, 12), 6
# They take a call a token, which takes long. Quick tests write stories with keywords so, by first hitting, which the
# order by confidence differs from in the place that comes next; and that by entropy from it in one number.
IN_ORDER = ("first_hitting", "confidence", "entropy")
EACH_PREDICTOR = pytest.mark.parametrize(
    "predictor", [pytest.param(name, marks=pytest.mark.slow) if name in IN_ORDER else name for name in PREDICTORS]
)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    """Three stages of random weights, of different readings."""
    tokenizer = Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=290)
    readings = ("normalized", "score", "normalized")
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size, seed=seed, parameterization=reading),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
        )
        for seed, (length, reading) in enumerate(zip(LENGTHS, readings, strict=True), start=1)
    )
    return Cascade(stages, tokenizer, LENGTHS)


def drawn(cascade: Cascade, predictor: str = "first_hitting", *, batch_size: int = 32, **asked: Any) -> Any:
    steps = 4 if has_grid(predictor_from_name(predictor)) else None
    return cascade.generate(COUNT, predictor=predictor, steps=steps, seed=7, batch_size=batch_size, **asked)


def words(cascade: Cascade, *texts: str) -> list[tuple[int, ...]]:
    return [tuple(cascade.tokenizer.encode(text).ids) for text in texts]


@EACH_PREDICTOR
def test_keywords_appear_in_order_and_are_kept(cascade: Cascade, predictor: str) -> None:
    """With coverage also in later stages, each in one piece; without it the texts still vary around them."""
    asked = {"keywords": ("dog", "cat"), "require_coverage": True}
    samples = drawn(cascade, predictor, **asked)
    expected = words(cascade, " dog", " cat")
    for ids in samples.ids:
        assert all(contains_in_order(row, expected) for row in ids.tolist())
        assert len(ids.unique(dim=0)) > 1
    for before, after in itertools.pairwise(samples.ids):
        assert (ordered_coverage_per_text(before, after) == 1).all()
    for batch_size in (1, 4) if predictor == "first_hitting" else (4,):
        apart = drawn(cascade, predictor, batch_size=batch_size, **asked)
        assert all(torch.equal(one, many) for one, many in zip(apart.ids, samples.ids, strict=True))
    # Power: random weights keep next to nothing by themselves.
    free = drawn(cascade, predictor)
    assert not all(contains_in_order(row, expected) for row in free.ids[0].tolist())
    assert (ordered_coverage_per_text(*free.ids[:2]) < 1).any()


@EACH_PREDICTOR
def test_pinned_text_is_never_changed_and_never_moves(cascade: Cascade, predictor: str) -> None:
    pins = (Pin(1, 1, " cat"), Pin(3, "start", "the dog"), Pin(3, "end", " saw"))
    asked = {"pinned": pins, "require_coverage": True}
    samples = drawn(cascade, predictor, **asked)
    cat, start, end = words(cascade, " cat", "the dog", " saw")
    assert all(tuple(row[1 : 1 + len(cat)]) == cat for row in samples.ids[0].tolist())
    assert all(tuple(row[: len(start)]) == start for row in samples.ids[2].tolist())
    assert all(tuple(row[-len(end) :]) == end for row in samples.ids[2].tolist())
    assert len(samples.ids[2].unique(dim=0)) == COUNT
    apart = drawn(cascade, predictor, batch_size=1, **asked)
    assert all(torch.equal(one, many) for one, many in zip(apart.ids, samples.ids, strict=True))


def test_pinned_in_every_state(cascade: Cascade) -> None:
    pins = (Pin(2, 3, " dog"),)
    (dog,) = words(cascade, " dog")
    drawing = Drawing(predictor=("remask",), steps=(20,), eta=1.0, control=Control(pins=pins))
    seen = [state.state for state in cascade.stream(3, drawing) if state.stage == 2]
    assert len(seen) == 22
    assert all((state.xt[:, 3 : 3 + len(dog)] == torch.tensor(dog)).all() for state in seen)


def test_outline(cascade: Cascade) -> None:
    """It enters stage 2; what stage 1 holds is chosen by part of speech, as in training."""
    outline = "the dog saw the cat and"
    pieces = words(cascade, *(f" {piece}" for piece in outline.split()))
    assert LENGTHS[0] < sum(map(len, pieces)) <= LENGTHS[1]
    samples = drawn(cascade, outline=outline)
    # Every token once, the function words last: all five, in the order of the outline.
    (chosen,) = samples.ids[0].unique(dim=0).tolist()
    assert cascade.tokenizer.decode(chosen) == " the dog saw cat and"
    assert all(contains_in_order(row, pieces) for row in samples.ids[1].tolist())
    assert len(samples.ids[1].unique(dim=0)) > 1
    assert samples.nfe[0] == 0


def test_texts_of_a_stage_are_gone_on_from(cascade: Cascade) -> None:
    """Given what stages 1 and 2 have written, stage 3 writes what it wrote; text i goes on from text i of those."""
    whole = drawn(cascade)
    first, second = (ids.tolist() for ids in whole.ids[:2])
    ids = tuple((tuple(one), tuple(two)) for one, two in zip(first, second, strict=True))
    again = drawn(cascade, given=GivenStage(stage=2, ids=ids))
    assert all(torch.equal(one, other) for one, other in zip(again.ids, whole.ids, strict=True))
    assert again.texts == whole.texts
    assert again.nfe[:2] == (0.0, 0.0)
    assert again.nfe[2] == whole.nfe[2]
    only = drawn(cascade, given=GivenStage(stage=2, ids=tuple((two,) for _, two in ids)), batch_size=4)
    assert only.stage_numbers == range(2, 4)
    assert torch.equal(only.ids[1], whole.ids[2])
    assert only.token_forwards == again.token_forwards < whole.token_forwards
    # Fewer texts than are drawn: they are taken in turn.
    turns = drawn(cascade, given=GivenStage(stage=2, ids=ids[:2]))
    assert torch.equal(turns.ids[1], whole.ids[1][[0, 1, 0, 1, 0, 1]])


def test_an_outline_of_the_stage_after_a_given_text(cascade: Cascade) -> None:
    """What is given stays, and the stage after it holds the words, whatever the given text says."""
    first = drawn(cascade).given(1)
    given = GivenStage(stage=1, ids=first.ids[:1])
    samples = drawn(cascade, given=given, outline="the dog saw")
    assert all(tuple(row) == first.ids[0][0] for row in samples.ids[0].tolist())
    expected = words(cascade, " the", " dog", " saw")
    assert all(contains_in_order(row, expected) for row in samples.ids[1].tolist())
    assert len(samples.ids[1].unique(dim=0)) > 1


def test_tokens_that_were_drawn_are_pinned_by_their_ids(cascade: Cascade) -> None:
    """The rest of a text is written anew around some of its tokens, which no text need be encoded to."""
    whole = drawn(cascade)
    kept = {1: int(whole.ids[1][0, 1]), 2: int(whole.ids[1][0, 2]), 7: int(whole.ids[1][0, 7])}
    pinned = [Pin(2, place, (token,)) for place, token in kept.items()]
    given = GivenStage(stage=1, ids=whole.given(1).ids[:1])
    again = drawn(cascade, given=given, pinned=pinned)
    for row in again.ids[1].tolist():
        assert {place: row[place] for place in kept} == kept
    assert len(again.ids[1].unique(dim=0)) > 1


def test_stages_before_the_given_one_have_no_file(cascade: Cascade, tmp_path: Path) -> None:
    """A run on the disk from texts of stage 2 alone: files, figures and progress are those of stages 2 and 3."""
    second = drawn(cascade).ids[1].tolist()
    given = GivenStage(stage=2, ids=tuple((tuple(ids),) for ids in second))
    drawing = Drawing(seed=7, control=Control(given=given))
    texts = SampleSettings.of(cascade, drawing, ["a", "b", "c"])
    settings = RunSettings(num_samples=COUNT, batch_size=4, device="cpu", judge=None, texts=texts)
    run = SampleRun.begin(tmp_path, settings)
    told: list[tuple[int, int]] = []
    progress = draw_missing(
        run, cascade, batch_size=4, on_progress=lambda *now: told.append(now), on_state=lambda state: None,
        should_stop=lambda: len(told) > 2 and told[-1][0] > 2 * 4,
    )  # fmt: skip
    assert progress.num_finished == 4
    progress = draw_missing(
        SampleRun.open(run.folder), cascade, batch_size=1,
        on_progress=lambda *now: told.append(now), on_state=lambda state: None, should_stop=lambda: False,
    )  # fmt: skip
    assert told[-1] == (2 * COUNT, 2 * COUNT)
    run.conclude(run.samples(), progress, {})
    expected = drawn(cascade, given=given)
    assert [ids.tolist() for ids in run.samples().ids] == [ids.tolist() for ids in expected.ids]
    assert sorted(path.name for path in run.folder.glob("*.txt")) == ["sample_stage2.txt", "sample_stage3.txt"]
    assert (run.folder / "sample_stage3.txt").read_text() == listing(expected.texts[1])
    record = json.loads((run.folder / "samples.jsonl").read_text().splitlines()[0])
    assert [stage["stage"] for stage in record["stages"]] == [2, 3]


def test_a_shorter_first_text_is_written_around(cascade: Cascade) -> None:
    (cat,) = words(cascade, " cat")
    samples = drawn(cascade, given=GivenStage(stage=1, ids=((cat,),)))
    assert all(contains_in_order(row, [cat]) for row in samples.ids[0].tolist())
    assert samples.ids[0].shape == (COUNT, LENGTHS[0])


def test_provenance_of_what_is_kept(cascade: Cascade) -> None:
    samples = drawn(cascade, require_coverage=True)
    for row in range(COUNT):
        first, second, third = samples.provenance(row)
        assert first == [1] * 5
        assert sorted(second) == [1] * 5 + [2] * 3
        assert sorted(third) == [1] * 5 + [2] * 3 + [3] * 4


def test_each_stage_by_its_own_predictor(cascade: Cascade) -> None:
    samples = cascade.generate(
        COUNT, predictor=["first_hitting", "analytic", "entropy"], steps=[None, 3, None], tokens_per_call=[2, None, 5]
    )
    assert samples.nfe[0] == 3
    assert samples.nfe[1] <= 4
    assert samples.nfe[2] == 3


def test_the_uniform_process_pins_nothing(cascade: Cascade) -> None:
    size = cascade.tokenizer.vocab_size
    model = tiny_model(vocab_size=size, process="uniform", scale_by_sigma=False)
    made = Cascade((StageSampler(model, UniformProcess(size), LogLinearSchedule(), 5),), cascade.tokenizer, (5,))
    stages = Cascade((*cascade.stages[:1], *made.stages), cascade.tokenizer, (*cascade.stage_lengths[:1], 5))
    for asked_of, asked, message in (
        (made, {"pinned": (Pin(1, 0, " cat"),)}, "text is required or pinned"),
        (made, {"keywords": ["cat"]}, "text is required or pinned"),
        (stages, {"require_coverage": True}, "text is required or pinned"),
        (made, {"temperature": 0.5}, r"tokens are to be drawn with temperature 0\.5, which"),
    ):
        with pytest.raises(ConfigError, match=message):
            # Before anything is drawn.
            drawn(asked_of, "euler", on_progress=pytest.fail, **asked)


def test_keywords_that_pinned_text_leaves_no_room_for(cascade: Cascade) -> None:
    asked = Drawing(control=Control(keywords=("cat", "dog", "saw"), pins=(Pin(1, 1, " the cat the"),)))
    with pytest.raises(ConfigError, match=r"3 words of 3 tokens are required .* of which 2 are free"):
        cascade.require_drawable(asked)


def test_a_text_is_no_list_of_keywords(cascade: Cascade) -> None:
    with pytest.raises(ConfigError, match=r"keywords is 'cat'; give a list of words"):
        drawn(cascade, keywords="cat")
    with pytest.raises(ConfigError, match=r"texts is ' cat'; give a list of texts"):
        GivenStage.of_texts(1, " cat", cascade.tokenizer)


def test_coverage_that_pinned_text_leaves_no_room_for(cascade: Cascade) -> None:
    pins = (Pin(2, 0, " cat the dog"), Pin(2, "end", " dog saw"))
    with pytest.raises(ConfigError, match=r"5 words of 5 tokens are required .* of which \d are free; .* or pin less"):
        drawn(cascade, pinned=pins, require_coverage=True)
