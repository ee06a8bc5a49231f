"""What texts cost flat models and cascades, whatever stands beside them."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Pin
from cascaded_dllm.text_scorer import TextScorer
from cascaded_dllm.train.objective import Batch, Objective
from tests.pipeline import tiny

NETWORK = ("model.parameterization=normalized", "model.time_conditioning=false", "optim.lr=0.1")
QUICK = ("sampling.num_samples=0", "training.num_steps=4")
PAIRS = [("Once there was a", " fox"), ("Once there was a", " fox in a"), ("", "Once"), ("The old ", "cat saw")]


@pytest.fixture(scope="module")
def models(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cascade]:
    """A flat model, and a cascade whose last stage is a placed one."""
    folder = tmp_path_factory.mktemp("scorer")

    def trained(name: str, *overrides: str) -> Path:
        list(assemble_run(tiny.config(stories, folder / name, *NETWORK, *QUICK, *overrides)).events())
        return folder / name

    stages = [
        trained("stage1"),
        trained("stage2", "stage=2"),
        trained("stage3", "stage=3", "conditioning=placed", "layout.num_blocks=1"),
    ]
    flat = Cascade.from_pretrained([trained("flat", "baseline=true")])
    return {"flat": flat, "cascade": Cascade.from_pretrained(stages)}


def test_a_flat_model_pays_for_the_continuation(models: dict[str, Cascade]) -> None:
    """As all orders of its tokens say, given the context and the end of text before it; so does the integral."""
    scorer = TextScorer(cascade=models["flat"], num_orders=60)
    found = scorer.continuation_nats(PAIRS[:2])
    tokenizer, stage = scorer.cascade.tokenizer, scorer.cascade.stages[0]
    for value, (context, continuation) in zip(found, PAIRS, strict=False):
        before = [tokenizer.eos_id, *tokenizer.encode(context).ids]
        after = tokenizer.encode(continuation).ids
        assert tokenizer.encode(context + continuation).ids == [*before[1:], *after]
        nats = []
        for order in itertools.permutations(range(len(after))):
            state = [*before, *[tokenizer.mask_id] * len(after)]
            total = 0.0
            for place in order:
                with torch.no_grad():
                    scores = stage.model(torch.tensor([state]), torch.ones(1))[0, len(before) + place]
                total -= float(scores[: tokenizer.vocab_size].double().log_softmax(-1)[after[place]])
                state[len(before) + place] = after[place]
            nats.append(total)
        assert value == pytest.approx(sum(nats) / len(nats), rel=0.05)
    copies = 400
    batch = Batch(
        torch.tensor([[*before, *after]]).expand(copies, -1),
        None,
        torch.arange(copies),
        places=torch.arange(len(before)).expand(copies, -1),
    )
    objective = Objective(stage.process, stage.schedule, 1e-3)
    integral = objective.bound(stage.model, batch, draws=Draws(0, "bound"), num_times=8).nll_nats
    assert abs(float(integral.mean()) - found[1]) < 4 * float(integral.std()) / copies**0.5 < 0.4 * found[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "cascade"])
def test_the_batch_decides_nothing(models: dict[str, Cascade], kind: str) -> None:
    one, other = (TextScorer(cascade=models[kind], num_times=2, num_orders=2, batch_size=size) for size in (1, 32))
    found = one.continuation_nats(PAIRS)
    assert found == pytest.approx(other.continuation_nats(PAIRS[::-1])[::-1], rel=1e-5)
    assert min(found) > 0


def test_texts_of_any_length(models: dict[str, Cascade]) -> None:
    """Every token is paid for once: windows add up, and a text of one window costs what a continuation costs."""
    text = "Once there was a fox. The old cat saw a tree."
    scorers = {kind: TextScorer(cascade=cascade, num_times=2, num_orders=2) for kind, cascade in models.items()}
    [short] = scorers["flat"].text_nats([text])
    assert short == pytest.approx(scorers["flat"].continuation_nats([("", text)])[0], rel=1e-6)
    for scorer in scorers.values():
        short, long, nothing = scorer.text_nats([text, " ".join([text] * 6), ""])
        assert 0 == nothing < 2 * short < long


def test_a_context_that_is_cut_inside_a_character(models: dict[str, Cascade], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of it has no other tokens than in the context, so it leaves the continuation where it was."""
    found: list[str] = []

    def costs(scorer: TextScorer, text: str) -> list[float]:
        found.append(text)
        return []

    monkeypatch.setattr(TextScorer, "_window_costs", costs)
    scorer = TextScorer(cascade=models["cascade"])
    encode = scorer.cascade.tokenizer.encode
    contexts = ["\u00e9" * 30, "\u00e9" * 30 + "a"]
    scorer.continuation_nats([(context, " fox") for context in contexts])
    for text, context in zip(found, contexts, strict=True):
        assert f"{context} fox".endswith(text)
        assert scorer.window - 3 < len(encode(text).ids) < scorer.window


