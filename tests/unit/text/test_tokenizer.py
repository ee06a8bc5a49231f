import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from cascaded_dllm.errors import ConfigError, DataError, OutputError
from cascaded_dllm.pid_space import pid_space
from cascaded_dllm.text.tokenizer import MASK_TEXT, Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT, fingerprint
from cascaded_dllm.text.tokenizer_files import byte_level
from tests.unit.model.unchecked import without_type_checks

GOLDEN = Path(__file__).parents[2] / "golden" / "gpt2_synthetic.jsonl"
CORPUS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, 300)


def changed(tokenizer: Tokenizer, folder: Path, **changes: Any) -> Path:
    """A tokenizer.json with some top-level entries replaced."""
    tokenizer.save(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_half_of_a_surrogate_pair_is_no_text(tokenizer: Tokenizer) -> None:
    """Python reads such from a command line with a byte that is not UTF-8."""
    message = r"the text holds the lone surrogate '\\udce9' at character 3, which stands for no character, or on a "
    with pytest.raises(DataError, match=message):
        tokenizer.encode("caf\udce9")


def test_gpt2_golden(shared: Path) -> None:
    gpt2 = Tokenizer.load(shared / "data" / "gpt2_bpe")
    cases = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert len(cases) == 28
    assert [gpt2.encode(case["text"]).ids for case in cases] == [case["ids"] for case in cases]
    assert [gpt2.decode(case["ids"]) for case in cases] == [case["text"] for case in cases]
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.mask_id) == (50257, 50256, 50257)


