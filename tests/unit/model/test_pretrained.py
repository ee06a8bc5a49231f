"""Loading checkpoints: where they are found, and every way in which they can be wrong."""

import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import save_file

from cascaded_dllm import hub_requests
from cascaded_dllm.atomic import file_sha256
from cascaded_dllm.errors import CheckpointError, ConfigError, DamagedCheckpointWarning
from cascaded_dllm.model import hub_folder as hub_folder_module
from cascaded_dllm.model import integrity, pretrained, stored_stage
from cascaded_dllm.model.pretrained import load_stage, load_weights, read_settings
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings
from tests.unit.model.tiny import tiny_batch, tiny_model
from tests.unit.model.unchecked import without_type_checks

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint folder of this package whose raw weights are those of seed 1 and whose average is of seed 2."""
    folder = tmp_path / "step_7"
    folder.mkdir()
    raw, average = tiny_model(seed=1), tiny_model(seed=2)
    settings = StageSettings(
        raw.config,
        {"type": "loglinear", "eps": 1e-3},
        stage=2,
        stage_lengths=(4, 5),
        tokenizer="abc",
        packing="document",
        step=7,
    )
    (folder / "config.json").write_text(settings.to_json())
    save_file(raw.state_dict(), folder / "model.safetensors")
    save_file(average.state_dict(), folder / "ema.safetensors")
    return folder


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A copy of the run folder of the original code, to be damaged."""
    return Path(shutil.copytree(GOLDEN / "legacy_run", tmp_path / "run"))


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "hub_model", tmp_path / "hub"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


def log_score(model: ScoreModel) -> torch.Tensor:
    with torch.no_grad():
        return model(*tiny_batch())


def test_own_checkpoint(checkpoint: Path) -> None:
    for weights, seed in (("ema", 2), ("raw", 1)):
        stage = load_stage(checkpoint, weights=weights)  # type: ignore[arg-type]
        assert torch.equal(log_score(stage.model), log_score(tiny_model(seed=seed)))
        assert not stage.model.training
    assert torch.equal(log_score(ScoreModel.from_pretrained(str(checkpoint))), log_score(tiny_model(seed=2)))
    settings = stage.settings
    assert (settings.stage, settings.stage_lengths, settings.tokenizer, settings.step) == (2, (4, 5), "abc", 7)
    assert settings.packing == "document"
    assert dict(settings.noise) == {"type": "loglinear", "eps": 1e-3}
    assert settings.model == tiny_model().config
    assert (stage.folder, stage.tokenizer_path) == (checkpoint, None)
    (checkpoint / "tokenizer.json").write_text("{}")
    assert load_stage(checkpoint).tokenizer_path == checkpoint / "tokenizer.json"


def test_run_folder_stands_for_its_latest_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint.rename(run / "checkpoints" / "step_7")
    (run / "checkpoints" / "latest").symlink_to("step_7")
    with pytest.raises(CheckpointError, match=r"run has no complete checkpoint \(.*checksums\.json cannot be read"):
        load_stage(run)
    newest, older = run / "checkpoints" / "step_7", run / "checkpoints" / "step_5"
    write_checksums(newest)
    shutil.copytree(newest, older)
    assert load_stage(run).folder == newest
    assert load_stage(run).passed_over == ()
    # One flipped byte: the one before is used, and it is told; asked for by name, it is refused.
    flip_a_byte(newest / "ema.safetensors")
    found = load_stage(run)
    assert found.folder == older
    assert found.passed_over == (f"{newest}: ema.safetensors does not have its recorded checksum",)
    with pytest.raises(CheckpointError, match=r"step_7 is damaged: ema\.safetensors does not have its recorded"):
        load_stage(newest)
    with pytest.warns(DamagedCheckpointWarning, match=r"passed over a damaged checkpoint: .*step_7: ema\.safetensors"):
        ScoreModel.from_pretrained(run)


