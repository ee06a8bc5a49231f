"""One folder or hub id for all stages: the same texts, the card, and every way in which a bundle can be wrong."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cascaded_dllm.diffusion.schedule import GeometricSchedule
from cascaded_dllm.errors import CheckpointError, ConfigError, HubError, OutputError
from cascaded_dllm.model.integrity import write_checksums
from cascaded_dllm.model.prefix_settings import TRUE_PREFIXES, PrefixSettings
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.model.stage_settings import StageSettings, Weights
from cascaded_dllm.sample import bundle as bundle_module
from cascaded_dllm.sample.bundle import BundleContent, save_bundle
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.model_card import model_card
from cascaded_dllm.sample.regenerate import weights_fingerprint
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model
from tests.unit.sample.upload_hub import Hub, upload_hub

GOLDEN = Path(__file__).parents[2] / "golden"
LENGTHS = (3, 6, 12)
NOISED = PrefixSettings(noise_prob=0.1, dropout=0.2, generated_prob=0.5, generated_level=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=270)


def checkpoint(folder: Path, tokenizer: Tokenizer, stage: int, **options: Any) -> Path:
    """A checkpoint whose average has the weights of seed `stage`, and whose raw weights have others."""
    model = tiny_model(vocab_size=tokenizer.vocab_size, seed=stage, **options)
    raw = tiny_model(vocab_size=tokenizer.vocab_size, seed=stage + 50, **options)
    settings = StageSettings(
        model.config,
        {"type": "loglinear", "eps": 0.001},
        stage,
        LENGTHS,
        tokenizer.fingerprint,
        "document",
        step=1200 * stage,
        prefix=NOISED if stage == 3 else TRUE_PREFIXES,
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(settings.to_json())
    save_file(model.state_dict(), folder / "ema.safetensors")
    save_file(raw.state_dict(), folder / "model.safetensors")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    kinds: list[dict[str, Any]] = [
        {},
        {"prefix_attention": "one_way"},
        {"parameterization": "normalized", "copy_head": True},
    ]
    return [checkpoint(folder / f"stage{k}", tokenizer, k, **kind) for k, kind in enumerate(kinds, start=1)]


@pytest.fixture(scope="module")
def made(stages: list[Path]) -> Cascade:
    return Cascade.from_pretrained(stages)


@pytest.fixture
def bundle(made: Cascade, tmp_path: Path) -> Path:
    return made.save_pretrained(tmp_path / "stories")


def fingerprints(cascade: Cascade) -> list[str]:
    return [weights_fingerprint([stage.model]) for stage in cascade.stages]


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "cascade.json") -> None:
    """Changes a file of a bundle, and makes its checksums fit again."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    rewrite_checksums(folder)


def rewrite_checksums(folder: Path) -> None:
    (folder / "checksums.json").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    write_checksums(folder)


@pytest.mark.parametrize("attribute", ["stage_lengths", "trained_lengths", "is_flat", "packing", "settings", "weights"])
def test_what_is_known_of_a_cascade_comes_back(made: Cascade, bundle: Path, attribute: str) -> None:
    assert getattr(Cascade.from_pretrained(bundle), attribute) == getattr(made, attribute)


def test_same_texts(made: Cascade, bundle: Path) -> None:
    """Bit for bit, wherever the folder has gone."""
    moved = Path(shutil.move(bundle, bundle.parent / "elsewhere"))
    again = Cascade.from_pretrained(str(moved))
    for settings in ({}, {"predictor": "analytic", "steps": 5}):
        one, other = (cascade.generate(5, seed=3, **settings) for cascade in (made, again))
        for before, after in zip(one.ids, other.ids, strict=True):
            assert torch.equal(before, after)
        assert one.texts == other.texts
    assert fingerprints(again) == fingerprints(made)
    assert [stage.trained_with for stage in again.stages] == [stage.trained_with for stage in made.stages]


def test_bundle_of_a_bundle_is_the_same(bundle: Path, tmp_path: Path) -> None:
    again = Cascade.from_pretrained(bundle).save_pretrained(tmp_path / "copies" / "stories")
    names = sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    assert len(names) == 3 * 2 + 4
    for name in names:
        assert (bundle / name).read_bytes() == (again / name).read_bytes()


