"""One stage: a text does not see its batch, nothing once written changes, and calls are counted as they are made."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from cascaded_dllm import blocked_softmax
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
from cascaded_dllm.errors import ConfigError, NonFiniteScoresError
from cascaded_dllm.sample import first_words
from cascaded_dllm.sample import writing as writing_module
from cascaded_dllm.sample.predictors import PREDICTORS, Predictor, has_grid, predictor_from_name
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import SamplerState, Start
from cascaded_dllm.sample.token_law import TokenLaw
from tests.reference.enumerate import contains_in_order
from tests.unit.model.tiny import tiny_model

# More than one block of 256 columns, so that both uniform numbers of a draw matter.
VOCAB, LENGTH, PREFIX_LENGTH = 300, 6, 3
DRAWS = Draws(0, "sampler-test")
CASES = [
    (options, name)
    for options in (
        {"parameterization": "score"},
        {"parameterization": "score", "prefix_attention": "one_way"},
        {"parameterization": "normalized"},
        {"parameterization": "normalized", "prefix_attention": "one_way", "time_conditioning": False},
        {"parameterization": "normalized", "copy_head": True, "time_conditioning": False},
        {"parameterization": "normalized", "copy_head": True, "prefix_attention": "one_way"},
        {"process": "uniform", "scale_by_sigma": False},
    )
    for name in PREDICTORS
    if name in ("euler", "analytic")
    or (options.get("process") != "uniform" and name == "first_hitting")
    # The others share all that depends on the network with these: two networks that differ in everything will do.
    or options == {"parameterization": "score"}
    or "time_conditioning" in options
]
EACH_CASE = pytest.mark.parametrize(("options", "name"), CASES, ids=str)


def stage(options: dict[str, Any]) -> StageSampler:
    model = tiny_model(vocab_size=VOCAB, seed=3, **options)
    process = process_from_name(model.config.process, VOCAB)
    with torch.no_grad():
        # Scores of a random network sum to far more than one, and everything would be written in the first step.
        model.output_layer.linear.weight *= 0.2
        model.output_layer.linear.bias *= 0.2
    schedule = LogLinearSchedule() if model.config.process == "absorbing" else GeometricSchedule(0.01, 2.0)
    # The grid stops early, so that the last step has something left to write.
    return StageSampler(model, process, schedule, LENGTH, t_end=0.2)


def prefixes(count: int) -> Tensor:
    return torch.randint(VOCAB, (count, PREFIX_LENGTH), generator=torch.Generator().manual_seed(1))


def states(
    sampler: StageSampler,
    name: str,
    index: Tensor,
    *,
    prefix: Tensor | None = None,
    num_steps: int = 4,
    draws: Draws = DRAWS,
    **asked: Any,
) -> list[SamplerState]:
    predictor: Predictor = predictor_from_name(name)
    settings = {"predictor": predictor, "num_steps": num_steps, "draws": draws, "sample_index": index}
    return list(sampler.states(prefix, **settings, **asked))


@EACH_CASE
@pytest.mark.parametrize("where", ["trunk", "output", "one token"])
def test_a_network_that_gives_no_law(options: dict[str, Any], name: str, where: str) -> None:
    """An error, no text and no index that is out of range."""
    sampler = stage(options)
    with torch.no_grad():
        if where == "trunk":
            sampler.model.blocks[0].mlp[0].bias[0] = torch.nan
        else:
            sampler.model.output_layer.linear.bias[slice(None) if where == "output" else 7] = torch.inf
    with pytest.raises(
        NonFiniteScoresError, match=r"NaN or infinity at \d+ of 12 positions, and no token .* try an earlier"
    ):
        states(sampler, name, torch.arange(2), prefix=prefixes(2))


@pytest.mark.parametrize("name", PREDICTORS)
def test_required_words_of_a_network_that_gives_no_law(name: str) -> None:
    sampler = stage({"parameterization": "normalized"})
    with torch.no_grad():
        sampler.model.blocks[0].mlp[0].bias[0] = torch.nan
    for asked in ("required", "words"):
        with pytest.raises(NonFiniteScoresError, match="NaN or infinity"):
            states(sampler, name, torch.arange(2), prefix=prefixes(2), **{asked: [[(1, 2), (3,)]] * 2})


def course_of(seen: list[SamplerState], row: int = 0) -> list[list[int]]:
    """What becomes of a text, step by step; a text waits while only others of its batch are written."""
    return [text for text, _ in itertools.groupby(state.xt[row].tolist() for state in seen)]


@EACH_CASE
def test_text_does_not_see_its_batch(options: dict[str, Any], name: str) -> None:
    """Five texts together, one by one, and in another order, with a prefix and without: the same ids at every step."""
    sampler, index = stage(options), torch.tensor([0, 7, 3, 12, 5])
    for prefix in (None, prefixes(5)):
        together = states(sampler, name, index, prefix=prefix)
        order = torch.tensor([4, 2, 0, 3, 1])
        shuffled = states(sampler, name, index[order], prefix=None if prefix is None else prefix[order])
        assert torch.equal(shuffled[-1].xt, together[-1].xt[order])
        for row in range(5):
            part = slice(row, row + 1)
            alone = states(sampler, name, index[part], prefix=None if prefix is None else prefix[part])
            assert course_of(alone) == course_of(together, row)


@EACH_CASE
def test_course_of_a_text(options: dict[str, Any], name: str) -> None:
    """From noise to text: every step is yielded, the last state holds tokens only, written tokens stay."""
    sampler = stage(options)
    course = states(sampler, name, torch.arange(20), num_steps=5)
    num_steps = 6 if has_grid(predictor_from_name(name)) else LENGTH
    assert [state.step for state in course] == list(range(num_steps + 1))
    assert {state.num_steps for state in course} == {num_steps}
    assert all(state.xt.shape == (20, LENGTH) for state in course)
    assert course[-1].xt.min() >= 0
    assert course[-1].xt.max() < VOCAB
    num_moved = [int((a.xt != b.xt).sum()) for a, b in itertools.pairwise(course)]
    assert min(num_moved) > 0, "a test in which nothing happens in some step shows little"
    if sampler.model.config.process == "absorbing":
        assert (course[0].xt == VOCAB).all()
        for before, after in itertools.pairwise(course):
            is_written = before.xt < VOCAB
            is_kept = after.xt[is_written] == before.xt[is_written]
            assert is_kept.all() or name == "remask"
            assert (is_kept | (after.xt[is_written] == VOCAB)).all()
        if not has_grid(predictor_from_name(name)):
            assert [int((state.xt == VOCAB).sum()) for state in course] == [20 * left for left in range(LENGTH, -1, -1)]
    else:
        assert len(course[0].xt.unique()) > 20


@EACH_CASE
def test_seed_and_purpose_decide(options: dict[str, Any], name: str) -> None:
    sampler, index = stage(options), torch.arange(4)
    first = states(sampler, name, index)[-1].xt
    assert torch.equal(first, states(sampler, name, index)[-1].xt)
    for other in (Draws(1, "sampler-test"), Draws(0, "other")):
        assert not torch.equal(first, states(sampler, name, index, draws=other)[-1].xt)
    assert not torch.equal(first, states(sampler, name, index + 4)[-1].xt)
    assert len({tuple(row) for row in first.tolist()}) == 4


@EACH_CASE
def test_prefix_matters(options: dict[str, Any], name: str) -> None:
    sampler, index = stage(options), torch.arange(6)
    with_prefix = states(sampler, name, index, prefix=prefixes(6))[-1].xt
    assert not torch.equal(with_prefix, states(sampler, name, index)[-1].xt)
    assert not torch.equal(with_prefix, states(sampler, name, index, prefix=prefixes(6).flip(0))[-1].xt)


def computed(sampler: StageSampler) -> list[int]:
    """The number of sequences of every call of the network from now on."""
    sizes: list[int] = []
    sampler.model.vocab_embed.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


@EACH_CASE
def test_calls_are_counted(options: dict[str, Any], name: str) -> None:
    """`nfe` is the number of sequences computed over those of the batch; many steps cost a normalised network no more
    than one call a token."""
    sampler = stage(options)
    sizes = computed(sampler)
    num_steps = 40
    course = states(sampler, name, torch.arange(5), num_steps=num_steps)
    assert course[0].nfe == 0
    assert abs(course[-1].nfe - sum(sizes) / 5) < 1e-9
    if not has_grid(predictor_from_name(name)):
        assert course[-1].nfe == LENGTH
    elif name == "remask":
        assert 1 < course[-1].nfe < num_steps
    elif name == "ancestral" or options.get("parameterization") == "normalized":
        assert course[-1].nfe <= LENGTH
        # Texts at different times share a call.
        assert len(sizes) <= LENGTH
    elif options.get("process") == "uniform":
        assert course[-1].nfe == num_steps + 1
    else:
        # A text that is finished is not computed any more.
        assert num_steps / 4 < course[-1].nfe <= num_steps + 1
        assert min(sizes) < 5
    for before, after in itertools.pairwise(course):
        assert after.nfe >= before.nfe


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("reading", ["score", "normalized"])
def test_size_of_chunks_does_not_matter(reading: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = stage({"parameterization": reading})
    whole = states(sampler, name, torch.arange(7))[-1].xt
    for rows in (0, 1, 3):
        monkeypatch.setattr(writing_module, "_ROW_CHUNK_ELEMENTS", rows * (VOCAB + 1))
        monkeypatch.setitem(blocked_softmax._CHUNK_BYTES, "cpu", 4 * rows * VOCAB)
        assert torch.equal(states(sampler, name, torch.arange(7))[-1].xt, whole)


@EACH_CASE
def test_consumer_keeps_its_gradients(options: dict[str, Any], name: str) -> None:
    """Whoever watches the states may train in between: no mode of the sampler is on while it waits."""
    sampler, weight = stage(options), torch.ones(3, requires_grad=True)
    predictor = predictor_from_name(name)
    for state in sampler.states(
        prefixes(2), predictor=predictor, num_steps=2, draws=DRAWS, sample_index=torch.arange(2)
    ):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert not state.xt.is_inference()
        (weight[state.xt % 3] ** 2).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_states_are_snapshots() -> None:
    course = states(stage({}), "euler", torch.arange(3), num_steps=8)
    assert len({state.xt.data_ptr() for state in course}) == len(course)
    assert (course[0].xt == VOCAB).all()


@pytest.mark.parametrize("num_steps", [0, -1])
def test_steps_below_one(num_steps: int) -> None:
    for options in ({}, {"process": "uniform"}):
        with pytest.raises(ConfigError, match=rf"steps is {num_steps}; it must be at least 1, for example 128"):
            states(stage(options), "euler", torch.arange(1), num_steps=num_steps)


def test_one_step_is_enough() -> None:
    for options, name in CASES:
        assert states(stage(options), name, torch.arange(2), num_steps=1)[-1].xt.max() < VOCAB


@pytest.mark.parametrize("name", sorted(set(PREDICTORS) - {"euler", "analytic"}))
def test_most_predictors_need_the_absorbing_process(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"predictor {name} needs the absorbing process, .* euler or analytic"):
        states(stage({"process": "uniform"}), name, torch.arange(1))


def asked(sampler: StageSampler, count: int = 5, name: str = "first_hitting", **options: Any) -> Tensor:
    """Finished texts, with whatever else is asked."""
    predictor, index = predictor_from_name(name), torch.arange(count)
    *_, last = sampler.states(None, predictor=predictor, num_steps=1, draws=DRAWS, sample_index=index, **options)
    return last.xt


def test_the_uniform_process_keeps_nothing() -> None:
    sampler = stage({"process": "uniform"})
    for options, message in (
        (
            {"law": TokenLaw(top_k=3)},
            "tokens are to be drawn with top_k 3, which needs .*; leave temperature, top_k and",
        ),
        ({"words": [[(1,)]]}, "text is required or pinned, which needs the absorbing process, .* ask for none, or"),
        ({"required": [[(1,)]]}, "text is required or pinned, which needs the absorbing process, .* ask for none, or"),
    ):
        with pytest.raises(ConfigError, match=message):
            asked(sampler, name="euler", **options)


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("reading", ["score", "normalized"])
def test_what_is_pinned_stays(reading: str, name: str) -> None:
    """Whatever the predictor, and though one of them masks tokens again; the other positions are written."""
    sampler = stage({"parameterization": reading})
    xt = torch.full((3, LENGTH), VOCAB)
    xt[:, 1], xt[0, 4], xt[2] = 7, 9, torch.arange(LENGTH)
    predictor = predictor_from_name(name)
    index = torch.arange(3)
    start = Start(xt, torch.ones(3))
    seen = list(sampler.states(None, predictor=predictor, num_steps=20, draws=DRAWS, sample_index=index, start=start))
    for state in seen:
        assert torch.equal(state.xt[xt < VOCAB], xt[xt < VOCAB])
    assert seen[-1].xt.max() < VOCAB
    assert course_of(seen, 2) == [list(range(LENGTH))]


@pytest.mark.parametrize("how", ["words", "required"])
def test_words_see_no_batch(how: str) -> None:
    """Texts that must contain different words, together and alone, before all else or among it."""
    sampler = stage({})
    words: list[list[tuple[int, ...]]] = [[(5,), (6, 7)], [], [(1, 2, 3)], [(9,), (9,)], [(4,)]]
    together = asked(sampler, **{how: words})
    for row in range(5):
        *_, alone = sampler.states(
            None, predictor=predictor_from_name("first_hitting"), num_steps=1, draws=DRAWS,
            sample_index=torch.tensor([row]), **{how: words[row : row + 1]},
        )  # fmt: skip
        assert torch.equal(alone.xt[0], together[row])
        # Words that are written before all else take a call for each of their placings, and none for their tokens.
        more = 8 * len(words[row]) - sum(map(len, words[row])) if how == "words" else 0
        assert alone.nfe == LENGTH + more
        assert contains_in_order(together[row].tolist(), words[row])
    # What asks for nothing is what it was.
    assert torch.equal(asked(sampler)[1], together[1])


def test_placings_of_a_text_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls are short, more words have fewer placings, whatever stands beside them."""
    assert [first_words.num_placings(number) for number in (0, 1, 8, 9, 64, 100)] == [1, 8, 8, 7, 1, 1]
    monkeypatch.setattr(first_words, "_CALLS", 3)
    sampler = stage({})
    words: list[list[tuple[int, ...]]] = [[(5,), (6,)], [(4,)], [], [(7,), (8,), (9,)]]
    together = asked(sampler, 4, words=words)
    for row, placings in enumerate((1, 3, 1, 1)):
        *_, alone = sampler.states(
            None, predictor=predictor_from_name("first_hitting"), num_steps=1, draws=DRAWS,
            sample_index=torch.tensor([row]), words=words[row : row + 1],
        )  # fmt: skip
        assert torch.equal(alone.xt[0], together[row])
        assert alone.nfe == LENGTH + (placings - 1) * len(words[row])


