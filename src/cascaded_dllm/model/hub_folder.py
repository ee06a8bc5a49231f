"""Models of the hub: a checkpoint or a bundle, from the local cache if it is complete there."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.file_names import BUNDLE_FILE, TOKENIZER_FILE
from cascaded_dllm.hub_requests import hub_errors, problem_with_model
from cascaded_dllm.model.integrity import CHECKSUMS, missing_files

_PATTERNS = ["config.json", "*/config.json", "*.safetensors", TOKENIZER_FILE, BUNDLE_FILE, CHECKSUMS]


def hub_folder(hub_id: str) -> Path:
    """The folder that holds a model of the hub on this machine; the model is downloaded if the cache lacks it.

    If the hub cannot be reached, an incomplete copy is returned where its library takes one for the model (before 2.0);
    reading it says what it lacks.

    Raises:
        CheckpointError: `hub_id` is not a hub id, or the model is not in the cache and cannot be downloaded.
    """
    cached: Path | None = None
    try:
        cached = Path(snapshot_download(hub_id, allow_patterns=_PATTERNS, local_files_only=True))
        if _is_whole(cached):
            return cached
    except HFValidationError as error:
        raise CheckpointError(f"{hub_id} does not exist here and is not a hub id; check the path") from error
    except LocalEntryNotFoundError:
        pass  # not in the cache: ask the hub
    problem = problem_with_model(hub_id)
    if problem is None:
        try:
            return Path(snapshot_download(hub_id, allow_patterns=_PATTERNS))
        except hub_errors() as error:
            problem = error
    elif cached is not None and not isinstance(problem, HfHubHTTPError):
        return cached
    raise CheckpointError(
        f"{hub_id} is not a folder here and could not be downloaded from the hub ({type(problem).__name__}); check the "
        "path, or download the model where there is a network"
    ) from problem


def _is_whole(cached: Path) -> bool:
    """Whether all files are there; an interrupted download leaves only some of them."""
    if (cached / BUNDLE_FILE).is_file():
        return missing_files(cached) == []
    return (cached / "config.json").is_file() and any(cached.glob("*.safetensors"))
