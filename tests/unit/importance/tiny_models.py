"""Sentence-transformers models of a few thousand random weights, saved to a folder as real ones are."""

import json
import warnings
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["the", "cat", "dog", "sea", "house", "of", "and", "not", "new", "##s", "##ing", "##ed"]
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *WORDS,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *".,!?'_-\u65e5\u672c",
]
MAX_TOKENS = 24


def save_bert(folder: Path, *, seed: int = 0, normalize: bool = True, padding_side: str = "right") -> Path:
    """A network like that of all-MiniLM-L6-v2, with a mean over tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    network = folder / "network"
    vocab = {word: token for token, word in enumerate(VOCABULARY)}
    tokenizer = BertTokenizerFast(vocab=vocab, padding_side=padding_side)
    tokenizer.save_pretrained(network)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 8,
        initializer_range=0.5,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(network)
    transformer = Transformer(str(network), max_seq_length=MAX_TOKENS)
    modules = [transformer, Pooling(32), *([Normalize()] if normalize else [])]
    return save(SentenceTransformer(modules=modules, device="cpu"), folder / "model")


def save_static(folder: Path) -> Path:
    """A table of word vectors, with no network over a text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    return save(model, folder / "model")


def save(model, folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        model.save(str(folder), create_model_card=False)
    assert json.loads((folder / "modules.json").read_text())
    return folder
