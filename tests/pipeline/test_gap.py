"""`cdllm evaluate gap`: no gap where the stages before write true prefixes, a gap where they do not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.assemble.gap import GapMeasurement, GapSettings, gaps_on_windows
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.evaluate.gap import GAP_DEFINITIONS, StageGap
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success
from tests.unit.evaluate.tiny_judge import save_judge
from tests.unit.model.tiny import tiny_model, tiny_placed

LENGTHS = (3, 5, 9)
NUM_TEXTS = 150
SETTINGS = GapSettings(drawing=Drawing(seed=1), num_texts=NUM_TEXTS, num_times=2, num_resamples=1000, level=0.999)
WITHOUT_JUDGE = [name for name in GAP_DEFINITIONS if "judge" not in name]


@pytest.fixture(scope="module")
def small_tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=262)


def stage(model: ScoreModel, number: int) -> StageSampler:
    process = AbsorbingProcess(model.config.vocab_size)
    prefix_length = (0, *LENGTHS)[number - 1]
    return StageSampler(model, process, LogLinearSchedule(), LENGTHS[number - 1], prefix_length=prefix_length)


@pytest.fixture(scope="module")
def written(small_tokenizer: Tokenizer) -> Cascade:
    """Three stages of random weights, of which the second copies most of its tokens and the last is placed."""
    options: dict[str, Any] = {"vocab_size": small_tokenizer.vocab_size, "parameterization": "normalized"}
    second = tiny_model(seed=2, copy_head=True, **options)
    assert second.copy_head is not None
    with torch.no_grad():
        second.copy_head.gate.weight.zero_()
        second.copy_head.gate.bias.fill_(3.0)
    stages = (
        stage(tiny_model(seed=1, **options), 1),
        stage(second, 2),
        stage(tiny_placed(LENGTHS[1], LENGTHS[2] - LENGTHS[1], seed=3, **options), 3),
    )
    return Cascade(stages, small_tokenizer, LENGTHS)


@pytest.fixture(scope="module")
def windows(written: Cascade) -> StageArrays:
    """Real text that the cascade itself has written, with another seed: its prefixes have the law of generated ones."""
    samples = written.generate(400, seed=99, batch_size=200)
    ids = tuple(of_stage.numpy().astype(np.int32) for of_stage in samples.ids)
    places = np.array([places_in(*rows) for rows in zip(ids[1].tolist(), ids[2].tolist(), strict=True)])
    # What stage 1 keeps of stage 2 is of no account, as that one is not placed.
    first = np.tile(np.arange(LENGTHS[0]), (400, 1)).astype(np.int32)
    return StageArrays(
        CascadeSpec(LENGTHS), "document", "", 0, 262, written.tokenizer.fingerprint, "", {}, ids,
        (first, places.astype(np.int32)),
    )  # fmt: skip


def places_in(prefix: list[int], text: list[int]) -> list[int]:
    places, start = [], 0
    for token in prefix:
        start = text.index(token, start) + 1
        places.append(start - 1)
    return places


def misses_zero(gap: StageGap, name: str) -> bool:
    return not gap[name].gap.low <= 0 <= gap[name].gap.high


@pytest.fixture(scope="module")
def sound(written: Cascade, windows: StageArrays) -> tuple[tuple[StageGap, ...], list[tuple[str, int, int]]]:
    """The gaps of the cascade on its own texts, and what was told of the progress."""
    told: list[tuple[str, int, int]] = []
    return gaps_on_windows(written, windows, SETTINGS, on_progress=lambda *what: told.append(what)), told


def test_no_gap_where_prefixes_have_the_same_law(sound: Any) -> None:
    gaps, told = sound
    assert [gap.stage for gap in gaps] == [2, 3]
    for gap in gaps:
        assert [figure.name for figure in gap.figures] == WITHOUT_JUDGE
        assert [name for name in WITHOUT_JUDGE if misses_zero(gap, name)] == []
        for figure in gap.figures:
            for span in (figure.real, figure.true_prefix, figure.generated_prefix):
                assert span.low <= span.estimate <= span.high
    assert gaps[1]["ordered_coverage"].generated_prefix.low == 1.0
    assert {what for what, _, _ in told} == {
        *(f"drawing {what}" for what in ("the cascade", "stage 2 on true prefixes", "stage 3 on true prefixes")),
        *(f"bounds of {whose}, stage {k}" for whose in ("real texts", "the cascade's texts") for k in (1, 2, 3)),
        *(f"bounds on true prefixes, stage {k}" for k in (2, 3)),
    }
    assert all(0 <= done <= total for _, done, total in told)


def test_a_broken_first_stage_is_seen(sound: Any, written: Cascade, windows: StageArrays) -> None:
    """One that nearly always writes the same token: it is sure of itself, and what is written on it is less varied."""
    options: dict[str, Any] = {"vocab_size": written.tokenizer.vocab_size, "parameterization": "normalized"}
    broken = tiny_model(seed=1, **options)
    with torch.no_grad():
        broken.output_layer.linear.bias[7] += 12.0
    stages = (stage(broken, 1), *written.stages[1:])
    gaps = gaps_on_windows(replace(written, stages=stages), windows, SETTINGS)
    for gap in gaps:
        for name in ("prefix_bound_nats_per_token", "token_entropy_nats", "distinct_bigram_share_per_text"):
            assert gap[name].gap.high < 0, name
    # What stage 2 writes on true prefixes is not concerned.
    before, after = (found[0]["token_entropy_nats"].true_prefix.estimate for found in (sound[0], gaps))
    assert before == after


def test_a_batch_changes_nothing(written: Cascade, windows: StageArrays) -> None:
    few = replace(SETTINGS, num_texts=8)
    one, other = (gaps_on_windows(written, windows, replace(few, batch_size=size)) for size in (8, 3))
    for here, there in zip(one, other, strict=True):
        for figure, again in zip(here.figures, there.figures, strict=True):
            assert figure.gap.estimate == pytest.approx(again.gap.estimate, rel=1e-4, abs=1e-6)


def test_texts_and_their_prefixes(written: Cascade, windows: StageArrays) -> None:
    """Text i of a stage has prefix i, and the places of a placed stage are those that it has drawn."""
    measuring = GapMeasurement(written, replace(SETTINGS, num_texts=10, batch_size=4), None, lambda *_: None)
    real = measuring.real(windows)
    assert len({tuple(row) for row in real[3].target.tolist()}) == 10
    assert all(row in windows.stages[2].tolist() for row in real[3].target.tolist())
    generated = measuring.generated()
    on_true = measuring.on_true_prefixes(3, real[2].target)
    assert generated[1].prefix is None
    assert generated[2].places is None
    for texts in (generated[3], on_true, real[3]):
        assert texts.prefix is not None
        assert texts.places is not None
        assert torch.equal(texts.target.gather(1, texts.places), texts.prefix)
        assert (texts.places.diff(dim=1) > 0).all()
    assert torch.equal(on_true.prefix, real[2].target)
    assert torch.equal(generated[3].prefix, generated[2].target)


def test_a_judge_reads_the_texts(written: Cascade, windows: StageArrays, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra eval is not installed")
    judge = Judge.load(str(save_judge(tmp_path)))
    gaps = gaps_on_windows(written, windows, replace(SETTINGS, num_texts=4), judge=judge)
    figure = gaps[1]["judge_nats_per_token"]
    texts = GapMeasurement(written, replace(SETTINGS, num_texts=4), judge, lambda *_: None).real(windows)[3].target
    nats = torch.cat(judge.token_nats([written.tokenizer.decode_window(row) for row in texts.tolist()]))
    assert figure.real.estimate == pytest.approx(float(nats.mean()), rel=1e-6)


def test_ways_of_drawing_for_each_stage(written: Cascade, windows: StageArrays) -> None:
    """Also where one value is for a predictor that an earlier stage does not have."""
    drawing = Drawing(predictor=("first_hitting", "confidence", "analytic"), steps=(3,), tokens_per_call=(2, 1, None))
    gaps = gaps_on_windows(written, windows, replace(SETTINGS, num_texts=4, drawing=drawing))
    assert len(gaps) == 2
    alike = gaps_on_windows(
        written, windows, replace(SETTINGS, num_texts=4, drawing=replace(drawing, steps=(None, None, 3)))
    )
    assert gaps == alike
    for_the_last = Drawing(predictor=("first_hitting", "first_hitting", "remask"), steps=(2,), eta=0.5, gaps_per_call=2)
    assert len(gaps_on_windows(written, windows, replace(SETTINGS, num_texts=4, drawing=for_the_last))) == 2


def test_bounds_are_those_of_the_stages(written: Cascade, windows: StageArrays) -> None:
    """Of a prefix, those of all stages before and of no other."""
    few = replace(SETTINGS, num_texts=6)
    measuring = GapMeasurement(written, few, None, lambda *_: None)
    real, generated = measuring.real(windows), measuring.generated()
    nats = {
        "real": [float(measuring.nats(k, texts, "").mean()) for k, texts in real.items()],
        "generated_prefix": [float(measuring.nats(k, texts, "").mean()) for k, texts in generated.items()],
    }
    for gap in gaps_on_windows(written, windows, few):
        for kind, of_stages in nats.items():
            bounds = {name: getattr(gap[f"{name}_bound_nats_per_token"], kind) for name in ("prefix", "stage")}
            before = sum(of_stages[: gap.stage - 1]) / LENGTHS[gap.stage - 2]
            assert bounds["prefix"].estimate == pytest.approx(before, rel=1e-5)
            assert bounds["stage"].estimate == pytest.approx(
                of_stages[gap.stage - 1] / LENGTHS[gap.stage - 1], rel=1e-5
            )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_texts": 1}, "num_texts is 1; it must be at least 2"),
        ({"num_times": 0}, "num_times is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"num_resamples": 99}, "num_resamples is 99; it must be at least 100"),
    ],
)
def test_bad_numbers(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **setting)  # type: ignore[arg-type]


def test_too_few_windows(written: Cascade, windows: StageArrays) -> None:
    with pytest.raises(DataError, match="the data has 400 windows, and 401 texts are asked for, each on the prefix of"):
        gaps_on_windows(written, windows, replace(SETTINGS, num_texts=401))


def test_cascades_without_a_later_stage(written: Cascade, windows: StageArrays) -> None:
    for cascade, what in (
        (replace(written, stages=written.stages[:1]), "a first stage alone"),
        (replace(written, stages=written.stages[:1], is_flat=True), "a flat model"),
    ):
        with pytest.raises(ConfigError, match=f"{what} is given, which has no prefix and so no gap; name at least"):
            gaps_on_windows(cascade, windows, SETTINGS)


@pytest.fixture(scope="module")
def placed_runs(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("placed")
    for number in (1, 2, 3):
        settings = (
            f"stage={number}",
            "conditioning=placed",
            "layout.num_blocks=1",
            "model.parameterization=normalized",
        )
        list(assemble_run(tiny.config(stories, folder / f"stage{number}", *settings)).events())
    return [folder / f"stage{number}" for number in (1, 2, 3)]


FEW = ("--num-texts", 5, "--num-times", 1, "--num-resamples", 100, "--batch-size", 4, "--device", "cpu")


def test_command(runs: Path, valid_stories: Path, tmp_path: Path) -> None:
    """The first two of three stages."""
    stages = ("--stage", runs / "stage1", "--stage", runs / "stage2")
    out = tmp_path / "gap.json"
    flags = (*stages, "--data", valid_stories, *FEW, "--stages", tmp_path / "windows", "--seed", 3, "--out", out)
    shown = success("evaluate", "gap", *flags).output
    assert "stage 2 on 5 prefixes of each kind" in shown
    assert "with its 95% interval; * if 0 is outside it" in shown
    assert f"written to {out}" in shown.replace("\n", "")
    found = json.loads(out.read_text())
    assert (found["num_texts"], found["num_times"], found["num_resamples"], found["judge"]) == (5, 1, 100, None)
    assert found["drawing"]["seed"] == 3
    (of_stage,) = found["stages"]
    assert of_stage["stage"] == 2
    assert list(of_stage["figures"]) == list(found["definitions"]) == WITHOUT_JUDGE
    assert list((tmp_path / "windows").iterdir())
    assert json.loads(success("evaluate", "gap", *flags, "--json").output) == found


def test_stages_drawn_with_what_they_were_trained_for(
    runs: Path, stories: Path, valid_stories: Path, tmp_path: Path
) -> None:
    """Guidance and noise of prefixes, the remedies that the gap is measured for; others are refused."""
    prepared = ["training.prefix_dropout=0.2", "training.prefix_noise.prob=0.2", "sampling.num_samples=0"]
    # Long enough for its output to depend on the prefix.
    learning = ["training.num_steps=60", "optim.lr=3e-2"]
    list(assemble_run(tiny.config(stories, tmp_path / "stage2", "stage=2", *prepared, *learning)).events())
    command = ("evaluate", "gap", "--data", valid_stories, *FEW, "--stage", runs / "stage1")
    ways = ("--guidance", 20, "--prefix-noise", 0.9)
    found = json.loads(success(*command, "--stage", tmp_path / "stage2", *ways, "--json").output)
    assert (found["drawing"]["guidance"], found["drawing"]["prefix_noise"]) == (20.0, 0.9)
    plain = json.loads(success(*command, "--stage", tmp_path / "stage2", "--json").output)
    assert plain["drawing"]["guidance"] == 0.0
    assert found["stages"] != plain["stages"]
    assert "train it with training.prefix_dropout" in failure(*command, "--stage", runs / "stage2", *ways[:2])


def test_checkpoints_that_do_not_say_their_packing(runs: Path, valid_stories: Path, tmp_path: Path) -> None:
    stages: list[object] = []
    for number in (1, 2):
        old = tmp_path / f"stage{number}"
        shutil.copytree((runs / f"stage{number}" / "checkpoints" / "latest").resolve(), old)
        (old / "checksums.json").unlink()
        settings = json.loads((old / "config.json").read_text())
        del settings["packing"]
        (old / "config.json").write_text(json.dumps(settings))
        stages += ["--stage", old]
    flags = ("evaluate", "gap", *stages, "--data", valid_stories, *FEW)
    assert "give --packing stream or document" in failure(*flags)
    assert "stage 2 on 5 prefixes" in success(*flags, "--packing", "document").output


def test_command_on_placed_stages(placed_runs: list[Path], valid_stories: Path) -> None:
    stages = [part for path in placed_runs for part in ("--stage", path)]
    ways = ("--predictor", "first_hitting,remask,confidence", "--steps", "2", "--tokens-per-call", "2")
    ways = (*ways, "--eta", 0.3, "--gaps-per-call", 2)
    law = ("--temperature", 0.5, "--top-k", 9, "--top-p", 0.9)
    found = json.loads(success("evaluate", "gap", *stages, "--data", valid_stories, *FEW, *ways, *law, "--json").output)
    assert [of_stage["stage"] for of_stage in found["stages"]] == [2, 3]
    assert found["stages"][1]["figures"]["ordered_coverage"]["generated_prefix"]["low"] == 1.0
    drawing = found["drawing"]
    assert drawing["law"] == {"temperature": 0.5, "top_k": 9, "top_p": 0.9}
    assert drawing["predictor"] == ["first_hitting", "remask", "confidence"]
    assert (drawing["eta"], drawing["gaps_per_call"]) == (0.3, 2)
    assert (drawing["steps"], drawing["tokens_per_call"]) == ([2], [2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "DATA"], "no --stage is given"),
        (
            ["--stage", "ONE", "--stage", "TWO"],
            "no --data is given; name a folder that `cdllm preprocess` made from un",
        ),
        (["--stage", "ONE", "--data", "DATA"], "a first stage alone is given, which has no prefix and so no gap"),
        (["--stage", "ONE", "--stage", "TWO", "--data", "nowhere"], "nowhere"),
        (["--stage", "ONE", "--stage", "TWO", "--data", "DATA"], "windows, and 256 texts are asked for"),
        (
            ["--stage", "ONE", "--stage", "TWO", "--data", "DATA", "--packing", "stream"],
            "has windows of packing 'stream', and the models were trained with windows of packing 'document'",
        ),
        (["--num-texts", "1", "--data", "DATA"], "num_texts is 1; it must be at least 2"),
        (["--steps", "many", "--data", "DATA"], "--steps is 'many'; it must be a whole number"),
        (["--predictor", "magic", "--data", "DATA"], "magic"),
        (["--data", "DATA", "--out", "nowhere/gap.json"], "it must be a file, new or old, in a folder that exists"),
        (
            ["--stage", "ONE", "--stage", "TWO", "--data", "DATA", "--judge", "no/judge"],
            "the judge is 'no/judge', which",
        ),
    ],
)
def test_bad_input(runs: Path, valid_stories: Path, flags: list[str], message: str) -> None:
    places = {"ONE": str(runs / "stage1"), "TWO": str(runs / "stage2"), "DATA": str(valid_stories)}
    assert message in failure("evaluate", "gap", *[places.get(flag, flag) for flag in flags])


def test_another_default_device(written: Cascade, windows: StageArrays) -> None:
    few = replace(SETTINGS, num_texts=4)
    plain = gaps_on_windows(written, windows, few)
    with torch.device("meta"):
        assert gaps_on_windows(written, windows, few) == plain