@pytest.mark.slow
def test_same_bpe_from_other_files_has_the_same_fingerprint(shared: Path, tmp_path: Path) -> None:
    gpt2 = Tokenizer.load(shared / "data" / "gpt2_bpe")
    # As the hub's tokenizer.json differs: an end-of-text entry with other flags, a post-processor, empty affixes.
    gpt2.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["added_tokens"][0]["normalized"] = True
    state["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    state["pre_tokenizer"]["trim_offsets"] = True
    state["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    assert Tokenizer.load(tmp_path).fingerprint == gpt2.fingerprint


@pytest.fixture
def state(tokenizer: Tokenizer, tmp_path: Path) -> dict[str, Any]:
    """What the library stores, as far as a fingerprint is concerned."""
    tokenizer.save(tmp_path)
    stored: dict[str, Any] = json.loads((tmp_path / "tokenizer.json").read_text())
    return stored


def test_fingerprint_is_frozen() -> None:
    """Data and checkpoints name it: it must be the same in every version of this package and of the library."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level(models.BPE(vocab=vocabulary | {"th": 256, END_OF_TEXT: 257}, merges=[("t", "h")]))
    assert Tokenizer(backend, origin="bytes").fingerprint == "ddecd25198195ece"


def test_fingerprint_is_blind_to_what_a_release_of_the_library_adds(
    tokenizer: Tokenizer, state: dict[str, Any]
) -> None:
    state |= {"version": "2.0", "new": 1, "decoder": None, "post_processor": {"type": "New"}, "padding": None}
    state["model"] |= {"new": False, "dropout": None, "merges": [" ".join(pair) for pair in state["model"]["merges"]]}
    state["pre_tokenizer"] |= {"new": False, "trim_offsets": True}
    state["added_tokens"][0]["new"] = False
    assert fingerprint(state) == tokenizer.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["model"]["merges"].pop(),
        lambda state: state["model"]["merges"].reverse(),
        lambda state: state["model"]["vocab"].update({"one more": 1000}),
        lambda state: state["model"]["vocab"].update(a=state["model"]["vocab"]["b"], b=state["model"]["vocab"]["a"]),
        lambda state: state["model"].update(ignore_merges=True),
        lambda state: state["added_tokens"].append({"id": 1000, "content": "<more>"}),
        lambda state: state["added_tokens"][0].update(lstrip=True),
        lambda state: state["pre_tokenizer"].update(use_regex=False),
        lambda state: state.update(pre_tokenizer=None),
        lambda state: state.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [state["pre_tokenizer"]]}),
        lambda state: state.update(pre_tokenizer={"type": "Unknown", "with": 1}),
        lambda state: state.update(normalizer={"type": "NFC"}),
    ],
)
def test_fingerprint_sees_what_decides_the_ids(
    tokenizer: Tokenizer, state: dict[str, Any], change: Callable[[dict[str, Any]], Any]
) -> None:
    change(state)
    assert fingerprint(state) != tokenizer.fingerprint


def test_fingerprint_sees_into_the_parts_of_a_sequence(state: dict[str, Any]) -> None:
    def of(digits: dict[str, Any]) -> str:
        return fingerprint(state | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits]}})

    digits = {"type": "Digits", "individual_digits": True}
    assert of(digits) == of(digits | {"new": 1})
    assert of(digits) != of(digits | {"individual_digits": False})


def test_ids_of_a_trained_tokenizer(tokenizer: Tokenizer) -> None:
    assert 257 < tokenizer.vocab_size <= 300
    assert tokenizer.mask_id == tokenizer.vocab_size
    assert tokenizer.decode([tokenizer.eos_id]) == END_OF_TEXT
    assert len(tokenizer.fingerprint) == 16
    assert int(tokenizer.fingerprint, 16) >= 0


def test_training_is_deterministic_and_order_independent(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(iter(CORPUS), 300).fingerprint == tokenizer.fingerprint
    assert Tokenizer.train(CORPUS[::-1], 300).fingerprint == tokenizer.fingerprint
    assert Tokenizer.train(CORPUS[:2], 300).fingerprint != tokenizer.fingerprint


def test_offsets_are_characters(tokenizer: Tokenizer) -> None:
    text = "cat 😀é"
    encoding = tokenizer.encode(text)
    assert [text[start:end] for start, end in encoding.offsets] == ["cat", " ", "😀", "😀", "😀", "😀", "é", "é"]


def test_end_of_text_inside_a_text_is_ordinary(tokenizer: Tokenizer) -> None:
    text = f"the{END_OF_TEXT}cat"
    encoding = tokenizer.encode(text)
    assert tokenizer.eos_id not in encoding.ids
    assert tokenizer.decode(encoding.ids) == text
    assert Tokenizer.train([text] * 9, 400).encode(END_OF_TEXT).ids != [tokenizer.eos_id]


def test_decode_hides_nothing(tokenizer: Tokenizer) -> None:
    cat = tokenizer.encode("cat").ids
    ids = [*cat, tokenizer.eos_id, tokenizer.mask_id, *cat, tokenizer.mask_id]
    assert tokenizer.decode(ids) == f"cat{END_OF_TEXT}{MASK_TEXT}cat{MASK_TEXT}"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("token_id", [-1, 301])
def test_decode_refuses_foreign_ids(tokenizer: Tokenizer, token_id: int) -> None:
    with pytest.raises(DataError, match=rf"token id {token_id} at position 1 is outside 0\.\."):
        tokenizer.decode([0, token_id])


def test_batch_equals_single(tokenizer: Tokenizer) -> None:
    texts = ["", "the cat", "😀", "log"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["tokenizer.json"]
    for source in (tmp_path / "new" / "folder", str(tmp_path / "new" / "folder" / "tokenizer.json")):
        loaded = Tokenizer.load(source)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode("the cat") == tokenizer.encode("the cat")


def test_tokenizer_that_cannot_be_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"tokenizer\.json cannot be written \(.*\); choose an output folder"):
        tokenizer.save(tmp_path / "file")


def test_killed_save_leaves_the_old_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    leftover = tmp_path / f".incomplete-tokenizer.json@{socket.gethostname()}-{pid_space()}-{2**22 + 1}-0a1b2c3d"
    leftover.write_text("half")
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_truncation_and_padding_of_a_stored_tokenizer_are_ignored(tokenizer: Tokenizer, tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    fixed = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    padding = fixed | {"pad_id": 0, "pad_type_id": 0, "pad_token": END_OF_TEXT}
    loaded = Tokenizer.load(changed(tokenizer, tmp_path, truncation=truncation, padding=padding))
    assert loaded.encode("the cat sat on the mat") == tokenizer.encode("the cat sat on the mat")


def test_vocabulary_without_room_for_bytes() -> None:
    with pytest.raises(ConfigError, match="vocab_size 256 is below 257"):
        Tokenizer.train(CORPUS, 256)
    assert Tokenizer.train(CORPUS, 257).vocab_size == 257


@without_type_checks()
def test_what_a_tokenizer_is_not_trained_on() -> None:
    """A single text would be taken for as many as it has characters, in which there is nothing to merge."""
    train: Any = Tokenizer.train
    for text in ("the cat sat", b"the cat sat"):
        with pytest.raises(
            ConfigError, match=r"^texts is a single text, b?'the cat sat'; give a list of texts, such as"
        ):
            train(text, 300)
    for size in (300.0, "300", None):
        with pytest.raises(ConfigError, match=rf"^vocab_size is {size!r}; it must be a whole number$"):
            train(CORPUS, size)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_training_on_nothing(texts: list[str]) -> None:
    with pytest.raises(DataError, match="cannot be trained on 0 non-empty texts"):
        Tokenizer.train(texts, 300)


def test_empty_vocabulary() -> None:
    with pytest.raises(DataError, match="is BPE with 0 entries, but a BPE with a non-empty vocabulary is needed"):
        Tokenizer(tokenizers.Tokenizer(models.BPE()), origin="nowhere")


def test_other_kinds_of_tokenizer() -> None:
    with pytest.raises(DataError, match="the tokenizer of words is WordLevel with 1 entries"):
        Tokenizer(tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), origin="words")


def test_vocabulary_without_end_of_text() -> None:
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    with pytest.raises(DataError, match=r"has no <\|endoftext\|> token among its 256 entries"):
        Tokenizer(byte_level(models.BPE(vocab=vocabulary, merges=[])), origin="bytes")


def test_vocabulary_with_holes() -> None:
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level(models.BPE(vocab=vocabulary | {END_OF_TEXT: 300}, merges=[]))
    with pytest.raises(DataError, match=r"the 257 token ids of bytes run from 0 to 300 with holes .* must be 0\.\.256"):
        Tokenizer(backend, origin="bytes")


def test_tokenizer_without_the_token_of_a_byte() -> None:
    """As of one that was trained without an initial alphabet: the byte would be missing from every text."""
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    [(bell, _)] = bytewise.pre_tokenize_str("\x07")

    def without(token: str) -> Tokenizer:
        tokens = [*sorted({*pre_tokenizers.ByteLevel.alphabet()} - {token}), END_OF_TEXT]
        vocabulary = {token: index for index, token in enumerate(tokens)}
        return Tokenizer(byte_level(models.BPE(vocab=vocabulary, merges=[])), origin="bytes")

    # The byte 255, which UTF-8 has no use for.
    without("ÿ").require_every_byte()
    with pytest.raises(DataError, match=r"does not give '\\x07' back after encoding and decoding"):
        without(bell).require_every_byte()


def test_tokenizer_whose_added_token_takes_spaces_away(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_tokens(["<dog>"])
    assert Tokenizer(backend, origin="file").vocab_size == tokenizer.vocab_size + 1
    backend.add_tokens([tokenizers.AddedToken("<bird>", lstrip=True)])
    with pytest.raises(DataError, match=r"does not give '  <bird>  ' back after encoding and decoding"):
        Tokenizer(backend, origin="file")


@pytest.mark.parametrize("fault", ["lower case", "prefix space", "missing bytes"])
def test_tokenizer_that_changes_texts(fault: str) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: 100 if fault == "missing bytes" else None]
    vocabulary = {character: index for index, character in enumerate([*alphabet, END_OF_TEXT])}
    backend = byte_level(models.BPE(vocab=vocabulary, merges=[]))
    Tokenizer(backend, origin="bytes") if fault != "missing bytes" else None
    if fault == "lower case":
        backend.normalizer = normalizers.Lowercase()
    if fault == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(DataError, match=r"does not give .* back after encoding and decoding"):
        Tokenizer(backend, origin="bytes")