def test_continuations_of_a_long_context_have_the_same_part_of_it(
    models: dict[str, Cascade], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cascade pays for the context too: what one continuation left out of it, another one would pay for."""
    found: list[str] = []
    monkeypatch.setattr(TextScorer, "_window_costs", lambda scorer, text: found.append(text) or [])
    scorer = TextScorer(cascade=models["cascade"])
    long, short = "The old cat saw a tree near the fox." * 9, "Once there was"
    ends = [" fox", " fox in a tree near a cat", " tree"]
    scorer.continuation_nats([(context, end) for end in ends for context in (long, short)])
    kept = [text.removesuffix(end) for text, end in zip(found[::2], ends, strict=True)]
    assert len(set(kept)) == 1
    assert kept[0]
    assert long.endswith(kept[0])
    assert len(scorer.cascade.tokenizer.encode(found[2]).ids) < scorer.window, "an end of text follows"
    assert found[1::2] == [short + end for end in ends]


def test_what_is_kept_of_a_context_is_pinned_as_it_is(
    models: dict[str, Cascade], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens, not their text, which could be cut into more of them that would count as written."""
    pinned = []

    def generate(cascade: Cascade, *arguments: Any, **options: Any) -> SimpleNamespace:
        pinned.extend(options["pinned"])
        return SimpleNamespace(ids=[torch.zeros(1, 40, dtype=torch.long)])

    monkeypatch.setattr(Cascade, "generate", generate)
    for cascade, stage, most in ((models["flat"], 1, 20), (models["cascade"], 3, 16)):
        for context in ("\u00e9" * 30, "\u00e9" * 30 + "a"):
            TextScorer(cascade=cascade).written([context])
            assert pinned.pop() == Pin(stage, "start", tuple(cascade.tokenizer.encode(context).ids[-most:]))


def test_what_is_written(models: dict[str, Cascade]) -> None:
    """As many tokens as there is room for; a long context is known by its end."""
    for cascade in models.values():
        short, long = TextScorer(cascade=cascade).written(["Once there was", " fox" * 90])
        assert short
        assert long


def test_a_stage_without_room_for_a_context(models: dict[str, Cascade], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that adds one token keeps nothing of the context, not all of it."""
    pinned = []

    def generate(cascade: Cascade, *arguments: Any, **options: Any) -> SimpleNamespace:
        pinned.append(options["pinned"])
        return SimpleNamespace(ids=[torch.zeros(1, 40, dtype=torch.long)])

    monkeypatch.setattr(Cascade, "generate", generate)
    monkeypatch.setattr(Cascade, "stage_lengths", property(lambda cascade: cascade.trained_lengths))
    cascade = Cascade(models["cascade"].stages, models["cascade"].tokenizer, (4, 39, 40))
    TextScorer(cascade=cascade).written(["Once there was a fox"])
    assert pinned == [()]


def test_what_cannot_be_measured(models: dict[str, Cascade]) -> None:
    flat = TextScorer(cascade=models["flat"], num_orders=1)
    for continuation, number in (("", 0), (" fox" * 60, 60)):
        with pytest.raises(ConfigError, match=f"a continuation has {number} tokens, and the models write 40, of which"):
            flat.continuation_nats([("Once", continuation)])
    # A context that is too long loses its beginning.
    assert flat.continuation_nats([(" fox" * 90, " tree")])[0] > 0
    for name in ("num_times", "num_orders", "batch_size"):
        with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
            TextScorer(cascade=models["flat"], **{name: 0})
    with pytest.raises(ConfigError, match="seed is True; it must be a whole number"):
        TextScorer(cascade=models["flat"], seed=True)
    part = Cascade(models["cascade"].stages[:2], models["cascade"].tokenizer, (4, 8, 40))
    with pytest.raises(ConfigError, match="2 of 3 stages are given, which do not write a whole text; give all"):
        TextScorer(cascade=part)


@pytest.mark.parametrize("name", ["flat", "cascade"])
def test_half_precision_by_default(models: dict[str, Cascade], name: str) -> None:
    scorer = TextScorer(cascade=models[name], num_times=2, num_orders=2)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(ConfigError, match=r"torch's default dtype is torch\.bfloat16, which is too coarse"):
            scorer.text_nats(["Once there was a fox"])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["flat", "cascade"])
def test_another_default_device(models: dict[str, Cascade], name: str) -> None:
    scorer = TextScorer(cascade=models[name], num_times=2, num_orders=2)
    plain = (scorer.continuation_nats(PAIRS[:1]), scorer.text_nats(["Once there was a fox"]))
    with torch.device("meta"):
        assert (scorer.continuation_nats(PAIRS[:1]), scorer.text_nats(["Once there was a fox"])) == plain
