"""Placed stages from training to text: what the stage before wrote stands, in order, in every text of the next."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cascaded_dllm.assemble.bound import joint_bound
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.constraints import words_of
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.predictors import PREDICTORS, has_grid, predictor_from_name
from cascaded_dllm.train.snapshot import SnapshotReport
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success

NETWORK = ("model.parameterization=normalized", "model.time_conditioning=false")
PLACED = ("conditioning=placed", "layout.num_blocks=1", *NETWORK)


def trained(stories: Path, folder: Path, *overrides: str) -> Path:
    list(assemble_run(tiny.config(stories, folder, *overrides)).events())
    return folder


@pytest.fixture(scope="module")
def stages(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three stages of 4, 8 and 40 tokens, of which the last two are placed."""
    folder = tmp_path_factory.mktemp("placed")
    return [trained(stories, folder / f"stage{k}", f"stage={k}", *PLACED) for k in (1, 2, 3)]


@pytest.fixture(scope="module")
def cascade(stages: list[Path]) -> Cascade:
    return Cascade.from_pretrained(stages)


def stands_in(short: list[int], long: list[int]) -> bool:
    rest = iter(long)
    return all(token in rest for token in short)


def test_the_first_stage_is_as_ever(stages: list[Path]) -> None:
    found = [load_stage(path) for path in stages]
    assert [isinstance(stage.model, PlacedModel) for stage in found] == [False, True, True]
    assert [stage.settings.layout and stage.settings.layout.num_new for stage in found] == [None, 4, 32]


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_text_contains_the_stage_before(cascade: Cascade, name: str) -> None:
    steps = 3 if has_grid(predictor_from_name(name)) else None
    samples = cascade.generate(6, predictor=name, steps=steps, seed=2)
    mask_id = cascade.tokenizer.mask_id
    for first, second, third in zip(*(ids.tolist() for ids in samples.ids), strict=True):
        assert stands_in(first, second)
        assert stands_in(second, third)
        assert mask_id not in (*first, *second, *third)


def test_calls_are_those_of_the_new_tokens(cascade: Cascade) -> None:
    """And of the gaps, whose network computes a position a gap and never asks about the last one."""
    samples = cascade.generate(2)
    assert samples.nfe == (4.0, 4.0, 32.0)
    assert samples.token_forwards == 2 * (4 * 4 + 4 * 8 + 32 * 40 + 4 * 5 + 8 * 9)


def test_the_same_in_any_batch(cascade: Cascade) -> None:
    together, alone = cascade.generate(5, seed=3), cascade.generate(5, seed=3, batch_size=2)
    for here, there in zip(together.ids, alone.ids, strict=True):
        assert torch.equal(here, there)
    assert not torch.equal(together.ids[-1], cascade.generate(5, seed=4).ids[-1])


def test_words_stay_together(cascade: Cascade) -> None:
    """A keyword of several tokens is one piece in every stage, and so it reads as the word that it is."""
    assert len(cascade.tokenizer.encode(" Xa").ids) > 1
    stages = cascade.generate(20, keywords=["Xa"], seed=1)
    assert all(" Xa" in text for texts in stages.texts for text in texts)


@pytest.mark.parametrize("name", ["first_hitting", "analytic"])
def test_pins(cascade: Cascade, name: str) -> None:
    """They stand where they are pinned in every stage, and the text before stands around them, in order."""
    pins = (Pin(1, "end", " fox"), Pin(2, "start", " Once"), Pin(3, 7, " fox"), Pin(3, "end", " the"))
    steps = 3 if name == "analytic" else None
    samples = cascade.generate(12, pinned=pins, predictor=name, steps=steps, seed=3)
    for texts in zip(*(ids.tolist() for ids in samples.ids), strict=True):
        assert stands_in(texts[0], texts[1])
        assert stands_in(texts[1], texts[2])
        for pin in pins:
            ids = cascade.tokenizer.encode(pin.text).ids
            length = len(texts[pin.stage - 1])
            first = {"start": 0, "end": length - len(ids)}.get(str(pin.position), pin.position)
            assert texts[pin.stage - 1][first : first + len(ids)] == ids
    # New tokens alone are written and counted.
    if name == "first_hitting":
        alone = cascade.generate(2, pinned=pins[2:3], predictor=name, seed=3)
        assert alone.nfe[2] < 32.0
    apart = cascade.generate(12, pinned=pins, predictor=name, steps=steps, seed=3, batch_size=5)
    assert all(torch.equal(here, there) for here, there in zip(samples.ids, apart.ids, strict=True))