def test_in_bfloat16(stages: list[Path], bundle: Path, tmp_path: Path) -> None:
    """It is loaded in any dtype, and never saved rounded."""
    one, other = (Cascade.from_pretrained(place, dtype=torch.bfloat16) for place in (stages, bundle))
    assert torch.equal(one.generate(4).ids[-1], other.generate(4).ids[-1])
    with pytest.raises(
        ConfigError, match=r"stage 1 keeps weights in bfloat16, .*; load the cascade with dtype=torch\.f"
    ):
        other.save_pretrained(tmp_path / "rounded")
    assert not (tmp_path / "rounded").exists()


@pytest.mark.parametrize(("weights", "other"), [("ema", "raw"), ("raw", "ema")])
def test_one_set_of_weights(stages: list[Path], tmp_path: Path, weights: Weights, other: Weights) -> None:
    """A bundle is loaded without saying which ones it holds; the others are not there, and none stand in for them."""
    before = Cascade.from_pretrained(stages, weights=weights)
    folder = before.save_pretrained(tmp_path / "b")
    for again in (Cascade.from_pretrained(folder), Cascade.from_pretrained(folder, weights=weights)):
        assert again.weights == weights
        assert fingerprints(again) == fingerprints(before)
    assert fingerprints(before) != fingerprints(Cascade.from_pretrained(stages, weights=other))
    message = rf"weights is '{other}', and the bundle .* holds only the {weights} weights; .* with --weights {other}"
    with pytest.raises(ConfigError, match=message):
        Cascade.from_pretrained(folder, weights=other)


def test_stage_of_a_bundle_is_a_checkpoint(made: Cascade, bundle: Path) -> None:
    stage = load_stage(bundle / "stage_2")
    assert (stage.settings, weights_fingerprint([stage.model])) == (made.settings[1], fingerprints(made)[1])
    with pytest.raises(
        CheckpointError, match=r"is a bundle of all stages, and one stage .* \(--cascade\), or its folder"
    ):
        load_stage(bundle)
    with pytest.raises(
        CheckpointError, match=r"stage_2 belongs to a bundle, which holds one .* no model\.saf.* with weights='ema'"
    ):
        load_stage(bundle / "stage_2", weights="raw")


def test_first_stages_are_a_cascade_too(made: Cascade, bundle: Path, tmp_path: Path) -> None:
    first = replace(made, stages=made.stages[:2]).save_pretrained(tmp_path / "first")
    again = Cascade.from_pretrained(first)
    assert (again.stage_lengths, again.trained_lengths) == (LENGTHS[:2], LENGTHS)
    assert torch.equal(again.generate(3).ids[1], made.generate(3).ids[1])
    assert "This model has only the stages 1 to 2" in (first / "README.md").read_text()
    assert "Here are" not in (bundle / "README.md").read_text()


def test_flat_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One path that is no bundle is a flat model, or a first stage; as a bundle it is the same."""
    run = checkpoint(tmp_path / "flat", tokenizer, 0)
    flat = Cascade.from_pretrained(run)
    assert (flat.is_flat, flat.stage_lengths) == (True, LENGTHS[-1:])
    again = Cascade.from_pretrained(flat.save_pretrained(tmp_path / "b"))
    assert (again.is_flat, again.stage_lengths, again.trained_lengths) == (True, LENGTHS[-1:], LENGTHS)
    assert torch.equal(again.generate(3).ids[0], flat.generate(3).ids[0])
    card = (tmp_path / "b" / "README.md").read_text()
    assert "without stages, which writes texts of 12 tokens" in card
    assert "| flat | 12 | nothing |" in card


def test_model_of_sedd(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Its checkpoint says neither lengths nor tokenizer; its bundle does."""
    folder = tmp_path / "sedd"
    config = json.loads((GOLDEN / "hub_model" / "config.json").read_text()) | {"tokens": tokenizer.vocab_size}
    sizes = {"hidden_size": 16, "n_heads": 2, "n_blocks": 2, "cond_dim": 8}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"model": config["model"] | sizes}))
    save_file(tiny_model(vocab_size=tokenizer.vocab_size, seed=5).state_dict(), folder / "model.safetensors")
    tokenizer.save(tmp_path / "tokenizer")
    flat = Cascade.from_pretrained(folder, lengths=[6], tokenizer=tmp_path / "tokenizer")
    again = Cascade.from_pretrained(flat.save_pretrained(tmp_path / "b"))
    assert (again.stage_lengths, again.is_flat, again.packing) == ((6,), True, "")
    assert torch.equal(again.generate(3).ids[0], flat.generate(3).ids[0])
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| not said |" in card
    assert "6 tokens, not said by the checkpoints" in card


