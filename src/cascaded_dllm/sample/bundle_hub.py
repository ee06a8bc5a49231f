"""A bundle as a repository of the Hugging Face hub."""

import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from cascaded_dllm.errors import ConfigError, HubError
from cascaded_dllm.hub_answer import answer_of, hub_errors
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
    """The address of the bundle, once it is uploaded; here nothing is left of it, whatever happens.

    All of it is one commit, which also deletes stages that an older bundle in the same repository had besides. Where
    that fails, a new repository may stay empty. The model card is made anew.

    Args:
        repo_id: owner/name; the repository is created if there is none.
        content: what is uploaded, found to be savable.
        private: whether a new repository is private, None for the custom of its owner; an old one stays what it is, and
            where a private one is asked for, a public one gets nothing.
        token: of a user who may write there; None for the one that `hf auth login` has stored.
        commit_message: of the one commit.
        license: as in `save_bundle`.

    Raises:
        ConfigError: `repo_id` or the licence is none.
        HubError: there is no network, nobody is logged in, the hub refuses, or the repository is public against what is
            asked for.
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
    """Checks that a repository, which may be an old one, is private.

    Raises:
        HubError: it is not.
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
    """Checks that `repo_id` could be a repository.

    Raises:
        ConfigError: it could not.
    """
    try:
        hf_hub_url(repo_id, "README.md")  # checks the id, and asks nobody
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is no id of the hub; it must be owner/name") from error


def _require_login(api: HfApi, repo_id: str) -> None:
    """Checks, before gigabytes are written, that the hub answers and knows who asks.

    Raises:
        HubError: it does not.
    """
    answer = answer_of(api.whoami)
    if isinstance(answer, Exception):
        raise _refused(repo_id, answer) from answer


def _refused(repo_id: str, error: Exception) -> HubError:
    """The error in words: who was not let in, or that there is no network."""
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
        f"{repo_id} was not uploaded, for the hub does not answer or refuses ({reason[:300]}); check the network, save "
        "the bundle to a folder, and upload it later"
    )
