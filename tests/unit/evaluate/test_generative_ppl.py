"""Perplexities against plain computations of the transformers library, on a judge of random weights."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascaded_dllm.errors import ConfigError, MissingExtraError
from cascaded_dllm.evaluate import generative_ppl
from cascaded_dllm.evaluate.generative_ppl import Judge, num_empty, ppl_corpus_and_error, ppl_per_text
from tests.unit.evaluate.tiny_judge import CONTEXT, TEXTS, save_judge

pytest.importorskip("transformers", reason="the extra eval is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(str(folder))


def plain_nats(folder: Path, text: str) -> list[float]:
    """Of every token, one call each, given the beginning and as much of the text before as the window holds."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    nats = []
    for place in range(1, len(ids)):
        if place < CONTEXT:
            begin = 0
        else:
            # Windows begin half a context before the first token that they judge.
            window = (place - CONTEXT) // (CONTEXT // 2)
            begin = CONTEXT + window * (CONTEXT // 2) - CONTEXT // 2
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:place]])).logits[0, -1]
        nats.append(float(-torch.log_softmax(logits, -1)[ids[place]]))
    return nats


def test_every_token_is_judged(judge: Judge, folder: Path) -> None:
    """Of texts shorter than the context, of an empty one, and of one that takes several windows."""
    found = judge.token_nats(TEXTS)
    for text, nats in zip(TEXTS, found, strict=True):
        assert nats.dtype == torch.float64
        assert nats.tolist() == pytest.approx(plain_nats(folder, text), abs=1e-5)
    assert len(found[1]) == 0
    assert max(map(len, found)) > 2 * CONTEXT


def test_loss_of_the_library(judge: Judge) -> None:
    """Its own loss of a text after the beginning is the mean over the text's tokens."""
    ids = judge.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    read = torch.tensor([[judge.begin_id, *ids]])
    with torch.no_grad():
        loss = float(judge.model(read, labels=read).loss)
    [nats] = judge.token_nats(TEXTS[:1])
    assert float(nats.mean()) == pytest.approx(loss, rel=1e-5)


def test_presets_from_the_losses_of_the_library(judge: Judge) -> None:
    """Every text by itself, with the library's own loss; a text that fits into the context has one window."""
    losses, lengths = [], []
    for text in (TEXTS[0], TEXTS[2], "dogs ran"):
        ids = judge.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) < CONTEXT
        read = torch.tensor([[judge.begin_id, *ids]])
        with torch.no_grad():
            losses.append(float(judge.model(read, labels=read).loss))
        lengths.append(len(ids))
    nats = judge.token_nats((TEXTS[0], TEXTS[2], "dogs ran"))
    assert len(set(lengths)) > 1
    assert ppl_per_text(nats).tolist() == pytest.approx([math.exp(loss) for loss in losses], rel=1e-5)
    total = sum(loss * length for loss, length in zip(losses, lengths, strict=True))
    assert ppl_corpus_and_error(nats)[0] == pytest.approx(math.exp(total / sum(lengths)), rel=1e-5)