@pytest.mark.parametrize("moment", ["open_stage", "checkpoint_fault", "load_file", "load_weights"])
def test_checkpoint_that_the_run_deletes_meanwhile(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A run that keeps one checkpoint has completed the next when it deletes the one that is being read."""
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    write_checksums(checkpoint)
    checkpoint.rename(checkpoints / "step_7")
    modules = {"checkpoint_fault": integrity, "load_file": stored_stage}
    module: Any = modules.get(moment, pretrained)
    original, asked = getattr(module, moment), []

    def after_the_run_went_on(*arguments: Any, **more: Any) -> object:
        asked.append(moment)
        if len(asked) == 1:
            (checkpoints / "step_7").rename(checkpoints / "step_8")
            if moment == "load_file":
                # As the library does for a file that vanishes between its two openings.
                raise RuntimeError("unable to open file <ema.safetensors> in read-only mode")
        return original(*arguments, **more)

    monkeypatch.setattr(module, moment, after_the_run_went_on)
    of_weights = moment in ("load_file", "load_weights")
    for read in (load_stage,) if of_weights else (load_stage, read_settings):
        found: Any = read(checkpoints.parent)
        assert len(asked) > 1
        assert getattr(found, "settings", found).step == 7
        (checkpoints / "step_8").rename(checkpoints / "step_7")
        asked.clear()


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("open_stage", r"step_7 is not a checkpoint: it has neither config\.json nor"),
        ("load_weights", r"step_7 was deleted while it was read; give another checkpoint, or the folder of its run"),
    ],
)
def test_checkpoint_asked_for_by_name_that_is_deleted_meanwhile(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, moment: str, message: str
) -> None:
    """No other one stands in for it."""
    original = getattr(pretrained, moment)

    def after_the_run_went_on(*arguments: Any, **more: Any) -> object:
        checkpoint.rename(checkpoint.with_name("step_8"))
        return original(*arguments, **more)

    monkeypatch.setattr(pretrained, moment, after_the_run_went_on)
    with pytest.raises(CheckpointError, match=message):
        load_stage(checkpoint)


def test_other_errors_of_the_weights_are_faults_of_the_program(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("no such backend")

    monkeypatch.setattr(stored_stage, "load_file", fails)
    with pytest.raises(RuntimeError, match="no such backend"):
        load_stage(checkpoint)


@pytest.mark.parametrize("has_folder", [True, False])
def test_run_folder_without_checkpoints(tmp_path: Path, has_folder: bool) -> None:
    if has_folder:
        (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("stage: 1")
    message = r"is a run that has no checkpoint yet: the first one is written after training\.snapshot_every steps, or"
    with pytest.raises(CheckpointError, match=message):
        load_stage(tmp_path)


def test_config_of_something_else_beside_a_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "config.yaml").write_text("stage: 1")
    assert load_stage(checkpoint).folder == checkpoint


def test_checkpoint_that_does_not_say_how_windows_were_cut(checkpoint: Path) -> None:
    """As those written before it was recorded."""
    edit(checkpoint / "config.json", lambda settings: settings.pop("packing"))
    assert load_stage(checkpoint).settings.packing == ""


def write_checksums(folder: Path) -> None:
    sums = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    (folder / "checksums.json").write_text(json.dumps(sums))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def snapshots(whole: Path, partial: Path, asked: list[bool]) -> Callable[..., str]:
    """`snapshot_download` of models that lie in the cache, or not there, or in part."""

    def download(repo_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        if local_files_only and repo_id == "someone/new":
            raise LocalEntryNotFoundError("not in the cache")
        if local_files_only and repo_id == "someone/partial":
            return str(partial)
        return str(whole)

    return download


@pytest.fixture
def partial(hub_folder: Path, tmp_path: Path) -> Path:
    """What is left of a download that was broken off."""
    folder = tmp_path / "partial"
    folder.mkdir()
    shutil.copy(hub_folder / "config.json", folder)
    return folder


def test_hub_id(hub_folder: Path, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is asked first, and the network only if it has nothing, or a part only."""
    asked: list[bool] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(hub_folder_module, "snapshot_download", snapshots(hub_folder, partial, asked))
    assert load_stage("someone/cached").folder == hub_folder
    assert asked == [True]
    assert load_stage("someone/new").folder == hub_folder
    assert asked == [True, True, False]
    assert load_stage("someone/partial").folder == hub_folder
    assert asked == [True, True, False, True, False]


def test_hub_that_does_not_answer(hub_folder: Path, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded then, which the library would try for a minute; a part is read for what it lacks."""
    asked: list[bool] = []
    waiting = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: waiting.wait(10))
    monkeypatch.setattr(hub_folder_module, "snapshot_download", snapshots(hub_folder, partial, asked))
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 0.05)
    with pytest.raises(CheckpointError, match=r"could not be downloaded from the hub \(TimeoutError\); check the path"):
        load_stage("someone/new")
    with pytest.raises(CheckpointError, match=r"partial.model\.safetensors is missing; the checkpoint is incomplete"):
        load_stage("someone/partial")
    waiting.set()
    assert asked == [True, True]


def test_hub_that_refuses(hub_folder: Path, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is no more than a part is worth more than what the part lacks."""

    def refuse(*_: object, **__: object) -> None:
        raise HfHubHTTPError.__new__(HfHubHTTPError)

    asked: list[bool] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(hub_folder_module, "snapshot_download", snapshots(hub_folder, partial, asked))
    for hub_id in ("someone/new", "someone/partial"):
        with pytest.raises(
            CheckpointError, match=rf"{hub_id} .* downloaded from the hub \(HfHubHTTPError\); check the path"
        ):
            load_stage(hub_id)
    assert asked == [True, True]


def test_download_that_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        raise LocalEntryNotFoundError("not in the cache") if local_files_only else ConnectionError("lost")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(hub_folder_module, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"could not be downloaded from the hub \(ConnectionError\); check"):
        load_stage("someone/new")


def test_unknown_weights(checkpoint: Path) -> None:
    with without_type_checks(), pytest.raises(ConfigError, match="weights is 'best'; it must be one of ema, raw"):
        load_stage(checkpoint, weights="best")  # type: ignore[arg-type]


def test_no_such_place(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no such/place at/all does not exist here and is not a hub id"):
        load_stage("no such/place at/all")
    with pytest.raises(CheckpointError, match="someone/nothing is not a folder here and could not be downloaded"):
        load_stage("someone/nothing")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file; give the folder that holds config\.json"):
        load_stage(checkpoint / "model.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"empty is not a checkpoint: it has neither config\.json nor"):
        load_stage(empty)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"tokens": ', r"config\.json is not valid JSON"),
        (b"\xff\xfe\x00", r"config\.json is not valid JSON"),
        (b"[1, 2]", r"config\.json holds a list instead of settings"),
        (
            b'{"model_type": "gpt2", "n_layer": 2}',
            r"nor a SEDD model \(its keys are \['model_type', 'n_layer'\]",
        ),
    ],
)
def test_foreign_configuration(checkpoint: Path, content: bytes, message: str) -> None:
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_stage(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda settings: settings.pop("step"), r"config\.json lacks or misstates 'step'"),
        (lambda settings: settings.pop("model"), r"lacks or misstates 'model'"),
        (lambda settings: settings.update(model=[]), r"lacks or misstates .*'list'"),
        (lambda settings: settings.update(stage_lengths=None), r"lacks or misstates 'NoneType'"),
        (lambda settings: settings["model"].update(num_blocks="2"), r"lacks or misstates"),
        (lambda settings: settings.update(choice="x"), r"lacks or misstates string indices"),
        (lambda settings: settings.update(choice=7), r"lacks or misstates argument of type 'int'"),
        (lambda settings: settings.update(choice=[]), r"lacks or misstates list indices"),
        (lambda settings: settings.update(choice={"per": "word"}), r"lacks or misstates 'seed'"),
    ],
)
def test_damaged_settings(checkpoint: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(checkpoint / "config.json", change)
    with without_type_checks(), pytest.raises(CheckpointError, match=message):
        load_stage(checkpoint)


def test_settings_of_a_newer_network(checkpoint: Path) -> None:
    edit(checkpoint / "config.json", lambda settings: settings["model"].update(depth=3))
    with pytest.raises(ConfigError, match=r"unknown keys \['depth'\] and lack \[\]"):
        load_stage(checkpoint)


def test_missing_and_truncated_weights(checkpoint: Path) -> None:
    path = checkpoint / "ema.safetensors"
    content = path.read_bytes()
    for length in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"ema\.safetensors is truncated or not a safetensors file"):
            load_stage(checkpoint)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is missing; the checkpoint is incomplete"):
        load_stage(checkpoint)
    load_stage(checkpoint, weights="raw")


