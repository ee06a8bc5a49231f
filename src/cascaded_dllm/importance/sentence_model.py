"""Vectors of texts from a sentence-transformers model, whose bits depend only on the text.

The order in which a matrix product adds depends on its shape and on the number of threads. So every step runs on one
thread, and all steps for texts of one length have the same shape: a step takes a fixed number of texts of that length,
and copies replace missing ones. A text then has the same vector whatever the other texts and the number of processes,
and an interrupted run ends with the same bytes as an uninterrupted one.
"""

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.devices import device_of
from cascaded_dllm.importance.sentence_files import fingerprint, load_sentence_model
from cascaded_dllm.importance.sentence_tokens import SentenceTokenizer, TokenBlock
from cascaded_dllm.importance.word_blocks import Vectors
from cascaded_dllm.processes import worker_index

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Waiting: TypeAlias = Callable[[], Vectors]
"""Vectors that a GPU may still be computing; the call waits for them."""

# Tokens of one step. On a CPU, more gain little, and a step for a single text costs as much as a full one. On a GPU,
# a step below some thousand tokens costs only its launches.
_STEP_TOKENS = {"cpu": 256, "cuda": 8192}
# After the beginning of a corpus, only a few new words come at a time.
_WORD_STEP_TOKENS = {"cpu": 128, "cuda": 8192}


@final
class SentenceModel:
    """A sentence-transformers model on one device.

    Args:
        model: a folder or a name; see `load_sentence_model`.
        device: auto, cpu, cuda or cuda:N; see `device_of`.
        precision: of documents, float32 or bfloat16. Words are always embedded in float32: each is a mean over few
            tokens, and is embedded only once.

    Raises:
        ConfigError: the device is not there.
        DataError: the model is missing or broken.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str | Path, *, device: str, precision: str) -> None:
        self._name, self._device = str(model), _resolved(device)
        self._model = load_sentence_model(self._name, self._device)
        self.fingerprint = fingerprint(self._model)
        self._for_documents = self._model if precision == "float32" else _with_bfloat16_weights(self._model)
        # Models that only add up word vectors, without a network, take all texts in one row and have no mask.
        has_rows = "attention_mask" in self._model.preprocess(["a"])
        self._tokenizer = SentenceTokenizer(self._model) if has_rows else None

    @property
    def _kind(self) -> str:
        """The kind of the device: cpu or cuda."""
        return self._device.partition(":")[0]

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of a word's vector besides the model and the word, usable as a folder name."""
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
        return self._begin(self._model, words, _WORD_STEP_TOKENS[self._kind], pads=False)()

    def embed_documents(self, documents: Sequence[str]) -> Vectors:
        """The vectors of documents, in their order, of length 1 (or 0) and in float32.

        Args:
            documents: at least one. The model reads the beginning of each, mostly 256 tokens.

        Raises:
            DataError: a vector is not finite.
        """
        return self.begin_documents(documents)()

    def begin_documents(self, documents: Sequence[str]) -> Waiting:
        """As `embed_documents`, but a GPU goes on computing after the return, and errors are raised by the call."""
        return self._begin(self._for_documents, documents, _STEP_TOKENS[self._kind], pads=True)

    @torch.inference_mode()
    def _begin(self, model: "SentenceTransformer", texts: Sequence[str], step_tokens: int, *, pads: bool) -> Waiting:
        with _one_thread():
            if self._tokenizer is None:
                outputs = model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
            else:
                outputs = self._outputs(model, self._tokenizer.blocks(texts, pads=pads), step_tokens)
        return functools.partial(self._unit_vectors, outputs)

    def _unit_vectors(self, outputs: Tensor) -> Vectors:
        vectors = outputs.float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise DataError(f"the sentence model {self._name!r} makes vectors that are not finite; choose another one")
        lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        # A vector of zeros stays: its cosine with everything is 0.
        unit: Vectors = vectors / np.where(lengths == 0, np.float32(1), lengths)
        return unit

    def _outputs(self, model: "SentenceTransformer", blocks: Sequence[TokenBlock], step_tokens: int) -> Tensor:
        """The vectors of the texts of all blocks, in the order of the texts, computed step by step."""
        outputs = []
        for block in blocks:
            # One copy a block, for which a GPU does not stop.
            tensors = {key: value.to(self._device, non_blocking=True) for key, value in block.tensors.items()}
            size, num_texts = max(1, step_tokens // block.length), len(block.places)
            for start in range(0, num_texts, size):
                # Copies of the last text fill the last step.
                rows = torch.arange(start, start + size, device=self._device).clamp(max=num_texts - 1)
                features = {key: value[rows] for key, value in tensors.items()}
                outputs.append(self._forward(model, {**block.settings, **features})[: num_texts - start])
        order = np.argsort(np.concatenate([block.places for block in blocks]))
        return torch.cat(outputs)[torch.from_numpy(order).to(self._device, non_blocking=True)]

    def _forward(self, model: "SentenceTransformer", features: dict[str, Any]) -> Tensor:
        """One step: the outputs for texts of one length."""
        network, *rest = model
        with torch.autocast(self._kind, torch.bfloat16, enabled=model is not self._model):
            features = network(features)
        # The mean over tokens and the modules after it cost nothing in float32.
        features = {key: _in_float32(value) for key, value in features.items()}
        for module in rest:
            features = module(features)
        embedding: Tensor = features["sentence_embedding"]
        return embedding


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread inside the block, so that the last bits of a vector do not depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resolved(device: str) -> str:
    """The device that this process takes: cpu or cuda:N."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return device_of(device, worker=worker_index(), num_gpus=num_gpus)


def _with_bfloat16_weights(model: "SentenceTransformer") -> "SentenceTransformer":
    """A copy that multiplies matrices in bfloat16; the rest, above all sums over layers, stays in float32.

    With everything in bfloat16 it would not be faster, and its error would double.
    """
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return copied


def _in_float32(value: Any) -> Any:
    """`value`, in float32 if it is a floating-point tensor."""
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value
