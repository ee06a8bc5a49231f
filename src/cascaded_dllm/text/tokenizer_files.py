"""Reads tokenizers from a file, a folder or a Hugging Face repository."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from cascaded_dllm.errors import DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.hub_requests import HUB_ID, hub_errors, problem_with_model

# The two historical names of GPT-2's vocabulary and merges.
VOCABULARY_PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


def read_backend(source: str | Path) -> tokenizers.Tokenizer:
    """The backend at `source`, as it was stored and not yet checked; a file or folder wins over a hub id of its name.

    Args:
        source: as in `Tokenizer.load`.

    Raises:
        DataError: there is no tokenizer, or it cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    if isinstance(source, Path) or path.suffix == ".json" or not HUB_ID.fullmatch(source):
        raise DataError(
            f"there is no tokenizer at {source}; give a {TOKENIZER_FILE}, a folder that holds one, "
            "or a Hugging Face id such as gpt2"
        )
    return _from_file(_hub_file(source))


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """A backend that splits texts like GPT-2, works on bytes and adds nothing to a text."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def _from_file(path: Path) -> tokenizers.Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
        if not isinstance(json.loads(text), dict):
            raise DataError(f"{path} is not a tokenizer.json: its top level is not an object; save it again")
        return tokenizers.Tokenizer.from_str(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable tokenizer.json ({error}); save or download it again") from error
    except Exception as error:  # The library raises nothing narrower than Exception itself.
        if type(error) is not Exception:
            raise
        raise DataError(f"{path} is not a tokenizer of the tokenizers library ({error}); save it again") from error


def _from_folder(folder: Path) -> tokenizers.Tokenizer:
    if (folder / TOKENIZER_FILE).is_file():
        return _from_file(folder / TOKENIZER_FILE)
    for vocabulary_name, merges_name in VOCABULARY_PAIRS:
        vocabulary_path, merges_path = folder / vocabulary_name, folder / merges_name
        if vocabulary_path.is_file() and merges_path.is_file():
            return _from_vocabulary(vocabulary_path, merges_path)
    pairs = " or ".join(f"{vocabulary} + {merges}" for vocabulary, merges in VOCABULARY_PAIRS)
    raise DataError(
        f"the folder {folder} holds neither {TOKENIZER_FILE} nor {pairs}; name a folder that does, or a hub id"
    )


def _from_vocabulary(vocabulary_path: Path, merges_path: Path) -> tokenizers.Tokenizer:
    try:
        vocabulary = json.loads(vocabulary_path.read_text(encoding="utf-8"))
        lines = merges_path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{vocabulary_path} or {merges_path} is broken ({error}); download both again") from error
    if not isinstance(vocabulary, dict) or not all(type(token_id) is int for token_id in vocabulary.values()):
        raise DataError(f"{vocabulary_path} does not map tokens to integer ids; download it again")
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        parts = line.split(" ")
        if line == "" or (number == 1 and line.startswith("#version")):
            continue
        if len(parts) != 2 or parts[0] not in vocabulary or parts[1] not in vocabulary:
            raise DataError(f"{merges_path} line {number} is {line!r}, not two known tokens; download it again")
        if "".join(parts) not in vocabulary:
            raise DataError(
                f"{merges_path} line {number} merges to {''.join(parts)!r}, which is not among the {len(vocabulary)} "
                f"tokens of {vocabulary_path}; take both files from the same tokenizer"
            )
        merges.append((parts[0], parts[1]))
    return byte_level(models.BPE(vocab=vocabulary, merges=merges))


def _hub_file(hub_id: str) -> Path:
    """The tokenizer.json of a repository, from the cache or else downloaded; offline, asking the hub first would hang.

    Raises:
        DataError: it is not in the cache and cannot be downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, TOKENIZER_FILE, local_files_only=True))
    except LocalEntryNotFoundError:
        pass

    problem = problem_with_model(hub_id)
    if problem is None:
        try:
            return Path(huggingface_hub.hf_hub_download(hub_id, TOKENIZER_FILE))
        except hub_errors() as error:
            problem = error
    raise DataError(
        f"the tokenizer {hub_id!r} is neither a file here nor in the Hugging Face cache, and downloading it failed "
        f"({type(problem).__name__}); check the name and the network, or name a folder with {TOKENIZER_FILE}"
    ) from problem