@pytest.mark.parametrize("num_words", [3, 8, 12])
def test_outline(cascade: Cascade, num_words: int) -> None:
    """It enters at the first stage with room, placed or not, and stands in every later one in order."""
    outline = " ".join(
        ["a", "fox", "saw", "the", "old", "tree", "and", "ran", "home", "with", "his", "bread"][:num_words]
    )
    samples = cascade.generate(8, outline=outline, seed=5)
    flat = [token for word in words_of(outline, cascade.tokenizer) for token in word]
    entry = next(k for k, length in enumerate(cascade.stage_lengths) if length >= len(flat))
    for texts in zip(*(ids.tolist() for ids in samples.ids), strict=True):
        assert stands_in(texts[0], texts[1])
        assert stands_in(texts[1], texts[2])
        for text in texts[entry:]:
            assert stands_in(flat, text)
            shown = cascade.tokenizer.decode(text)
            assert all(f" {word}" in shown for word in outline.split())


@pytest.mark.slow
def test_outline_with_pins(cascade: Cascade) -> None:
    """The layout makes room for both; what can never have room is refused before anything is drawn."""
    outline, pins = "fox saw the old bread", (Pin(2, 3, " a"),)
    for seed in range(8):
        samples = cascade.generate(4, outline=outline, pinned=pins, seed=seed)
        for text, ids in zip(samples.texts[1], samples.ids[1].tolist(), strict=True):
            assert all(f" {word}" in text for word in outline.split())
            assert cascade.tokenizer.decode(ids[3:4]) == " a"
    drawing = Drawing(control=Control(outline="fox saw the old bread the the the", pins=pins))
    with pytest.raises(ConfigError, match="cannot be laid out around what is pinned or required"):
        cascade.require_drawable(drawing)


def test_an_outline_after_a_given_text(cascade: Cascade) -> None:
    """A placed stage holds the text before, so its outline must hold that too; a pinned token stays beside both."""
    before = words_of("fox saw old bread", cascade.tokenizer)
    ids = tuple(token for word in before for token in word)
    given = GivenStage(stage=1, ids=((ids,),))
    outline = "a fox saw the old bread"
    pins = (Pin(2, "end", tuple(cascade.tokenizer.encode(" his").ids)),)
    samples = cascade.generate(6, given=given, outline=outline, pinned=pins, seed=2)
    for text in samples.ids[1].tolist():
        assert stands_in(ids, text)
        assert stands_in([token for word in words_of(outline, cascade.tokenizer) for token in word], text)
        assert cascade.tokenizer.decode(text).endswith(" his")
    with pytest.raises(
        ConfigError,
        match="stage 2 holds stage 1, and what is asked of it lacks ' fox' in its place; keep ' fox",
    ):
        cascade.generate(1, given=given, outline="a boat")


def test_fewer_calls_for_layouts(cascade: Cascade) -> None:
    """Four or nine gaps, of which the last needs no call."""
    few, many = cascade.generate(2, gaps_per_call=3, seed=4), cascade.generate(2, seed=4)
    assert few.nfe == many.nfe
    assert many.token_forwards - few.token_forwards == 2 * ((4 - 2) * 5 + (8 - 3) * 9)
    for texts in zip(*(ids.tolist() for ids in few.ids), strict=True):
        assert stands_in(texts[0], texts[1])
        assert stands_in(texts[1], texts[2])


def test_commands(stages: list[Path], valid_stories: Path, tmp_path: Path) -> None:
    named = [part for path in stages for part in ("--stage", path)]
    success("sample", *named, "--num-samples", 3, "--output-dir", tmp_path / "out")
    (run,) = (tmp_path / "out").iterdir()
    for line in (run / "samples.jsonl").read_text().splitlines():
        first, second, third = (stage["ids"] for stage in json.loads(line)["stages"])
        assert stands_in(first, second)
        assert stands_in(second, third)
    assert json.loads((run / "summary.json").read_text())["figures"]["ordered_coverage_mean_stage2_in_stage3"] == 1.0
    success("bundle", *named, "--out", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "README.md").read_text().count("| placed |") == 2
    success("sample", "--cascade", tmp_path / "bundle", "--num-samples", 3, "--output-dir", tmp_path / "again")
    (again,) = (tmp_path / "again").iterdir()
    assert (again / "sample_stage3.txt").read_bytes() == (run / "sample_stage3.txt").read_bytes()
    success("sample", *named, "--from-stage", 2, "--input", run, "--output-dir", tmp_path / "on")
    measure = ("evaluate", "likelihood", *named, "--data", valid_stories, "--num-windows", 8, "--num-times", 2)
    shown = success(*measure)
    assert "of it layout" in shown.output
    assert re.search(r"\d\.\d{4} nats/token, \d\.\d{4} bits/character, perplexity", shown.output)
    shown = success(*measure, "--num-orders", 2, "--order-windows", 2, "--all-windows")
    assert re.search(r"token by token: \d+\.\d+ nats a window on the first 2; the integral dif", shown.output)
    summary = json.loads(success(*measure, "--num-orders", 2, "--order-windows", 2, "--json").stdout)
    assert summary["sequential"]["num_windows"] == 2
    assert summary["num_characters"] > 100


