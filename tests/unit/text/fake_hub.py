"""A server on this machine that answers what the hub is asked when a dataset is looked up, listed and downloaded."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from tests.local_server import Answers, serving

BRANCH = "refs/convert/parquet"
COMMIT = "c0ffee" * 6 + "c0ff"
DATASET = "owner/name"


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=7)
    return buffer.getvalue()


class _Handler(Answers):
    dataset = ""
    files: Mapping[str, bytes] = {}
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.requests.append(f"{self.command} {path}")
        match = re.fullmatch(
            rf"/api/datasets/{self.dataset}(?:/(revision|tree)/([^/]+)/?(.*))?", path.replace(BRANCH, "-")
        )
        file = re.fullmatch(rf"/datasets/{self.dataset}/resolve/([^/]+)/(.*)", path.replace(BRANCH, "-"))
        if match is not None and match[2] == "nowhere":
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif match is not None and match[1] == "tree":
            self.answer_json(self._tree(match[3], is_deep="recursive=true" in self.path.lower()))
        elif match is not None:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer_json({"id": self.dataset, "sha": _commit(match[2]), "siblings": siblings})
        elif file is not None:
            self._file(file[2], _commit(file[1]))
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tree(self, folder: str, *, is_deep: bool) -> list[dict[str, object]]:
        prefix = f"{folder}/" if folder else ""
        below = [PurePosixPath(name) for name in self.files if name.startswith(prefix)]
        depth = len(PurePosixPath(folder).parts) + 1
        folders = {path for name in below for path in name.parents if len(path.parts) >= depth}
        return [
            {"type": "directory", "path": str(path), "oid": "0" * 40}
            for path in sorted(folders)
            if is_deep or len(path.parts) == depth
        ] + [
            {"type": "file", "path": str(path), "size": len(self.files[str(path)]), "oid": self._etag(str(path))}
            for path in below
            if is_deep or len(path.parts) == depth
        ]

    def _file(self, name: str, commit: str) -> None:
        if name not in self.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = self.files[name]
        headers = {"ETag": f'"{self._etag(name)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            self.answer(200, content, headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        self.answer(206, content[int(first) : end + 1], headers)

    @staticmethod
    def _etag(name: str) -> str:
        return hashlib.sha1(name.encode()).hexdigest()


def _commit(revision: str | None) -> str:
    """A commit is its own; every branch has the same."""
    return revision if revision is not None and re.fullmatch("[0-9a-f]{40}", revision) else COMMIT


@contextmanager
def served(files: Mapping[str, bytes], dataset: str = DATASET) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with one dataset of these files, and the list of the requests that it has had."""
    requests: list[str] = []
    with serving(_Handler, dataset=dataset, files=files, requests=requests) as address:
        yield address, requests
