"""The tokens of texts for a sentence-transformers model, in blocks of texts of one length."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import pad

from cascaded_dllm.importance.sentence_files import default_prompt

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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


class TokenBlock(NamedTuple):
    """The input of a model for texts of one shape: tensors with a row for each, and other outputs of the tokenizer.

    A step with masked tokens is computed differently from one without, so `is_padded` is a part of the shape.
    """

    places: Int64[np.ndarray, " texts"]
    length: int
    is_padded: bool
    tensors: dict[str, Tensor]
    settings: dict[str, Any]


@final
class SentenceTokenizer:
    """The tokenizer of a sentence-transformers model, as far as the model reads.

    Args:
        model: the model; its tokenizer must make an attention mask.
    """

    def __init__(self, model: "SentenceTransformer") -> None:
        self._model, self._prompt = model, default_prompt(model)
        self._max_tokens = model.max_seq_length or 0
        self._readable = _readable_characters(model)

    def blocks(self, texts: Sequence[str], *, pads: bool) -> list[TokenBlock]:
        """Every text in one block, which says its place in `texts`; one block for each shape, short ones first.

        Args:
            texts: at least one.
            pads: whether short texts get at least one token of padding, so that there are fewer shapes.
        """
        parts: dict[tuple[int, bool], list[TokenBlock]] = defaultdict(list)
        for block in self._tokenized(texts):
            part = self._padded(block) if pads else block
            parts[part.length, part.is_padded].append(part)
        return [_joined(parts[shape]) for shape in sorted(parts)]

    def _tokenized(self, texts: Sequence[str]) -> Iterator[TokenBlock]:
        """Blocks without padding, several of which may have one length."""
        # Texts of similar length together, since the tokenizer pads each chunk to its longest text.
        order = np.array(sorted(range(len(texts)), key=lambda place: len(texts[place])))
        for start in range(0, len(order), _CHUNK):
            places, readable = order[start : start + _CHUNK], self._readable
            while len(places):
                begun = [_beginning(texts[place], readable) for place in places]
                features = self._model.preprocess(begun, prompt=self._prompt)
                lengths = features["attention_mask"].sum(dim=1).numpy()
                is_cut = np.array([len(begin) < len(texts[place]) for place, begin in zip(places, begun, strict=True)])
                # Texts with more characters a token than usual are not read far enough yet.
                is_ready = ~is_cut | (lengths >= self._max_tokens)
                for length in np.unique(lengths[is_ready]):
                    rows = np.flatnonzero(is_ready & (lengths == length))
                    yield _block(features, rows, places[rows], int(length))
                places = places[~is_ready]
                readable = None if readable is None else 2 * readable

    def _padded(self, block: TokenBlock) -> TokenBlock:
        """Short texts with at least one token of padding; others unchanged."""
        length, tokenizer = _PADDED_TO * (block.length // _PADDED_TO + 1), self._model.tokenizer
        is_short = length <= min(_PADDED_BELOW, self._max_tokens)
        # Padding on the left would move the text, which changes the vectors of many networks.
        is_plain = tokenizer.padding_side == "right" and block.tensors.keys() <= _PADDED_WITH.keys()
        if not (is_short and is_plain):
            return block
        tensors = {
            key: pad(value, (0, length - block.length), value=_padding_of(tokenizer, key))
            for key, value in block.tensors.items()
        }
        return block._replace(length=length, is_padded=True, tensors=tensors)


def _block(
    features: Mapping[str, Any], rows: Int64[np.ndarray, " texts"], places: Int64[np.ndarray, " texts"], length: int
) -> TokenBlock:
    """The texts in `rows` of a tokenizer's output, all of `length` tokens, without its padding."""
    mask, chosen = features["attention_mask"], torch.from_numpy(rows)[:, None]
    # Some models are padded on the left.
    columns = mask[chosen[:, 0]].argmax(dim=1, keepdim=True) + torch.arange(length)
    tensors = {
        key: value[chosen, columns]
        for key, value in features.items()
        if torch.is_tensor(value) and value.shape == mask.shape
    }
    settings = {key: value for key, value in features.items() if not torch.is_tensor(value)}
    return TokenBlock(places, length, False, tensors, settings)


def _joined(blocks: Sequence[TokenBlock]) -> TokenBlock:
    """One block of the texts of several, which have one shape."""
    first = blocks[0]
    tensors = {key: torch.cat([block.tensors[key] for block in blocks]) for key in first.tensors}
    return first._replace(places=np.concatenate([block.places for block in blocks]), tensors=tensors)


def _padding_of(tokenizer: Any, key: str) -> int:
    """The value with which a tokenizer pads one of its outputs."""
    attribute = _PADDED_WITH[key]
    return 0 if attribute is None else int(getattr(tokenizer, attribute) or 0)


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
