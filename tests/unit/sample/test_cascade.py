"""Stages one after another: texts that do not see their batch, counts, and checkpoints that do not belong together."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.integrity import write_checksums
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.pretrained import PretrainedStage
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.sample import loading
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model
from tests.unit.model.unchecked import without_type_checks

GOLDEN = Path(__file__).parents[2] / "golden"
LENGTHS = (3, 6)
PREDICTORS = ("euler", "analytic", "first_hitting")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=270)


def cascade(
    tokenizer: Tokenizer,
    *,
    seeds: tuple[int, int] = (1, 2),
    trained_with: PrefixSettings = TRUE_PREFIXES,
    **options: Any,
) -> Cascade:
    """Two stages of random weights."""
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size, seed=seed, **options),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
            trained_with=trained_with,
        )
        for seed, length in zip(seeds, LENGTHS, strict=True)
    )
    return Cascade(stages, tokenizer, LENGTHS)


def generated(made: Cascade, count: int = 5, **settings: Any) -> CascadeSamples:
    has_grid = settings.get("predictor") in ("euler", "analytic")
    return made.generate(count, **({"steps": 4 if has_grid else None, "seed": 3} | settings))


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("attention", ["joint", "one_way"])
@pytest.mark.parametrize("reading", ["score", "normalized"])
def test_text_does_not_see_its_batch(tokenizer: Tokenizer, reading: str, attention: str, predictor: str) -> None:
    made = cascade(tokenizer, parameterization=reading, prefix_attention=attention)
    together = generated(made, predictor=predictor, batch_size=5)
    for batch_size in (1, 2):
        apart = generated(made, predictor=predictor, batch_size=batch_size)
        for stage in range(2):
            assert torch.equal(apart.ids[stage], together.ids[stage])
    # The first texts of a longer run are those of a shorter one.
    fewer = generated(made, 2, predictor=predictor)
    assert torch.equal(fewer.ids[1], together.ids[1][:2])


def test_what_is_generated(tokenizer: Tokenizer) -> None:
    made = cascade(tokenizer)
    assert made.stage_lengths == LENGTHS
    samples = generated(made, batch_size=2)
    assert [ids.shape for ids in samples.ids] == [(5, 3), (5, 6)]
    for ids, texts in zip(samples.ids, samples.texts, strict=True):
        assert ids.max() < tokenizer.vocab_size
        assert texts == [tokenizer.decode(row) for row in ids.tolist()]
    assert not torch.equal(generated(made, seed=4).ids[1], samples.ids[1])
    assert torch.equal(generated(made).ids[1], samples.ids[1])
    default = made.generate(5, seed=3)
    assert torch.equal(default.ids[1], generated(made, predictor="first_hitting").ids[1])


def test_texts_for_readers(tokenizer: Tokenizer) -> None:
    samples = generated(cascade(tokenizer), batch_size=2)
    assert len(samples) == len(samples.final_texts) == 5
    assert samples.final_texts == [tokenizer.decode_window(row) for row in samples.ids[1].tolist()]
    assert "tensor" not in repr(samples)


def test_going_on_from_texts(tokenizer: Tokenizer) -> None:
    """From those of samples, as they are or edited: what is given stays, the rest is written anew."""
    made = cascade(tokenizer)
    samples = generated(made)
    again = made.generate(5, given=samples.given(1), seed=3)
    assert torch.equal(again.ids[0], samples.ids[0])
    assert torch.equal(again.ids[1], samples.ids[1]), "with the same seed it goes on as it did"
    given = GivenStage.of_texts(1, [" saw", " the"], tokenizer)
    written = made.generate(2, given=given, seed=5)
    assert set(tokenizer.encode(" the").ids) <= set(written.ids[0][1].tolist())
    with pytest.raises(ConfigError, match="stage is 3, and there are texts of 1, 2"):
        samples.given(3)
    for wrong in (samples.ids[0], samples.ids[0].tolist(), ((1, 2, 3),)):
        message = r"the ids of stage 1 are a (Tensor|list|tuple); .* GivenStage\.of_texts or"
        with without_type_checks(), pytest.raises(ConfigError, match=message):
            GivenStage(stage=1, ids=wrong)  # type: ignore[arg-type]
    message = r"pinned holds \(2, 'start', 'the'\); give a list of Pin\(stage, position"
    with without_type_checks(), pytest.raises(ConfigError, match=message):
        made.generate(1, pinned=[(2, "start", "the")])  # type: ignore[list-item]


def test_second_stage_reads_the_first(tokenizer: Tokenizer) -> None:
    one, other = (generated(cascade(tokenizer, seeds=seeds)) for seeds in ((1, 2), (9, 2)))
    assert not torch.equal(one.ids[0], other.ids[0])
    assert not torch.equal(one.ids[1], other.ids[1])


def test_stages_draw_from_streams_of_their_own(tokenizer: Tokenizer) -> None:
    """With a network that sees nothing, in both stages, the texts would otherwise be the same."""
    stage = cascade(tokenizer).stages[1]
    with torch.no_grad():
        stage.model.output_layer.linear.weight.zero_()
    for predictor in PREDICTORS:
        first, second = generated(Cascade((stage, stage), tokenizer, (6, 6)), predictor=predictor).ids
        assert not torch.equal(first, second)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("attention", ["joint", "one_way"])
@pytest.mark.parametrize("reading", ["score", "normalized"])
def test_calls_are_counted(tokenizer: Tokenizer, reading: str, attention: str, predictor: str, guidance: float) -> None:
    """Calls a text, and positions that went through the networks, as the embedding saw them."""
    trained_with = PrefixSettings(dropout=0.1)
    made = cascade(tokenizer, parameterization=reading, prefix_attention=attention, trained_with=trained_with)
    calls, positions = [0, 0], [0]

    def watch(number: int) -> Callable[..., None]:
        def hook(_: object, inputs: tuple[torch.Tensor], __: object) -> None:
            # With one-way attention the prefix is encoded once, which is no call of the network.
            is_prefix = attention == "one_way" and inputs[0].shape[1] < LENGTHS[number]
            calls[number] += 0 if is_prefix else len(inputs[0])
            positions[0] += inputs[0].numel()

        return hook

    for number, stage in enumerate(made.stages):
        stage.model.vocab_embed.register_forward_hook(watch(number))
    samples = generated(made, predictor=predictor, batch_size=2, guidance=guidance)
    assert [round(5 * nfe, 6) for nfe in samples.nfe] == calls
    assert samples.token_forwards == positions[0]
    # A guided step takes two calls; stage 1 has nothing to be guided by.
    most = [LENGTHS[0], LENGTHS[1] if guidance == 0 else 2 * LENGTHS[1]]
    if predictor == "first_hitting":
        assert list(samples.nfe) == most
    elif reading == "normalized":
        assert all(nfe <= length for nfe, length in zip(samples.nfe, most, strict=True))


def test_progress_and_stream(tokenizer: Tokenizer) -> None:
    made = cascade(tokenizer)
    told: list[tuple[int, int]] = []
    samples = generated(
        made, batch_size=2, predictor="euler", on_progress=lambda done, total: told.append((done, total))
    )
    assert told == sorted(told)
    assert {total for _, total in told} == {10}
    assert [done for done, _ in told][-1] == 10
    assert {2, 4, 6, 8, 9} < {done for done, _ in told}
    seen = list(made.stream(5, Drawing(steps=(4,), predictor=("euler",), seed=3), batch_size=2))
    order = [(state.first_sample, state.stage, state.state.step) for state in seen]
    assert order == sorted(order)
    assert {(first, stage) for first, stage, _ in order} == {(f, s) for f in (0, 2, 4) for s in (1, 2)}
    last = [state.state.xt for state in seen if state.stage == 2 and state.state.step == state.state.num_steps]
    assert torch.equal(torch.cat(last), samples.ids[1])
    same = list(made.stream(5, batch_size=2, steps=4, predictor="euler", seed=3))
    assert all(torch.equal(one.state.xt, other.state.xt) for one, other in zip(seen, same, strict=True))
    assert made.shown(seen[0]) == ["[MASK]" * LENGTHS[0]] * 2
    assert [text for state in seen if state.stage == 2 and state.state.step == 5 for text in made.shown(state)] == [
        made.tokenizer.decode_window(ids) for ids in samples.ids[1].tolist()
    ]
    with pytest.raises(ConfigError, match=r"a drawing is given, and beside it seed, steps; give only one of them"):
        next(made.stream(1, Drawing(), seed=3, steps=4))
    with pytest.raises(TypeError, match="sed"):
        next(made.stream(1, sed=3))


@pytest.mark.parametrize("kind", ["random", "mask"])
@pytest.mark.parametrize("attention", ["joint", "one_way"])
def test_noised_prefixes(tokenizer: Tokenizer, attention: str, kind: str) -> None:
    """Stage 2 is given other tokens than stage 1 wrote; what stage 1 wrote stays, and no MASK is written."""
    trained_with = PrefixSettings(noise_prob=0.1, noise_kind=kind)
    made = cascade(tokenizer, prefix_attention=attention, trained_with=trained_with)
    plain, noised, empty = (generated(made, prefix_noise=prob) for prob in (0.0, 0.5, 1.0))
    assert torch.equal(plain.ids[0], noised.ids[0])
    assert not torch.equal(plain.ids[1], noised.ids[1])
    assert noised.ids[0].max() < tokenizer.vocab_size
    assert plain.token_forwards == noised.token_forwards
    apart = generated(made, prefix_noise=0.5, batch_size=1)
    assert torch.equal(apart.ids[1], noised.ids[1])
    # With all of it replaced by MASK, stage 2 does not see stage 1: its texts are those of any other first stage.
    stages = (cascade(tokenizer, seeds=(9, 2), prefix_attention=attention).stages[0], made.stages[1])
    other = generated(Cascade(stages, tokenizer, LENGTHS), prefix_noise=1.0)
    assert not torch.equal(other.ids[0], empty.ids[0])
    assert torch.equal(other.ids[1], empty.ids[1])


@pytest.mark.parametrize("predictor", ["first_hitting", "confidence"])
def test_a_call_writes_no_more_than_a_text(tokenizer: Tokenizer, predictor: str) -> None:
    """However many tokens it may write, also more than a number of 64 bits can say."""
    made = cascade(tokenizer)
    whole = generated(made, predictor=predictor, tokens_per_call=LENGTHS[1])
    more = generated(made, predictor=predictor, tokens_per_call=10**30)
    assert more.nfe == whole.nfe == (1.0, 1.0)
    assert torch.equal(more.ids[1], whole.ids[1])


def test_guided_texts(tokenizer: Tokenizer) -> None:
    made = cascade(tokenizer, trained_with=PrefixSettings(dropout=0.1))
    plain, guided = (generated(made, guidance=weight) for weight in (0.0, 2.0))
    assert torch.equal(plain.ids[0], guided.ids[0])
    assert not torch.equal(plain.ids[1], guided.ids[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": 1.0}, r"guidance is 1\.0, and stage 2 was trained without prefix dropout"),
        ({"guidance": -1.0}, r"guidance is -1\.0; it must be at least 0"),
        ({"prefix_noise": 0.1}, r"prefix_noise is 0\.1, and stage 2 was trained on prefixes without noise"),
        ({"prefix_noise": 2.0}, r"prefix_noise is 2\.0; it must lie between 0"),
    ],
)
def test_what_the_stages_were_not_trained_for(tokenizer: Tokenizer, settings: dict[str, Any], message: str) -> None:
    """It is said before anything is drawn, also for a single stage."""
    told: list[int] = []
    with pytest.raises(ConfigError, match=message):
        generated(cascade(tokenizer), on_progress=lambda *_: told.append(1), **settings)
    assert told == []
    alone = Cascade(cascade(tokenizer).stages[:1], tokenizer, LENGTHS)
    with pytest.raises(ConfigError, match=r"stage 1 has no prefix|it must"):
        generated(alone, **settings)


def test_only_stages_that_are_written_must_be_trained_for_it(tokenizer: Tokenizer) -> None:
    """A stage whose texts are given is never asked."""
    of_two, trained = cascade(tokenizer), PrefixSettings(dropout=0.1, noise_prob=0.1)
    last = replace(cascade(tokenizer, seeds=(3, 4), trained_with=trained).stages[1], length=8)
    made = Cascade((*of_two.stages, last), tokenizer, (*LENGTHS, 8))
    before = generated(made)
    for settings, message in (({"guidance": 2.0}, "trained without prefix dropout"), ({"prefix_noise": 0.9}, "noise")):
        changed = generated(made, given=before.given(2), **settings)
        assert torch.equal(changed.ids[1], before.ids[1])
        assert not torch.equal(changed.ids[2], before.ids[2])
        with pytest.raises(ConfigError, match=message):
            generated(made, given=before.given(1), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0; it must be at least 1"),
        ({"batch_size": -2}, "batch_size is -2; it must be at least 1"),
        ({"steps": 0, "predictor": "euler"}, "steps is 0; it must be at least 1"),
        ({"steps": 7}, "steps is 7 and the predictor first_hitting, which has no time grid"),
        ({"predictor": "ddim"}, "the predictor is 'ddim'; it must be one of euler, analytic, ancestral"),
    ],
)
def test_settings_that_are_refused(tokenizer: Tokenizer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cascade(tokenizer).generate(**({"num_samples": 2} | settings))


@pytest.fixture
def checkpoints(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Path]:
    """Writes a checkpoint folder of a stage; the weights of stage k are those of seed k."""

    def write(
        stage: int,
        *,
        lengths: tuple[int, ...] = LENGTHS,
        vocab_size: int = 0,
        fingerprint: str = "",
        packing: str = "document",
        unique: bool = True,
        method: str = "",
        prefix: PrefixSettings = TRUE_PREFIXES,
        choice: dict[str, object] | None = None,
    ) -> Path:
        model = tiny_model(vocab_size=vocab_size or tokenizer.vocab_size, seed=stage)
        folder = tmp_path / f"stage{stage}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        settings = StageSettings(
            model.config,
            {"type": "loglinear"},
            stage,
            lengths,
            fingerprint or tokenizer.fingerprint,
            packing,
            unique,
            method,
            prefix=prefix,
            choice=choice,
        )
        (folder / "config.json").write_text(settings.to_json())
        save_file(model.state_dict(), folder / "ema.safetensors")
        tokenizer.save(folder)
        return folder

    return write


def test_devices_and_dtypes_by_name(checkpoints: Callable[..., Path]) -> None:
    loaded = Cascade.from_pretrained([checkpoints(1), checkpoints(2)], device="auto", dtype="bfloat16")
    assert loaded.stages[0].model.compute_dtype == torch.bfloat16
    assert loaded.to("cpu") is loaded
    assert loaded.device == torch.device("cpu")
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used"):
        loaded.to("gpu")
    with pytest.raises(ConfigError, match="device 'meta' cannot be used"):
        loaded.to("meta")
    with pytest.raises(ConfigError, match="dtype is 'float16'; it must be one of float32, bfloat16"):
        Cascade.from_pretrained([checkpoints(1)], dtype="float16")


def test_from_pretrained(tokenizer: Tokenizer, checkpoints: Callable[..., Path]) -> None:
    loaded = Cascade.from_pretrained([checkpoints(1), checkpoints(2)])
    assert (loaded.stage_lengths, loaded.trained_lengths, loaded.is_flat) == (LENGTHS, LENGTHS, False)
    assert torch.equal(generated(loaded).ids[1], generated(cascade(tokenizer)).ids[1])
    first_only = Cascade.from_pretrained([checkpoints(1)])
    assert (first_only.stage_lengths, first_only.trained_lengths) == ((3,), LENGTHS)
    flat = Cascade.from_pretrained([checkpoints(0)])
    assert (flat.stage_lengths, flat.trained_lengths, flat.is_flat) == ((6,), LENGTHS, True)


def test_checkpoints_say_what_was_done_to_prefixes(checkpoints: Callable[..., Path]) -> None:
    """Earlier ones do not, and were trained on true prefixes; so are models of other origin."""
    settings = PrefixSettings(noise_prob=0.1, noise_kind="mask", dropout=0.2)
    one, two = checkpoints(1), checkpoints(2, prefix=settings)
    assert [stage.trained_with for stage in Cascade.from_pretrained([one, two]).stages] == [TRUE_PREFIXES, settings]
    path = two / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "prefix"}))
    assert Cascade.from_pretrained([one, two]).stages[1].trained_with == TRUE_PREFIXES
    path.write_text(json.dumps(content | {"prefix": [1]}))
    with pytest.raises(CheckpointError, match=r"(?s)config\.json lacks or misstates .*; the checkpoint is damaged"):
        Cascade.from_pretrained([one, two])


def test_tokenizer_may_be_named(tokenizer: Tokenizer, checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoints(1)
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json; name one with --tokenizer, for example gpt2"):
        Cascade.from_pretrained([folder])
    named = Cascade.from_pretrained([folder], tokenizer=tmp_path / "elsewhere.json")
    assert named.tokenizer.fingerprint == tokenizer.fingerprint


def test_tokenizer_that_the_run_deletes_with_its_checkpoint(
    checkpoints: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that keeps one checkpoint has completed the next when it deletes the one that was read."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    write_checksums(written := checkpoints(1))
    written.rename(folder / "step_7")
    original, asked = loading.load_stage, []

    def and_the_run_goes_on(*arguments: Any, **more: Any) -> PretrainedStage:
        found = original(*arguments, **more)
        asked.append(found.folder.name)
        if len(asked) == 1:
            found.folder.rename(folder / "step_8")
        return found

    monkeypatch.setattr(loading, "load_stage", and_the_run_goes_on)
    assert Cascade.from_pretrained([tmp_path / "run"]).trained_lengths == LENGTHS
    assert asked == ["step_7", "step_8"]


def test_stages_that_do_not_belong_together(checkpoints: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no stage is given; a cascade needs at least 1 checkpoint"):
        Cascade.from_pretrained([])
    one, two = checkpoints(1), checkpoints(2)
    message = r"is stage {} of lengths \[3, 6\], and stage {} of lengths \[3, 6\] was expected; give the stages of one"
    with pytest.raises(CheckpointError, match=message.format(2, 1)):
        Cascade.from_pretrained([two, one])
    with pytest.raises(CheckpointError, match=message.format(1, 2)):
        Cascade.from_pretrained([one, one])
    with pytest.raises(CheckpointError, match=message.format(2, 3)):
        Cascade.from_pretrained([one, two, two])
    with pytest.raises(CheckpointError, match=message.format(3, 3)):
        Cascade.from_pretrained([one, two, checkpoints(3)])
    other = checkpoints(2, lengths=(4, 6))
    with pytest.raises(CheckpointError, match=r"is stage 2 of lengths \[4, 6\], and stage 2 of lengths \[3, 6\]"):
        Cascade.from_pretrained([one, other])


def test_packing_is_that_of_all_stages_that_say_it(checkpoints: Callable[..., Path]) -> None:
    one, two = checkpoints(1, packing="stream"), checkpoints(2, packing="")
    assert Cascade.from_pretrained([one, two]).packing == "stream"
    assert Cascade.from_pretrained([checkpoints(1, packing="")]).packing == ""
    message = r"trained with windows of packing 'stream', and .* of packing 'document'; train all stages alike"
    with pytest.raises(CheckpointError, match=message):
        Cascade.from_pretrained([one, checkpoints(2)])


def test_stages_keep_copies_all_or_none(checkpoints: Callable[..., Path]) -> None:
    one, two = checkpoints(1, unique=False), checkpoints(2, unique=False)
    assert not Cascade.from_pretrained([one, two]).unique
    assert Cascade.from_pretrained([checkpoints(1)]).unique
    message = r"stage1\S* was trained with .* data.unique=false, and .*stage2\S* with .* data.unique=true; train all"
    with pytest.raises(CheckpointError, match=message):
        Cascade.from_pretrained([one, checkpoints(2)])


def test_stages_are_of_one_method(checkpoints: Callable[..., Path]) -> None:
    """Those from before it was said go with any."""
    one, two = checkpoints(1), checkpoints(2, method="tfidf")
    assert Cascade.from_pretrained([one, two]).method == "tfidf"
    assert Cascade.from_pretrained([one]).method == ""
    message = r"stage1\S* .* texts that the method random chose, and .*stage2\S* .* tfidf chose; train all stages alike"
    with pytest.raises(CheckpointError, match=message):
        Cascade.from_pretrained([checkpoints(1, method="random"), two])


def test_stages_are_of_one_choice(checkpoints: Callable[..., Path]) -> None:
    """Those from before it was said go with any."""
    of_word = {"per": "word", "seed": 3}
    one, two = checkpoints(1, method="random", choice=of_word), checkpoints(2, method="random")
    assert Cascade.from_pretrained([one, two]).text_kind.choice == "chance per word with the seed 3"
    message = (
        r"stage1\S* was trained with a choice by chance per word with the seed 3, and .*stage2\S* with a choice by "
        r"chance per occurrence; train all stages alike"
    )
    with pytest.raises(CheckpointError, match=message):
        Cascade.from_pretrained([one, checkpoints(2, method="random", choice=of_word | {"per": "occurrence"})])
    functions = [{"function": "mine.py:f", "sha256": digit * 64} for digit in "ab"]
    one, two = (checkpoints(stage, method="custom", choice=functions[0]) for stage in (1, 2))
    assert Cascade.from_pretrained([one, two]).text_kind.choice == "mine.py:f of SHA-256 aaaaaaaaaaaa"
    with pytest.raises(
        CheckpointError, match=r"by mine.py:f of SHA-256 a{12}, and .*by mine.py:f of SHA-256 b{12}; train"
    ):
        Cascade.from_pretrained([one, checkpoints(2, method="custom", choice=functions[1])])


@pytest.fixture
def sedd_folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A model as it lies on the hub, with the vocabulary of the tokenizer and the weights of seed 5."""
    folder = tmp_path / "sedd"
    model = tiny_model(vocab_size=tokenizer.vocab_size, seed=5)
    config = json.loads((GOLDEN / "hub_model" / "config.json").read_text()) | {"tokens": tokenizer.vocab_size}
    sizes = {"hidden_size": 16, "n_heads": 2, "n_blocks": 2, "cond_dim": 8}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"model": config["model"] | sizes}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_model_of_sedd_is_a_flat_model_of_the_given_length(
    tokenizer: Tokenizer, sedd_folder: Path, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match=r"sedd does not say how long its texts are, .* with --lengths, 1024 for"):
        Cascade.from_pretrained([sedd_folder], tokenizer=tmp_path / "tokenizer")
    flat = Cascade.from_pretrained([sedd_folder], lengths=[6], tokenizer=tmp_path / "tokenizer")
    assert (flat.is_flat, flat.stage_lengths, flat.trained_lengths, flat.packing) == (True, (6,), (6,), "")
    stage = StageSampler(
        tiny_model(vocab_size=tokenizer.vocab_size, seed=5),
        AbsorbingProcess(tokenizer.vocab_size),
        LogLinearSchedule(),
        6,
    )
    expected = generated(Cascade((stage,), tokenizer, (6,)), predictor="analytic")
    assert torch.equal(generated(flat, predictor="analytic").ids[0], expected.ids[0])
    # On the windows of a cascade it is the flat model beside it.
    beside = Cascade.from_pretrained([sedd_folder], lengths=LENGTHS, tokenizer=tmp_path / "tokenizer")
    assert (beside.is_flat, beside.stage_lengths, beside.trained_lengths) == (True, (6,), LENGTHS)
    with pytest.raises(CheckpointError, match=r"is a flat model of lengths \[3, 6\], and stage 1 .* was expected"):
        Cascade.from_pretrained([sedd_folder, sedd_folder], lengths=LENGTHS, tokenizer=tmp_path / "tokenizer")