def test_words_may_fill_a_text() -> None:
    """There is nothing left to write, and one state; also where the network is told how noisy a text is."""
    sampler = stage({"time_conditioning": True})
    words = [[(1, 2), (3,), tuple(range(4, LENGTH + 1))]]
    *before, last = sampler.states(
        None, predictor=predictor_from_name("first_hitting"), num_steps=1, draws=DRAWS,
        sample_index=torch.tensor([0]), words=words,
    )  # fmt: skip
    assert (before, last.step, last.num_steps, last.nfe) == ([], 0, 0, 3 * 8)
    assert last.xt[0].tolist() == list(range(1, LENGTH + 1))


def test_words_without_room() -> None:
    sampler, long = stage({}), [(1, 2), (3, 4), (5, 6), (7,)]
    message = rf"4 words of 7 tokens are required in order, and there is no room for them: the stage writes {LENGTH} "
    for how in ("words", "required"):
        with pytest.raises(
            ConfigError, match=message + "tokens, of which 6 are free; require fewer words, or pin less"
        ):
            asked(sampler, 1, **{how: [long]})
    pinned = torch.full((1, LENGTH), VOCAB)
    pinned[0, 2] = 50
    start = Start(pinned, torch.ones(1))
    with pytest.raises(ConfigError, match=r"1 words of 4 tokens are required .* of which 5 are free"):
        asked(sampler, 1, required=[[(1, 2, 3, 4)]], start=start)
    assert asked(sampler, 1, required=[[(1, 2), (3, 4)]], start=start)[0, 2] == 50
    with pytest.raises(ConfigError, match="a required word has no token; leave out words that are empty"):
        asked(sampler, 1, required=[[()]])


@pytest.mark.parametrize("length", [0, PREFIX_LENGTH + 1])
def test_prefix_of_another_length_is_refused(length: int) -> None:
    sampler, index = dataclasses.replace(stage({}), prefix_length=length), torch.arange(2)
    message = rf"the prefix has {PREFIX_LENGTH} tokens, this stage was trained on {length}; give it what"
    with pytest.raises(ConfigError, match=message):
        states(sampler, "euler", index, prefix=prefixes(2))
    assert states(
        dataclasses.replace(sampler, prefix_length=PREFIX_LENGTH), "euler", torch.arange(2), prefix=prefixes(2)
    )
