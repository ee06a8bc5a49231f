"""Vectors of texts from a sentence-transformers model, whose bits depend only on the text.

The order in which a matrix product adds depends on its shape and on the number of threads. So every step runs on one
thread, and all steps for texts of one length have the same shape: a step takes a fixed number of texts of that length,
and copies replace missing ones. A text then has the same vector whatever the other texts and the number of processes,
and an interrupted run ends with the same bytes as an uninterrupted one.
"""

import contextlib
import copy
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.devices import device_of
from cascaded_dllm.importance.sentence_files import default_prompt, fingerprint, load_sentence_model
from cascaded_dllm.importance.word_blocks import Vectors
from cascaded_dllm.processes import worker_index

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

PRECISIONS = ("float32", "bfloat16")

# Tokens of one step. On a CPU, more gain little, and a step for a single text costs as much as a full one. On a GPU,
# a step below some thousand tokens costs only its launches.
_STEP_TOKENS = {"cpu": 256, "cuda": 8192}
# After the beginning of a corpus, only a few new words come at a time.
_WORD_STEP_TOKENS = {"cpu": 128, "cuda": 8192}
# Documents with fewer tokens are padded to a multiple of a few tokens: short ones have dozens of lengths, few of which
# would fill a step.
_PADDED_BELOW = 128
_PADDED_TO = 8
# Output of a tokenizer -> the tokenizer's attribute with the value that pads it; None for 0.
_PADDED_WITH = {"input_ids": "pad_token_id", "token_type_ids": "pad_token_type_id", "attention_mask": None}
# Texts tokenised at a time, which bounds memory.
_CHUNK = 4096
# If a tokenizer always splits at white space, only the part of a document that the model reads must be tokenised.
# English has four to five characters a token; if these are too few, twice as many are tried, and so on.
_CHARACTERS_PER_TOKEN = 5
_SPLIT_AT_SPACES = "BertPreTokenizer"


class _Tokens(NamedTuple):
    """The input of a model for a text: tensors with one number per token, and other outputs of the tokenizer.

    A step with masked tokens is computed differently from one without, so `is_padded` is a part of the shape.
    """

    length: int
    is_padded: bool
    tensors: dict[str, "torch.Tensor"]
    settings: dict[str, Any]


