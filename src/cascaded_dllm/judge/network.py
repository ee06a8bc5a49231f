"""The network of a judge, a GPT-2 of the transformers library, and the folder from which the library loads it."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cascaded_dllm.errors import MissingExtraError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.judge.settings import JudgeSettings
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT

WEIGHTS_FILE = "model.safetensors"
_TIED = "lm_head.weight"
"""The output layer, which shares its weights with the embedding; stored once."""

_EMBEDDING = "transformer.wte.weight"


def require_library() -> ModuleType:
    """The transformers library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="eval", purpose="training a judge") from error
    return transformers


def new_network(settings: JudgeSettings, tokenizer: Tokenizer) -> Any:
    """A GPT-2 on the CPU, with random weights that depend on the settings alone.

    Its context is one token longer than a window, for the token that begins a text.
    """
    library = require_library()
    config = library.GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=settings.length + 1,
        n_embd=settings.size.width,
        n_layer=settings.size.blocks,
        n_head=settings.size.heads,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        architectures=["GPT2LMHeadModel"],
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(settings.seed, "judge-weights"))
        return library.GPT2LMHeadModel(config)


def save_network(network: Any, tokenizer_file: Path, folder: Path) -> None:
    """Writes the files that the library's `from_pretrained` loads: settings, weights and tokenizer.

    The tokenizer is that of the corpus, whose end of text also begins a text, as in GPT-2.

    Args:
        network: from `new_network`.
        tokenizer_file: of the corpus.
        folder: an existing folder.
    """
    network.config.save_pretrained(folder)
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items() if name != _TIED}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    _library_tokenizer(tokenizer_file, network.config.n_positions).save_pretrained(folder)
    # The original file: the library writes the same tokenizer in another form.
    shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)


def load_weights(network: Any, folder: Path) -> None:
    """Loads the weights that `save_network` wrote for a network of the same settings."""
    weights = load_file(folder / WEIGHTS_FILE)
    network.load_state_dict({**weights, _TIED: weights[_EMBEDDING]})


def as_judge(network: Any, tokenizer_file: Path) -> Judge:
    """The network as a judge of texts; puts it into evaluation mode."""
    tokenizer = _library_tokenizer(tokenizer_file, network.config.n_positions)
    return Judge(network.eval(), tokenizer, "the judge in training", tokenizer.bos_token_id, network.config.n_positions)


def _library_tokenizer(tokenizer_file: Path, context: int) -> Any:
    """The tokenizer of a corpus as a tokenizer of the library."""
    return require_library().PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=context,
    )