@pytest.mark.parametrize(("origin", "weights"), [("legacy_run", "ema"), ("legacy_run", "raw"), ("hub_model", "ema")])
def test_golden_networks(tokenizer: Tokenizer, tmp_path: Path, origin: str, weights: Weights) -> None:
    """Networks of the original code keep their stored log scores; their 60 tokens are no byte-level vocabulary."""
    stage = load_stage(GOLDEN / origin, weights=weights)
    settings = stage.settings if origin == "legacy_run" else replace(stage.settings, stage_lengths=(16,))
    content = BundleContent(
        models=(stage.model,), settings=(settings,), tokenizer=tokenizer, weights=weights, packing=""
    )
    save_bundle(tmp_path / "b", content)
    again = load_stage(tmp_path / "b" / "stage_1", weights=weights)
    assert again.settings == settings
    expected = load_file(GOLDEN / "legacy_run_expected.safetensors")
    with torch.no_grad():
        found = again.model(expected["xt"], expected["sigma"], expected["prefix"])
    stored = "ema" if (origin, weights) == ("legacy_run", "ema") else "raw"
    torch.testing.assert_close(found, expected[f"log_score_{stored}_weights"], rtol=0, atol=1e-5)


def test_card(made: Cascade, tmp_path: Path) -> None:
    """Its header is YAML, its numbers are those of the networks, and what it tells to type is what there is."""
    made.save_pretrained(tmp_path / "my stories", license="cc-by-4.0")
    card = (tmp_path / "my stories" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "library_name": "cascaded-dllm",
        "pipeline_tag": "text-generation",
        "tags": ["text-diffusion", "discrete-diffusion"],
        "license": "cc-by-4.0",
    }
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ")][2:]
    assert [row[:3] for row in rows] == [["| 1", "3", "nothing"], ["| 2", "6", "3 tokens"], ["| 3", "12", "6 tokens"]]
    for row, stage in zip(rows, made.stages, strict=True):
        assert int(row[3].replace(",", "")) == sum(weight.numel() for weight in stage.model.parameters())
    assert [row[7] for row in rows] == ["score", "score", "normalized, copy head"]
    assert [row[8] for row in rows] == ["joint", "one_way", "joint"]
    assert [row[10] for row in rows] == ["1,200 |", "2,400 |", "3,600 |"]
    for part in (
        "# my stories",
        "written in 3 stages of 3, 6, 12 tokens",
        "Cascade.from_pretrained('my stories')",
        "cdllm sample --cascade 'my stories' --num-samples 4",
        f"{made.tokenizer.vocab_size} tokens, fingerprint `{made.tokenizer.fingerprint}`",
        "12 tokens, packing `document`",
        "loglinear, eps 0.001",
        "Prefixes of stage 2 in training: the true ones.",
        "0.1 of the tokens replaced (random), 0.2 of the prefixes left out, 0.5 of the prefixes rewritten by",
        "before, each token with a probability of up to",
        "The texts that it was trained on are not stored",
    ):
        assert part in card


@pytest.mark.parametrize("license", ["no", "1.0", "null", "mit"])
def test_license_is_text_for_who_reads_the_card(made: Cascade, tmp_path: Path, license: str) -> None:
    made.save_pretrained(tmp_path / "b", license=license)
    header = yaml.safe_load((tmp_path / "b" / "README.md").read_text().split("---\n")[1])
    assert header["license"] == license


def test_card_of_a_single_stage(made: Cascade) -> None:
    description = {"stage_lengths": [6], "trained_lengths": [6], "is_flat": False, "packing": "", "weights": "raw"}
    card = model_card(
        "x/y",
        description,
        [made.stages[0].model],
        [replace(made.settings[0], stage_lengths=(6,))],
        made.tokenizer,
        license=None,
    )
    assert "of one stage, which writes texts of 6 tokens" in card
    assert "license" not in card
    assert "Weights: `raw`, the weights themselves" in card
    assert "chosen by" not in card


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"method": "tfidf"}, "by the method `tfidf`; each once."),
        ({"method": "tfidf", "unique": False}, "by the method `tfidf`; repeated ones too."),
        (
            {"method": "random", "choice": {"per": "word", "seed": 3}},
            "by the method `random`, chance per word with the seed 3; each once.",
        ),
        (
            {"method": "custom", "choice": {"function": "mine.py:f", "sha256": "abc"}},
            "by the method `custom`, mine.py:f of SHA-256 abc; each once.",
        ),
    ],
)
def test_card_says_what_chose_the_shorter_texts(made: Cascade, said: dict[str, Any], told: str) -> None:
    description = {"stage_lengths": [3, 6], "trained_lengths": list(LENGTHS), "is_flat": False, "packing": ""}
    settings = [replace(settings, **said) for settings in made.settings[:2]]
    models = [stage.model for stage in made.stages[:2]]
    card = model_card("x/y", description | {"weights": "ema"}, models, settings, made.tokenizer, license=None)
    assert f"* Tokens of shorter texts: chosen {told}\n" in card