def test_every_mismatch_is_listed() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = dict(tiny_model(seed=1).state_dict())
    del state["blocks.0.norm1.weight"]
    state["blocks.9.norm1.weight"] = torch.ones(16)
    state["output_layer.linear.bias"] = torch.ones(3)
    state["vocab_embed.embedding"] = torch.ones(14, 15)
    with pytest.raises(CheckpointError, match="the weights in here do not fit the network") as caught:
        load_weights(model, state, source="here")
    for part in (
        "missing blocks.0.norm1.weight",
        "unexpected blocks.9.norm1.weight",
        "output_layer.linear.bias has shape (3,) and should have (14,)",
        "vocab_embed.embedding has shape (14, 15) and should have (14, 16)",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers(broken: float) -> None:
    """As a training that broke down would leave them; texts would be drawn from them all the same."""
    model, state = tiny_model(), dict(tiny_model(seed=1).state_dict())
    before = model.state_dict()["vocab_embed.embedding"].clone()
    for name in ("blocks.0.attn_qkv.weight", "output_layer.linear.bias"):
        state[name] = state[name].clone()
        state[name].view(-1)[3] = broken
    with pytest.raises(
        CheckpointError,
        match=r"weights in here are NaN or infinite: blocks\.0\.attn_qkv\.weight, output_layer\.linear\.bias; give",
    ):
        load_weights(model, state, source="here")
    assert torch.equal(model.state_dict()["vocab_embed.embedding"], before)


def test_names_of_the_original_code() -> None:
    """Weights of a wrapped network carry `module.`, and those of a head that nothing reads are left out."""
    state = {f"module.{name}": tensor for name, tensor in tiny_model(seed=1).state_dict().items()}
    state["module.prediction_head.weight"] = torch.ones(2)
    model = tiny_model(seed=2)
    load_weights(model, state, source="here")
    assert torch.equal(log_score(model), log_score(tiny_model(seed=1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": {"type": "gaussian"}}, r"config\.json lacks or misstates 'gaussian'; it needs tokens, graph\.type"),
        ({"graph": 3}, "lacks or misstates"),
        ({"noise": {}}, "lacks or misstates 'type'"),
        ({"noise": "loglinear"}, "lacks or misstates"),
        ({"model": {"hidden_size": 32}}, "lacks or misstates 'n_heads'"),
        ({"target_lens": {"first": 4}}, "lacks or misstates 'stage1'"),
    ],
)
def test_sedd_settings_that_do_not_fit(hub_folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(hub_folder / "config.json", lambda settings: settings.update(changes))
    with pytest.raises(CheckpointError, match=message):
        load_stage(hub_folder)


def test_sedd_weights_of_another_size(hub_folder: Path) -> None:
    edit(hub_folder / "config.json", lambda settings: settings.update(tokens=61))
    with pytest.raises(CheckpointError, match=r"embedding has shape \(61, 32\) and should have \(62, 32\)"):
        load_stage(hub_folder)
    (hub_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_stage(hub_folder)


class Malicious:
    """Unpickled, it runs a command that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_original_checkpoint_that_would_run_code(original: Path, tmp_path: Path) -> None:
    trace = tmp_path / "was_run"
    average: dict[str, list[torch.Tensor]] = {"shadow_params": []}
    torch.save({"model": Malicious(trace), "ema": average}, original / "checkpoints-meta" / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="holds objects whose loading would run code from the file; nothing was"):
        load_stage(original)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, r"not a checkpoint of the original code \(KeyError\)"),
        ([1, 2], r"not a checkpoint of the original code \(TypeError\)"),
        ({"model": [1], "ema": {"shadow_params": []}}, r"not a checkpoint of the original code \(AttributeError\)"),
    ],
)
def test_foreign_original_checkpoint(original: Path, content: object, message: str) -> None:
    torch.save(content, original / "checkpoints-meta" / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=message):
        load_stage(original)


def test_damaged_original_run(original: Path) -> None:
    path = original / "checkpoints-meta" / "checkpoint.pth"
    content = path.read_bytes()
    for part in (content[: len(content) // 2], content[:-1], b"", b"text"):
        path.write_bytes(part)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pth is truncated or not a file of torch\.save"):
            load_stage(original)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing of torch")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of the original code \(RuntimeError\)"):
        load_stage(original)
    path.write_bytes(content)
    settings = original / ".hydra" / "config.yaml"
    for broken in (b"a: [1", b"\xff\xfe"):
        settings.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"config\.yaml is not valid YAML"):
            load_stage(original)
    settings.write_text("only text")
    with without_type_checks(), pytest.raises(CheckpointError, match=r"config\.yaml lacks or misstates"):
        load_stage(original)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth is missing; an original run folder keeps its weights"):
        load_stage(original)


def test_original_average_of_another_network(original: Path) -> None:
    path = original / "checkpoints-meta" / "checkpoint.pth"
    content = torch.load(path, weights_only=True)
    content["ema"]["shadow_params"].pop()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"averages \d+ tensors of a network that has \d+; load it with"):
        load_stage(original)
    load_stage(original, weights="raw")
