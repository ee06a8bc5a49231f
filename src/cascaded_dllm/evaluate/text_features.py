"""A vector for every text, from a judge or from a sentence encoder: what MAUVE compares texts by."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.importance.sentence_model import SentenceModel

TextFeatures = Callable[[Sequence[str]], Float[np.ndarray, "B D"]]
"""From texts to one vector for each."""

_CALL_TOKENS = 1 << 13
"""Positions that a judge computes at once, padding included."""


def judge_features(judge: Judge, device: torch.device) -> TextFeatures:
    """The hidden state above the last token of a text under a causal language model, as Pillutla et al. 2021 take it.

    The judge's token for the beginning of a text stands in front, and the judge's context cuts long texts off; an empty
    text is that token alone.
    """

    @torch.inference_mode()
    def features(texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        rows = [
            [judge.begin_id, *judge.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
            for text in texts
        ]
        rows = [row[: judge.context] for row in rows]
        found = np.zeros((len(rows), judge.model.config.hidden_size), dtype=np.float32)
        # Long texts together, so that little is padded.
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]), reverse=True)
        start = 0
        with judge.on(device):
            while start < len(order):
                places = order[start : start + max(1, _CALL_TOKENS // len(rows[order[start]]))]
                found[places] = _last_states(judge, [rows[place] for place in places])
                start += len(places)
        return found

    return features


def encoder_features(model: str, device: torch.device) -> TextFeatures:
    """The vectors of a sentence-transformers model, each of length 1.

    Args:
        model: a folder or a hub id.
        device: where it computes; the CPU if it is not a CUDA device.

    Raises:
        DataError: the model is missing or broken.
        MissingExtraError: sentence-transformers is not installed.
    """
    encoder = SentenceModel(model, device="cuda" if device.type == "cuda" else "cpu", precision="float32")
    return encoder.embed_documents


def _last_states(judge: Judge, rows: Sequence[list[int]]) -> Float[np.ndarray, "B D"]:
    """The last layer of the network at the last token of every row."""
    lengths = torch.tensor([len(row) for row in rows], device=judge.model.device)
    longest = int(lengths.max())
    # Padding stands behind the text, where a causal model does not see it.
    read = torch.tensor([row + [judge.begin_id] * (longest - len(row)) for row in rows], device=judge.model.device)
    mask = (torch.arange(longest, device=lengths.device) < lengths[:, None]).long()
    states = judge.model.base_model(input_ids=read, attention_mask=mask).last_hidden_state
    last: Float[np.ndarray, "B D"] = states[torch.arange(len(rows)), lengths - 1].float().cpu().numpy()
    return last