def test_joint_bound(cascade: Cascade, valid_stories: Path) -> None:
    """Layouts cost something, less than the stage, and nothing in the first one."""
    data = DataSettings.of_folder(str(valid_stories), packing="document", stages_dir=None)
    options: dict[str, Any] = {"num_windows": 16, "num_times": 4, "seed": 0, "t_min": 1e-3}
    bound = joint_bound(cascade, data, batch_size=16, **options)
    again = joint_bound(cascade, data, batch_size=5, **options)
    torch.testing.assert_close(bound.nll_nats, again.nll_nats, rtol=1e-5, atol=0)
    first, second, third = bound.stages
    assert first.layout_nats is None
    assert second.layout_nats is not None
    assert third.layout_nats is not None
    for stage in (second, third):
        assert ((stage.layout_nats >= 0) & (stage.layout_nats < stage.nll_nats)).all()
    # Only new tokens are paid for, so that only they can be omitted.
    assert second.omitted_nats < third.omitted_nats < 8.5 * second.omitted_nats


def test_a_run_broken_off_ends_as_an_unbroken_one(stories: Path, tmp_path: Path) -> None:
    settings = ("stage=2", *PLACED, "training.num_steps=6", "training.snapshot_every=3")
    whole = assemble_run(tiny.config(stories, tmp_path / "whole", *settings))
    list(whole.events())
    first = assemble_run(tiny.config(stories, tmp_path / "parts", *settings))
    for event in first.events():
        if isinstance(event, SnapshotReport) and event.step == 3:
            break
    second = assemble_run(tiny.config(stories, tmp_path / "parts", *settings))
    list(second.events())
    weights = [load_stage(tmp_path / name).model.state_dict() for name in ("whole", "parts")]
    assert any(name.startswith("layout.blocks.0") for name in weights[0])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_layout_and_fill_learn(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    """Both halves of the loss fall."""
    settings = ("stage=2", *PLACED, f"data.valid='{valid_stories}'", "training.num_steps=60", "training.batch_size=32")
    run = assemble_run(tiny.config(stories, tmp_path / "run", *settings, "training.eval_windows=20"))
    assert run.measure is not None
    before = run.measure(None)
    list(run.events())
    after = run.measure(None)
    assert before.layout_nats is not None
    assert after.layout_nats is not None
    assert after.layout_nats.mean() < 0.95 * before.layout_nats.mean()
    fills = [float((bound.nll_nats - bound.layout_nats).mean()) for bound in (before, after)]
    assert fills[1] < 0.95 * fills[0]


def test_a_flat_network_fills_a_placed_stage(stories: Path, stages: list[Path], tmp_path: Path) -> None:
    """Any flat model may be its start; the layout network has none."""
    flat = trained(stories, tmp_path / "flat", "baseline=true", *NETWORK)
    start = ("pretrained.use_pretrained=true", f"pretrained.model_path='{flat}'", "training.num_steps=2")
    run = assemble_run(tiny.config(stories, tmp_path / "stage3", "stage=3", *PLACED, *start))
    model = run.trainer.model
    assert isinstance(model, PlacedModel)
    xt = torch.randint(model.config.num_states, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (network.eval()(xt, torch.ones(2)) for network in (model, load_stage(flat).model))
    assert torch.equal(ours, theirs)
    list(run.events())
    # And a placed one of a placed one, its layout network as well.
    again = ("pretrained.use_pretrained=true", f"pretrained.model_path='{tmp_path}/stage3'")
    found = assemble_run(tiny.config(stories, tmp_path / "again", "stage=3", *PLACED, *again)).trainer.model
    state = load_stage(tmp_path / "stage3").model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    # A cascade may not take a flat one for its fill as it is: it says nothing of places.
    with pytest.raises(CheckpointError, match=r"is a flat model of lengths .* and stage 3 of lengths .* was expected"):
        Cascade.from_pretrained([stages[0], stages[1], flat])


def test_both_kinds_in_one_cascade(stories: Path, stages: list[Path], tmp_path: Path) -> None:
    last = trained(stories, tmp_path / "stage3", "stage=3", "model.parameterization=normalized")
    samples = Cascade.from_pretrained([*stages[:2], last]).generate(3, require_coverage=True)
    for first, second, third in zip(*(ids.tolist() for ids in samples.ids), strict=True):
        assert stands_in(first, second)
        assert stands_in(second, third)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["conditioning=beside"], "conditioning is 'beside'; it must be one of prefix, placed"),
        (["layout.num_blocks=0"], "layout.num_blocks is 0; it must be at least 1"),
        (
            ["graph.type=uniform", "model.parameterization=score"],
            "graph.type is uniform; a placed stage needs absorbing",
        ),
        (["model.copy_head=true"], "model.copy_head is true, and a placed stage has no prefix to copy from"),
        (["training.prefix_dropout=0.1"], "training.prefix_dropout is 0.1; a placed stage needs 0.0"),
        (["training.prefix_noise.prob=0.1"], "training.prefix_noise.prob is 0.1; a placed stage needs 0.0"),
        (["training.generated_prefix.prob=0.5"], "training.generated_prefix.prob is 0.5; a placed stage needs 0.0"),
        (["stage_lengths=[4,8,8]"], "stage_lengths .* has 8 after 8; lengths must strictly increase"),
    ],
)
def test_settings_that_are_refused(stories: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble_run(tiny.config(stories, tmp_path / "run", "stage=2", *PLACED, *overrides))


def test_what_a_placed_stage_cannot_be_asked(
    cascade: Cascade, stages: list[Path], stories: Path, tmp_path: Path
) -> None:
    named = [part for path in stages for part in ("--stage", path)]
    message = failure("sample", *named, "--pin", "2:0: the the the the the", "--output-dir", tmp_path)
    assert re.search(r"5 tokens are pinned in stage 2, a placed one, which writes 4 beside the text of the", message)
    message = failure("sample", "--stage", stages[0], "--gaps-per-call", 2, "--output-dir", tmp_path)
    assert message == "gaps_per_call is 2, but only placed stages have gaps, and there is none; leave it out"
    message = failure("sample", *named, "--gaps-per-call", 0, "--output-dir", tmp_path)
    assert message == "gaps_per_call is 0; it must be at least 1"
    with pytest.raises(ConfigError, match=r"guidance is 1\.0, and stage 2 has no prefix to guide by; set guidance"):
        cascade.generate(1, guidance=1.0)
    stage = cascade.stages[1]
    with pytest.raises(ConfigError, match="a placed stage begins with the text of the stage before; give it one"):
        next(replace(stage, prefix_length=None).states(None, **drawn()))
    generated = ["training.generated_prefix.prob=0.5", f"training.generated_prefix.stage_paths=['{stages[1]}']"]
    with pytest.raises(ConfigError, match=r"is a placed stage, which cannot rewrite a part of a text; leave it out"):
        assemble_run(tiny.config(stories, tmp_path / "run", "stage=3", *generated))


def drawn() -> dict[str, Any]:
    return {
        "predictor": predictor_from_name("first_hitting"),
        "num_steps": 1,
        "draws": Draws(0, "test"),
        "sample_index": torch.arange(1),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_new": None}, r"layout settings have unknown keys \[\] and lack \['num_new'"),
        ({"num_tokens": "4"}, "the layout setting num_tokens is '4'; it must be a whole number of at least 1"),
        (
            {"num_tokens": 7},
            r"has a layout of 7 tokens in 11, and is stage 2 of lengths \[4, 8, 40\]; the checkpoint is",
        ),
    ],
)
def test_damaged_layout_settings(stages: list[Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = Path(shutil.copytree(stages[1] / "checkpoints" / "latest", tmp_path / "copy"))
    settings = json.loads((folder / "config.json").read_text())
    layout = settings["layout"] | change
    settings["layout"] = {name: value for name, value in layout.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "checksums.json").unlink(missing_ok=True)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load_stage(folder)
