"""A bundle as a repository of the Hugging Face hub."""

import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from cascaded_dllm.errors import ConfigError, HubError
from cascaded_dllm.hub_requests import hub_errors, with_deadline
from cascaded_dllm.sample.bundle import BundleContent, save_bundle


def push_bundle(
    repo_id: str,
    content: BundleContent,
    *,
    private: bool | None,
    token: str | None,
    commit_message: str,
    license: str | None,
) -> str:
    """Uploads the bundle and returns its address, see `Cascade.push_to_hub`; the local copy is deleted in any case.

    The upload is one commit, which also deletes files of stages that an older bundle in the same repository had and
    this one has not. If the upload fails, a new repository may stay empty. The model card is made anew.

    Args:
        content: the cascade; the caller has called its `require_savable`.
    """
    require_repo_id(repo_id)
    api = HfApi(token=token)
    _require_login(api, repo_id)
    with tempfile.TemporaryDirectory(prefix="cascaded-dllm-") as temporary:
        folder = Path(temporary) / "bundle"
        save_bundle(folder, content, name=repo_id, license=license)
        errors = hub_errors()
        try:
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            if private:
                _require_private(api, repo_id)
            _commit(api, repo_id, folder, commit_message)
        except errors as error:
            raise _refused(repo_id, error) from error
    return str(url)


def _require_private(api: HfApi, repo_id: str) -> None:
    """Checks that a repository, which may have existed before, is private.

    Raises:
        HubError: it is public.
    """
    if not api.model_info(repo_id).private:
        raise HubError(
            f"{repo_id} was not uploaded: the repository is there and public, and a private one is asked for; make it "
            "private on the hub, or choose another name"
        )


def _commit(api: HfApi, repo_id: str, folder: Path, message: str) -> None:
    """Makes the repository hold the bundle in `folder`, in one commit, so that nobody downloads half of it."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    old = {name for name in api.list_repo_files(repo_id) if name.startswith("stage_")}
    api.create_commit(
        repo_id,
        operations=[
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in sorted(names)),
            *(CommitOperationDelete(path_in_repo=name) for name in sorted(old - names)),
        ],
        commit_message=message,
    )


def require_repo_id(repo_id: str) -> None:
    """Checks that `repo_id` is a well-formed hub id; asks no server.

    Raises:
        ConfigError: it is malformed.
    """
    try:
        hf_hub_url(repo_id, "README.md")  # only checks the id
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is not a hub id; it must be owner/name") from error


def _require_login(api: HfApi, repo_id: str) -> None:
    """Checks, before gigabytes are written, that the hub answers and that a user is logged in.

    Raises:
        HubError: the hub does not answer, or nobody is logged in.
    """
    answer = with_deadline(api.whoami)
    if isinstance(answer, Exception):
        raise _refused(repo_id, answer) from answer


def _refused(repo_id: str, error: Exception) -> HubError:
    """The error to raise for `error`: nobody is logged in, the token may not write, or no usable answer came."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return HubError(
            f"{repo_id} was not uploaded: the hub does not know who asks; log in with `hf auth login`, or give a token "
            "that may write"
        )
    if status == 403:
        return HubError(
            f"{repo_id} was not uploaded: this token may not write there; give one that may, or another owner"
        )
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return HubError(
        f"{repo_id} was not uploaded: the hub does not answer or refuses ({reason[:300]}); check the network, save "
        "the bundle to a folder, and upload it later"
    )