def test_lengths_of_the_hub_folder_need_its_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The golden folder has 60 tokens; no byte-level tokenizer has so few."""
    tokenizer.save(tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"has 60 tokens and the tokenizer {tokenizer.vocab_size}; .*--tokenizer"
    ):
        Cascade.from_pretrained([GOLDEN / "hub_model"], lengths=[16], tokenizer=tmp_path)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((3, 7), r"the lengths are \[3, 7\], and .* was trained for \[3, 6\]; leave --lengths out"),
        ((6, 3), r"stage_lengths \(6, 3\) has 3 after 6; lengths must strictly increase"),
        ((), "stage_lengths is empty"),
    ],
)
def test_lengths_that_are_refused(checkpoints: Callable[..., Path], lengths: tuple[int, ...], message: str) -> None:
    folder = checkpoints(1)
    assert Cascade.from_pretrained([folder], lengths=LENGTHS).trained_lengths == LENGTHS
    with pytest.raises(ConfigError, match=message):
        Cascade.from_pretrained([folder], lengths=lengths)


@without_type_checks()
def test_what_must_be_a_list(checkpoints: Callable[..., Path]) -> None:
    """Anything that can be gone through is one; it is read once, not once for each stage."""
    one, two = checkpoints(1), checkpoints(2)
    from_pretrained: Any = Cascade.from_pretrained
    assert from_pretrained(iter([one, two]), lengths=iter(LENGTHS)).stage_lengths == LENGTHS
    for source in (None, 5):
        with pytest.raises(ConfigError, match=rf"^source is {source}; it must be a bundle or a list of checkpoints, "):
            from_pretrained(source)
    for entry in (None, [one]):
        with pytest.raises(ConfigError, match=r"^checkpoint 2 is .*; it must be a path or a hub id$"):
            from_pretrained([one, entry])
    with pytest.raises(ConfigError, match=r"^stage_lengths is 6; it must be a list, for example"):
        from_pretrained([one, two], lengths=6)


def test_trunk_in_another_dtype(tokenizer: Tokenizer, checkpoints: Callable[..., Path]) -> None:
    """As `keep_trunk_in` does it: the products in bfloat16, the output layer in float32, other numbers."""
    folder = checkpoints(1)
    exact, rounded = (Cascade.from_pretrained([folder], dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert (exact.stages[0].model.compute_dtype, rounded.stages[0].model.compute_dtype) == (None, torch.bfloat16)
    assert rounded.stages[0].model.output_layer.linear.weight.dtype == torch.float32
    sigma, xt = torch.tensor([1.0]), torch.full((1, 3), tokenizer.mask_id)
    with torch.inference_mode():
        found = [made.stages[0].model(xt, sigma) for made in (exact, rounded)]
    assert found[1].dtype == torch.float32
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.2)  # bfloat16 has 3 digits
    assert generated(rounded).ids[0].shape == (5, 3)


def test_tokenizer_that_does_not_match(tokenizer: Tokenizer, checkpoints: Callable[..., Path]) -> None:
    one = checkpoints(1)
    with pytest.raises(CheckpointError, match=rf"was trained with the tokenizer 0123, .* {tokenizer.fingerprint};"):
        Cascade.from_pretrained([one, checkpoints(2, fingerprint="0123")])
    with pytest.raises(CheckpointError, match=rf"has 300 tokens and the tokenizer {tokenizer.vocab_size}; name"):
        Cascade.from_pretrained([one, checkpoints(2, vocab_size=300)])


@pytest.mark.parametrize("asked", [{}, {"keywords": ["a"], "require_coverage": True}, {"pinned": [Pin(2, 1, "a")]}])
def test_another_default_device(checkpoints: Callable[..., Path], asked: dict[str, Any]) -> None:
    stages = [checkpoints(1), checkpoints(2)]
    plain = generated(Cascade.from_pretrained(stages), **asked)
    with torch.device("meta"):
        found = generated(Cascade.from_pretrained(stages), **asked)
    assert all(map(torch.equal, plain.ids, found.ids))


def test_half_precision_by_default(tokenizer: Tokenizer) -> None:
    """Times in bfloat16 would make other texts without a word."""
    made = cascade(tokenizer)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(
            ConfigError, match=r"torch's default dtype is torch\.bfloat16, which is too coarse for times"
        ):
            made.generate(1)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("moved", "places"), [((1,), "cpu and meta"), ((0, 1), "meta")])
def test_stages_on_other_devices(tokenizer: Tokenizer, moved: tuple[int, ...], places: str) -> None:
    made = cascade(tokenizer)
    for number in moved:
        made.stages[number].model.to("meta")
    with pytest.raises(ConfigError, match=rf"the stages are on {places}; all must be on one device that holds numbers"):
        made.generate(1)