@pytest.mark.parametrize("elements", [1, 3000, 1 << 26])
def test_calls_do_not_matter(judge: Judge, monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    expected = judge.token_nats(TEXTS)
    monkeypatch.setattr(generative_ppl, "_CALL_ELEMENTS", elements)
    for one, other in zip(judge.token_nats(TEXTS[::-1]), expected[::-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_end_of_text_is_one_token_of_the_judge(judge: Judge) -> None:
    [nats] = judge.token_nats(["<|endoftext|>"])
    assert len(nats) == 1


NATS = [torch.tensor(nats, dtype=torch.float64) for nats in ([1.0, 3.0], [], [math.log(5)])]


def test_presets_by_hand() -> None:
    """Means 2 and log 5 nats a token for two texts; 4 + log 5 nats for three tokens together."""
    assert ppl_per_text(NATS).tolist() == pytest.approx([math.exp(2), 5])
    # Without the first text exp(log 5), without the last one exp(4 / 2): the error is half of their distance.
    expected = math.exp((4 + math.log(5)) / 3), (math.exp(2) - 5) / 2
    assert ppl_corpus_and_error(NATS) == pytest.approx(expected)
    assert ppl_corpus_and_error(NATS[1:]) == (pytest.approx(5), None)
    assert num_empty(NATS) == 1


def test_no_token_at_all() -> None:
    for nats in ([], [torch.zeros(0)]):
        assert ppl_corpus_and_error(nats) == (None, None)
        assert len(ppl_per_text(nats)) == 0
    assert num_empty([torch.zeros(0)] * 3) == 3


def test_judge_visits_the_device(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes back, also from an error; written down, since a CPU has no other device to go to."""
    visits: list[str] = []
    monkeypatch.setattr(judge.model, "to", lambda device: visits.append(str(device)))

    def use() -> None:
        with judge.on(torch.device("cuda:1")):
            visits.append("used")
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        use()
    assert visits == ["cuda:1", "used", "cpu"]


def test_judge_is_not_trained(judge: Judge) -> None:
    assert not judge.model.training
    assert not any(parameter.requires_grad for parameter in judge.model.parameters())
    assert judge.context == CONTEXT


def test_judge_without_a_beginning(tmp_path: Path) -> None:
    save_judge(tmp_path, special={})
    with pytest.raises(ConfigError, match=r"the judge is .* no token for the beginning or the end of a text, so the"):
        Judge.load(str(tmp_path))


def test_judge_without_a_context(tmp_path: Path) -> None:
    save_judge(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_positions": 1}))
    weights = load_file(tmp_path / "model.safetensors")
    positions = {name: weights[name][:1].clone() for name in weights if name.endswith("wpe.weight")}
    save_file(weights | positions, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="which reads 1 token at a time, and the first one is not of the text; give"):
        Judge.load(str(tmp_path))


@pytest.mark.parametrize(("said", "context"), [(12, 12), (2, 2), (None, 1024), (-1, 1024)])
def test_context_of_a_judge(said: int | None, context: int) -> None:
    config = SimpleNamespace() if said is None else SimpleNamespace(max_position_embeddings=said)
    assert generative_ppl._context(config, "judge") == context


def test_judge_with_an_end_alone(tmp_path: Path) -> None:
    """What ends a text begins the next one, as in GPT-2."""
    save_judge(tmp_path, special={"eos_token": "<|endoftext|>"})
    judge = Judge.load(str(tmp_path))
    assert judge.begin_id == judge.tokenizer.eos_token_id


def test_judge_that_lacks_weights(tmp_path: Path) -> None:
    save_judge(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("mlp.c_fc.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=rf"whose files lack 1 weights of the network, for example \S*{name[-10:]}; give"
    ):
        Judge.load(str(tmp_path))


@pytest.mark.parametrize("fault", ["nothing", "config", "weights", "hub"])
def test_judge_that_is_none(tmp_path: Path, fault: str) -> None:
    source = str(tmp_path)
    if fault in ("config", "weights"):
        save_judge(tmp_path)
    if fault == "config":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such thing"}))
    if fault == "weights":
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:100])
    if fault == "hub":
        source = "nobody/no-such-judge"
    with pytest.raises(
        ConfigError, match=r"which is not a causal language model here and could not be fetched .*; check the name"
    ):
        Judge.load(source)


def test_judge_is_looked_at_without_its_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2LMHeadModel

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(GPT2LMHeadModel, "from_pretrained", never)
    Judge.require(str(folder))
    save_judge(tmp_path, special={})
    with pytest.raises(ConfigError, match=r"the judge is .* no token for the beginning or the end of a text"):
        Judge.require(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ConfigError, match=r"which is not a causal language model here .* \(ValueError\)"):
        Judge.require(str(tmp_path))


def test_judge_without_a_file_of_weights(tmp_path: Path) -> None:
    (save_judge(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"a folder without weights \(\*\.safetensors or \*\.bin\); give the folder"):
        Judge.require(str(tmp_path))


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would go on trying for a minute."""
    tried: list[bool] = []

    def never(source: str, *, local_files_only: bool, **options: object) -> None:
        tried.append(local_files_only)
        raise OSError("not here")

    from transformers import AutoTokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", never)
    monkeypatch.setattr(generative_ppl, "problem_with_model", lambda source: TimeoutError("no answer"))
    with pytest.raises(ConfigError, match=r"fetched from the hub \(TimeoutError\); .* with `cdllm judge train`"):
        Judge.load("somebody/judge")
    assert tried == [True]


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtraError, match=r"generative perplexity needs transformers, .* 'cascaded-dllm\[eval\]'"
    ):
        Judge.load("gpt2")