def test_what_cannot_be_saved(made: Cascade, tmp_path: Path) -> None:
    by_hand = Cascade(made.stages, made.tokenizer, LENGTHS)
    message = r"has 3 stages and the settings of 0, .*; only what Cascade\.from_pretrained has loaded can be saved"
    with pytest.raises(ConfigError, match=message):
        by_hand.save_pretrained(tmp_path / "b")
    with pytest.raises(ConfigError, match="the license is 'no: one'; it must be an identifier such as mit"):
        made.save_pretrained(tmp_path / "b", license="no: one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (
            lambda made: {"stages": (made.stages[1], made.stages[0])},
            r"the model, .*length of stage 1, the .*",
        ),
        (lambda made: {"stages": made.stages[1:]}, r"the model, .*length of stage 1, the .*"),
        (lambda made: {"stages": (replace(made.stages[0], t_end=0.3),)}, "the t_end of stage 1"),
        (lambda made: {"stages": (replace(made.stages[0], model=made.stages[1].model),)}, "the model of stage 1"),
        (lambda made: {"stages": (replace(made.stages[0], schedule=GeometricSchedule()),)}, "the schedule of stage 1"),
        (lambda made: {"stages": (replace(made.stages[0], trained_with=NOISED),)}, "the trained_with of stage 1"),
        (lambda made: {"packing": "stream"}, "the packing"),
        (lambda _: {"tokenizer": Tokenizer.train(["one two"] * 3, vocab_size=260)}, "the tokenizer"),
    ],
)
def test_cascade_that_was_changed(
    made: Cascade, tmp_path: Path, change: Callable[[Cascade], dict[str, Any]], differing: str
) -> None:
    """What its checkpoints do not say would not come back, and a bundle of other texts is never written."""
    message = rf"differ from what its checkpoints say in {differing}; save the cascade as Cascade\.from_pretrained"
    with pytest.raises(ConfigError, match=message):
        replace(made, **change(made)).save_pretrained(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_overwritten(made: Cascade, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "b"
    if kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
    with pytest.raises(OutputError, match="b exists, and a bundle overwrites nothing; choose another folder"):
        made.save_pretrained(place)
    assert list(tmp_path.iterdir()) == [place]
    assert kind == "folder" or place.read_text() == "mine"


def test_half_a_bundle_never_appears(made: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the second stage is written."""
    written: list[Path] = []

    def fill_up(weights: dict[str, torch.Tensor], path: Path) -> None:
        if written:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        written.append(path)
        save_file(weights, path)

    monkeypatch.setattr(bundle_module, "save_file", fill_up)
    with pytest.raises(OutputError, match=r"b cannot be written \(No space left on device\); choose an output"):
        made.save_pretrained(tmp_path / "b")
    assert len(written) == 1
    assert list(tmp_path.iterdir()) == []


def truncated(folder: Path) -> None:
    path = folder / "stage_3" / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def one_bit(folder: Path) -> None:
    path = folder / "stage_1" / "ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def exchanged(folder: Path) -> None:
    (folder / "stage_1").rename(folder / "x")
    (folder / "stage_2").rename(folder / "stage_1")
    (folder / "x").rename(folder / "stage_2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, r"stage_3/ema\.safetensors does not have its recorded checksum"),
        (one_bit, r"stage_1/ema\.safetensors does not have its recorded checksum"),
        (lambda folder: shutil.rmtree(folder / "stage_2"), r"stage_2/config\.json is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
        (lambda folder: (folder / "checksums.json").unlink(), r"checksums\.json cannot be read \(FileNotFoundError\)"),
        (exchanged, r"stage_1/config\.json does not have its recorded checksum"),
        (
            lambda folder: Tokenizer.train(["quite another text"], vocab_size=260).save(folder),
            r"tokenizer\.json does not have its recorded checksum",
        ),
    ],
)
def test_damaged_bundle(bundle: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(bundle)
    with pytest.raises(
        CheckpointError, match=rf"the bundle .*stories is damaged: {message}; copy it again, or make it"
    ):
        Cascade.from_pretrained(bundle)


@pytest.mark.parametrize("name", ["cascade.json", "tokenizer.json", "stage_1/config.json", "stage_3/ema.safetensors"])
def test_file_whose_checksum_nobody_knows(bundle: Path, name: str) -> None:
    """It could be any file: here weights with another bit would be loaded as if they were checked."""
    one_bit(bundle)
    path = bundle / "checksums.json"
    sums = json.loads(path.read_text())
    del sums[name], sums["stage_1/ema.safetensors"]
    path.write_text(json.dumps(sums))
    with pytest.raises(
        CheckpointError, match=r"is damaged: checksums\.json does not list .*, .*; copy it again, or make it"
    ):
        Cascade.from_pretrained(bundle)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"is damaged: checksums\.json lists no files; copy it again, or make it"):
        Cascade.from_pretrained(bundle)


def test_card_may_be_edited(bundle: Path) -> None:
    (bundle / "README.md").write_text("mine")
    assert Cascade.from_pretrained(bundle).stage_lengths == LENGTHS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "cascaded-dllm-cascade/2"},
            r"of the format 'cascaded-dllm-cascade/2', and this version reads 'casc",
        ),
        ({"stages": ["stage_1", "../stage_2"]}, "lacks or misstates stages or weights; make the bundle anew"),
        ({"stages": []}, "lacks or misstates stages or weights; make the bundle anew"),
        ({"stages": 3}, "lacks or misstates stages or weights; make the bundle anew"),
        ({"weights": "best"}, "lacks or misstates stages or weights; make the bundle anew"),
        ({"stage_lengths": [3, 6, 13]}, r"differ: stage_lengths \[3, 6, 13\] and \[3, 6, 12\]; leave --tokenizer out"),
        ({"is_flat": True, "packing": "stream"}, "differ: is_flat True and False; packing 'stream' and 'document'; "),
        ({"stages": ["stage_1", "stage_2"]}, r"differ: stage_lengths \[3, 6, 12\] and \[3, 6\]; "),
    ],
)
def test_description_that_does_not_fit(bundle: Path, change: dict[str, Any], message: str) -> None:
    edit(bundle, lambda content: content.update(change))
    with pytest.raises(CheckpointError, match=message):
        Cascade.from_pretrained(bundle)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", "\udcff"])
def test_description_that_cannot_be_read(bundle: Path, text: str) -> None:
    (bundle / "cascade.json").write_bytes(text.encode(errors="surrogateescape"))
    rewrite_checksums(bundle)
    with pytest.raises(CheckpointError, match=r"cascade\.json lacks or misstates .*; make the bundle anew"):
        Cascade.from_pretrained(bundle)


def test_stages_that_somebody_has_mixed_up(bundle: Path) -> None:
    exchanged(bundle)
    rewrite_checksums(bundle)
    with pytest.raises(CheckpointError, match=r"stage_1 is stage 2 of lengths .*, and stage 1 .* was expected"):
        Cascade.from_pretrained(bundle)


def test_another_tokenizer(bundle: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Named, or put into the bundle with its checksum, it is found by its fingerprint, also where no stage says it."""
    tokenizer.save(tmp_path / "same")
    assert Cascade.from_pretrained(bundle, tokenizer=tmp_path / "same").tokenizer.fingerprint == tokenizer.fingerprint
    other = Tokenizer.train(["one two one two three"] * 5, vocab_size=tokenizer.vocab_size)
    assert other.vocab_size < tokenizer.vocab_size
    other.save(tmp_path / "other")
    with pytest.raises(CheckpointError, match="was trained with the tokenizer"):
        Cascade.from_pretrained(bundle, tokenizer=tmp_path / "other")
    for number in (1, 2, 3):
        edit(bundle, lambda content: content.update(tokenizer=""), f"stage_{number}/config.json")
    same_size = Tokenizer.train(["some of those words and those of some word or other worlds"], vocab_size=270)
    assert same_size.vocab_size == tokenizer.vocab_size
    same_size.save(tmp_path / "same_size")
    with pytest.raises(
        CheckpointError, match=rf"differ: tokenizer '{tokenizer.fingerprint}' and '{same_size.fingerprint}"
    ):
        Cascade.from_pretrained(bundle, tokenizer=tmp_path / "same_size")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the libraries ask, an empty cache, and a place for temporary files."""
    with upload_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (tmp_path / "temporary").mkdir()
        yield found


def test_there_and_back(made: Cascade, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = made.push_to_hub("somebody/stories", token="hf_x", private=True, commit_message="First", license="mit")
    assert address == f"{hub.address}/somebody/stories"
    assert (hub.commits, hub.private) == (["First"], {"somebody/stories"})
    assert b"Cascade.from_pretrained('somebody/stories')" in hub.files["somebody/stories"]["README.md"]
    assert list((tmp_path / "temporary").iterdir()) == []
    again = Cascade.from_pretrained("somebody/stories")
    assert torch.equal(again.generate(3).ids[-1], made.generate(3).ids[-1])
    # The cache comes first: without the hub it is found as well; a part of it is not enough.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fingerprints(Cascade.from_pretrained("somebody/stories")) == fingerprints(made)
    sums = next((tmp_path / "cache").rglob("checksums.json"))
    whole = sums.read_text()
    for broken in ("", "[1]", "7", "{}"):
        sums.write_text(broken)
        with pytest.raises(CheckpointError, match=r"somebody--stories.* is damaged: checksums\.json (cannot|lists no)"):
            Cascade.from_pretrained("somebody/stories")
    sums.write_text(whole)
    next((tmp_path / "cache").rglob("stage_3/ema.safetensors")).unlink()
    # Before 2.0 the hub's library returns such a part as if it were the model.
    refusal = r"somebody/stories is not a folder here and could not be downloaded|stage_3/ema\.safetensors is missing"
    with pytest.raises(CheckpointError, match=refusal):
        Cascade.from_pretrained("somebody/stories")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fingerprints(Cascade.from_pretrained("somebody/stories")) == fingerprints(made)


def test_fewer_stages_than_before(made: Cascade, hub: Hub) -> None:
    """A second upload is another commit, without the stages that are no more; other files stay."""
    made.push_to_hub("somebody/stories", token="hf_x")
    hub.files["somebody/stories"]["notes.txt"] = b"mine"
    replace(made, stages=made.stages[:2]).push_to_hub("somebody/stories", token="hf_x")
    assert hub.commits == ["Upload a cascade", "Upload a cascade"]
    assert {name.split("/")[0] for name in hub.files["somebody/stories"]} == {
        *("README.md", "cascade.json", "checksums.json", "notes.txt", "stage_1", "stage_2", "tokenizer.json")
    }
    assert Cascade.from_pretrained("somebody/stories").stage_lengths == LENGTHS[:2]


def test_public_repository_where_a_private_one_is_asked_for(made: Cascade, hub: Hub) -> None:
    """Nothing of it becomes public; a private one stays private, whatever is asked for."""
    made.push_to_hub("somebody/open", token="hf_x", private=False)
    with pytest.raises(HubError, match="somebody/open was not uploaded: the repository is there and public, and a pri"):
        made.push_to_hub("somebody/open", token="hf_x", private=True, commit_message="Second")
    for asked in (True, True, False, None):
        made.push_to_hub("somebody/secret", token="hf_x", private=asked)
    assert hub.private == {"somebody/secret"}
    assert "Second" not in hub.commits


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"/api/whoami": 401}, "was not uploaded: the hub does not know who asks; log in with `hf auth login`"),
        ({"/api/repos/create": 403, "/api/models": 404}, "was not uploaded: this token may not write there; give one"),
        ({"/api/models/somebody/stories/commit": 403}, "was not uploaded: this token may not write there; give one"),
        ({"/api/models/somebody/stories/commit": 400}, r"hub does not answer or refuses \(\w+: .*; check the network"),
    ],
)
def test_hub_that_refuses(made: Cascade, hub: Hub, tmp_path: Path, refused: dict[str, int], message: str) -> None:
    hub.refused = refused
    with pytest.raises(HubError, match=rf"somebody/stories .*{message}"):
        made.push_to_hub("somebody/stories", token="hf_x")
    assert hub.commits == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_nobody_is_logged_in(made: Cascade, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HubError, match="the hub does not know who asks; log in with `hf auth login`, or give a token"):
        made.push_to_hub("somebody/stories")
    assert hub.files == {}


def test_no_network(made: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        HubError, match=r"does not answer or refuses \(OfflineModeIsEnabled: .*save the bundle to a fol"
    ):
        made.push_to_hub("somebody/stories", token="hf_x")
    with pytest.raises(ConfigError, match="'not an id' is not a hub id; it must be owner/name"):
        made.push_to_hub("not an id")
    with pytest.raises(CheckpointError, match="nobody/nothing is not a folder here and could not be downloaded"):
        Cascade.from_pretrained("nobody/nothing")
