"""A causal language model of random weights with a tokenizer of its own, saved to a folder as real ones are."""

from pathlib import Path
from typing import Any

import torch

CONTEXT = 12
TEXTS = [
    "the cat saw the dog",
    "",
    "a dog",
    "dogs saw cats and the cats saw dogs and ran and ran and ran away again and then the dog saw that",
]


def save_judge(folder: Path, *, special: dict[str, str] | None = None) -> Path:
    """A GPT-2 with a context of 12 tokens; `special` names the tokens of its tokenizer that begin and end a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator(TEXTS, trainer)
    names: dict[str, Any] = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"} if special is None else special
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