@final
class SentenceModel:
    """A sentence-transformers model on one device.

    Args:
        model: a folder or a name; see `load_sentence_model`.
        device: auto, cpu, cuda or cuda:N; see `device_of`.
        precision: for documents, one of PRECISIONS. Words are always embedded in float32: each is a mean over few
            tokens, and is embedded only once.

    Raises:
        ConfigError: the device is not there.
        DataError: the model is missing or broken.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str | Path, *, device: str, precision: str) -> None:
        self._name, self._device = str(model), _resolved(device)
        self._model = load_sentence_model(self._name, self._device)
        self._prompt = default_prompt(self._model)
        self.fingerprint = fingerprint(self._model)
        self._for_documents = self._model if precision == "float32" else _with_bfloat16_weights(self._model)
        # Models that only add up word vectors, without a network, take all texts in one row and have no mask.
        self._has_rows = "attention_mask" in self._model.preprocess(["a"])
        self._readable = _readable_characters(self._model)

    @property
    def _kind(self) -> str:
        """The kind of the device: cpu or cuda."""
        return self._device.partition(":")[0]

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of a word's vector besides the model and the word, usable as a folder name."""
        import torch

        kind = torch.backends.cpu.get_cpu_capability()
        name = f"cpu {kind}" if self._kind == "cpu" else f"cuda {torch.cuda.get_device_name(self._device)}"
        return "-".join(re.findall(r"[\w.]+", f"{name} float32 torch {torch.__version__}")).lower()

    def embed_words(self, words: Sequence[str]) -> Vectors:
        """The vectors of words, in their order, of length 1 (or 0) and in float32.

        Args:
            words: at least one.

        Raises:
            DataError: a vector is not finite.
        """
        return self._embed(self._model, words, _WORD_STEP_TOKENS[self._kind], is_padded=False)

    def embed_documents(self, documents: Sequence[str]) -> Vectors:
        """The vectors of documents, in their order, of length 1 (or 0) and in float32.

        Args:
            documents: at least one. The model reads the beginning of each, mostly 256 tokens.

        Raises:
            DataError: a vector is not finite.
        """
        return self._embed(self._for_documents, documents, _STEP_TOKENS[self._kind], is_padded=True)

    def _embed(
        self, model: "SentenceTransformer", texts: Sequence[str], step_tokens: int, *, is_padded: bool
    ) -> Vectors:
        import torch

        with torch.inference_mode(), _one_thread():
            if self._has_rows:
                tokens = self._tokenized(texts)
                padded = [self._padded(text) for text in tokens] if is_padded else tokens
                outputs = self._outputs(model, padded, step_tokens)
            else:
                outputs = _encoded(model, texts)
            vectors = outputs.float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise DataError(f"the sentence model {self._name!r} makes vectors that are not finite; choose another one")
        lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        # A vector of zeros stays: its cosine with everything is 0.
        unit: Vectors = vectors / np.where(lengths == 0, np.float32(1), lengths)
        return unit

    def _outputs(self, model: "SentenceTransformer", tokens: Sequence[_Tokens], step_tokens: int) -> "torch.Tensor":
        """The vectors of texts, in their order, computed step by step."""
        import torch

        outputs: list[torch.Tensor | None] = [None] * len(tokens)
        for places, size in _steps([(text.length, text.is_padded) for text in tokens], step_tokens):
            filled = [tokens[place] for place in places] + [tokens[places[0]]] * (size - len(places))
            for place, output in zip(places, self._forward(model, filled), strict=False):
                outputs[place] = output
        return torch.stack([output for output in outputs if output is not None])

    def _forward(self, model: "SentenceTransformer", tokens: Sequence[_Tokens]) -> "torch.Tensor":
        """One step: the outputs for texts of one length."""
        import torch

        features: dict[str, Any] = dict(tokens[0].settings)
        for key in tokens[0].tensors:
            features[key] = torch.stack([text.tensors[key] for text in tokens]).to(self._device)
        network, *rest = model
        with torch.autocast(self._kind, torch.bfloat16, enabled=model is not self._model):
            features = network(features)
        # The mean over tokens and the modules after it cost nothing in float32.
        features = {key: _in_float32(value) for key, value in features.items()}
        for module in rest:
            features = module(features)
        embedding: torch.Tensor = features["sentence_embedding"]
        return embedding

    def _padded(self, text: _Tokens) -> _Tokens:
        """A short text with at least one token of padding; another one unchanged."""
        import torch

        length, tokenizer = _PADDED_TO * (text.length // _PADDED_TO + 1), self._model.tokenizer
        is_short = length <= min(_PADDED_BELOW, self._model.max_seq_length or 0)
        # Padding on the left would move the text, which changes the vectors of many networks.
        is_plain = tokenizer.padding_side == "right" and text.tensors.keys() <= _PADDED_WITH.keys()
        if not (is_short and is_plain):
            return text
        sides = (0, length - text.length)
        tensors = {
            key: torch.nn.functional.pad(value, sides, value=_padding_of(tokenizer, key))
            for key, value in text.tensors.items()
        }
        return _Tokens(length, True, tensors, text.settings)

    def _tokenized(self, texts: Sequence[str]) -> list[_Tokens]:
        """The tokens of every text, as many as the model reads."""
        tokens: dict[int, _Tokens] = {}
        limit = self._model.max_seq_length or 0
        # Texts of similar length together, since the tokenizer pads each chunk to its longest text.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), _CHUNK):
            places, readable = order[start : start + _CHUNK], self._readable
            while places:
                begun = [_beginning(texts[place], readable) for place in places]
                tokens.update(zip(places, self._rows(begun), strict=True))
                # Texts with more characters a token than usual are not read far enough yet.
                places = [
                    place
                    for place, begin in zip(places, begun, strict=True)
                    if len(begin) < len(texts[place]) and tokens[place].length < limit
                ]
                readable = None if readable is None else 2 * readable
        return [tokens[place] for place in range(len(texts))]

    def _rows(self, texts: Sequence[str]) -> list[_Tokens]:
        """The tokens of every text, without the tokenizer's padding."""
        import torch

        features = self._model.preprocess(list(texts), prompt=self._prompt)
        mask = features["attention_mask"]
        tensors = {
            key: value for key, value in features.items() if torch.is_tensor(value) and value.shape == mask.shape
        }
        settings = {key: value for key, value in features.items() if not torch.is_tensor(value)}
        lengths = mask.sum(dim=1).tolist()
        # Some models are padded on the left.
        starts = mask.argmax(dim=1).tolist()
        return [
            _Tokens(
                length, False, {key: value[row, start : start + length] for key, value in tensors.items()}, settings
            )
            for row, (start, length) in enumerate(zip(starts, lengths, strict=True))
        ]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread inside the block, so that the last bits of a vector do not depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _padding_of(tokenizer: Any, key: str) -> int:
    """The value with which a tokenizer pads one of its outputs."""
    attribute = _PADDED_WITH[key]
    return 0 if attribute is None else int(getattr(tokenizer, attribute) or 0)


def _resolved(device: str) -> str:
    """The device that this process takes: cpu or cuda:N."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return device_of(device, worker=worker_index(), num_gpus=num_gpus)


def _encoded(model: "SentenceTransformer", texts: Sequence[str]) -> "torch.Tensor":
    """The vectors of texts by the library's own `encode`."""
    return model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)


def _with_bfloat16_weights(model: "SentenceTransformer") -> "SentenceTransformer":
    """A copy that multiplies matrices in bfloat16; the rest, above all sums over layers, stays in float32.

    With everything in bfloat16 it would not be faster, and its error would double.
    """
    import torch

    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return copied


def _in_float32(value: Any) -> Any:
    """`value`, in float32 if it is a floating-point tensor."""
    import torch

    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def _readable_characters(model: "SentenceTransformer") -> int | None:
    """The number of characters that probably contain all tokens that the model reads; None for the whole document."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    splits_at_spaces = type(getattr(backend, "pre_tokenizer", None)).__name__ == _SPLIT_AT_SPACES
    if model.max_seq_length is None or not splits_at_spaces:
        return None
    return _CHARACTERS_PER_TOKEN * model.max_seq_length


def _beginning(text: str, characters: int | None) -> str:
    """The first `characters` of `text` at most, up to a space or line end; the whole text if there is none."""
    if characters is None or len(text) <= characters:
        return text
    end = max(text.rfind(" ", 0, characters), text.rfind("\n", 0, characters))
    return text[:end] if end > 0 else text


def _steps(shapes: Sequence[tuple[int, bool]], step_tokens: int) -> Iterator[tuple[list[int], int]]:
    """For every step, the places of its texts, which have one shape, and the number of texts that it must have."""
    of_shape: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for place, shape in enumerate(shapes):
        of_shape[shape].append(place)
    for shape in sorted(of_shape):
        size = max(1, step_tokens // shape[0])
        for start in range(0, len(of_shape[shape]), size):
            yield of_shape[shape][start : start + size], size
