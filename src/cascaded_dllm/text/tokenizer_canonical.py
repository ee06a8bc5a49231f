"""The canonical form of a tokenizer, whatever files or library release it came from, and its fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import models

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.tokenizer_files import byte_level

END_OF_TEXT = "<|endoftext|>"
# The fields of the library's serialisation that enter `fingerprint`.
_MODEL_FIELDS = ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
_ADDED_TOKEN_FIELDS = ("id", "content", "special", "single_word", "lstrip", "rstrip", "normalized")
_STEP_FIELDS = {
    "ByteLevel": ("add_prefix_space", "use_regex"),
    "Digits": ("individual_digits",),
    "Sequence": ("pretokenizers", "normalizers"),
    "Split": ("pattern", "behavior", "invert"),
}


def canonical(state: dict[str, Any], origin: str) -> dict[str, Any]:
    """The serialised tokenizer without anything that may truncate, pad, add to or randomise an encoding.

    So the same BPE has the same fingerprint whether it came from tokenizer.json or from vocabulary and merges.

    Args:
        state: the library's own serialisation, which is modified.
        origin: where it came from, for error messages.

    Raises:
        DataError: it is not a BPE, its vocabulary is empty, or there is no end-of-text token.
    """
    model = state["model"]
    if model.get("type") != "BPE" or not model["vocab"]:
        raise DataError(
            f"the tokenizer of {origin} is {model.get('type')} with {len(model.get('vocab', ()))} entries, "
            "but a BPE with a non-empty vocabulary is needed; use gpt2, or train one on the corpus"
        )
    model |= {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None} | {
        key: model[key] for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)
    }
    added = {entry["content"]: entry for entry in state["added_tokens"]}
    eos_id = added[END_OF_TEXT]["id"] if END_OF_TEXT in added else model["vocab"].get(END_OF_TEXT)
    if eos_id is None:
        raise DataError(
            f"the tokenizer of {origin} has no {END_OF_TEXT} token among its {len(model['vocab'])} entries, and "
            "documents are separated by it; add it to the vocabulary, use gpt2, or train one on the corpus"
        )
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added[END_OF_TEXT] = {"id": eos_id, "content": END_OF_TEXT} | plain
    pre_tokenizer = state["pre_tokenizer"]
    if pre_tokenizer and pre_tokenizer["type"] == "ByteLevel":
        pre_tokenizer["trim_offsets"] = False  # Read only by a post-processor, and there is none.
    decoder = json.loads(byte_level(models.BPE()).to_str())["decoder"]
    added_tokens = sorted(added.values(), key=lambda entry: int(entry["id"]))
    return state | {
        "added_tokens": added_tokens,
        "decoder": decoder,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def fingerprint(state: dict[str, Any]) -> str:
    """16 hex digits of everything that decides the ids of a text.

    They are computed from chosen fields, so that a release of the library that stores one more field, or another
    version number, does not change them: everything made with the tokenizer would no longer fit it.

    Args:
        state: what `canonical` returned.
    """
    model = state["model"]
    identity = {
        "vocabulary": sorted(model["vocab"].items(), key=lambda item: int(item[1])),
        # Older releases write a pair as one string.
        "merges": [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]],
        "model": {name: model[name] for name in _MODEL_FIELDS if model.get(name)},
        "added_tokens": [[entry.get(name) for name in _ADDED_TOKEN_FIELDS] for entry in state["added_tokens"]],
        "pre_tokenizer": _known_fields(state["pre_tokenizer"]),
        "normalizer": _known_fields(state["normalizer"]),
    }
    text = json.dumps(identity, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known_fields(step: Any) -> Any:
    """A pre-tokenizer or normalizer with only the fields that matter; of an unknown kind, with all fields."""
    if isinstance(step, list):
        return [_known_fields(item) for item in step]
    if not isinstance(step, dict) or step.get("type") not in _STEP_FIELDS:
        return step
    return {"type": step["type"]} | {name: _known_fields(step.get(name)) for name in _STEP_FIELDS[step["type"]]}


def checked_vocab_size(backend: tokenizers.Tokenizer, origin: str) -> int:
    """The number of ids, which are checked to be 0, 1, ... without a hole.

    Raises:
        DataError: they are not.
    """
    ids = sorted(backend.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise DataError(
            f"the {len(ids)} token ids of {origin} run from {ids[0]} to {ids[-1]} with holes or repeats, "
            f"but they must be 0..{len(ids) - 1}; use gpt2, or train a tokenizer on the corpus"
        )
    return len(ids)


def splits_as_gpt2(state: Mapping[str, Any]) -> bool:
    """Whether texts are split by GPT-2's rule alone, without a normalizer or added tokens besides the end of text.

    `add_prefix_space` is not looked at, since a tokenizer that puts a space before every text is not lossless.

    Args:
        state: what `canonical` returned.
    """
    splitter = state["pre_tokenizer"] or {}
    is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
    added = [entry["content"] for entry in state["added_tokens"]]
    return is_gpt2 and state["normalizer"] is None and added == [END_OF_TEXT]
