"""A server on this machine that takes models as the Hugging Face hub does, and gives them back."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.local_server import Answers, serving


@dataclass
class Hub:
    """What a hub holds, and what it refuses.

    Attributes:
        files: of every repository, by its id.
        private: repositories that are.
        commits: messages of the commits.
        refused: status that a request is answered with whose path begins so.
        address: of the server.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    address: str = ""

    def commit(self, repo_id: str) -> str:
        """Names what a repository holds now."""
        return hashlib.sha1(repr(sorted(self.files[repo_id].items())).encode()).hexdigest()


class _Handler(Answers):
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self._is_refused(path):
            return
        info = re.fullmatch(r"/api/models/(\w+/\w+)(?:/(revision|tree)/\w+)?", path)
        file = re.fullmatch(r"/(\w+/\w+)/resolve/\w+/(.*)", path)
        if path == "/api/whoami-v2":
            self.answer_json({"name": "somebody", "auth": {}})
        elif info is not None and info[1] in self.hub.files:
            files = self.hub.files[info[1]]
            listed = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
            sha = self.hub.commit(info[1])
            is_private = info[1] in self.hub.private
            siblings = [{"rfilename": name} for name in files]
            whole = {"id": info[1], "sha": sha, "private": is_private, "siblings": siblings}
            self.answer_json(listed if info[2] == "tree" else whole)
        elif file is not None and file[2] in self.hub.files.get(file[1], {}):
            content = self.hub.files[file[1]][file[2]]
            etag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit(file[1])})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_refused(path):
            return
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked.get('organization', 'somebody')}/{asked['name']}"
            is_new = repo_id not in self.hub.files
            self.hub.files.setdefault(repo_id, {})
            if is_new and (asked.get("private") or asked.get("visibility") == "private"):
                self.hub.private.add(repo_id)
            self.answer_json({"url": f"{self.hub.address}/{repo_id}"}, 200 if is_new else 409)
        elif path.startswith("/api/models/") and "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer_json(
                {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            )
        elif found := re.fullmatch(r"/api/models/(\w+/\w+)/commit/main", path):
            self._commit(self.hub.files[found[1]], [json.loads(line) for line in body.splitlines()])
            address = f"{self.hub.address}/{found[1]}/commit/{self.hub.commit(found[1])}"
            self.answer_json({"commitUrl": address, "commitOid": self.hub.commit(found[1])})
        else:
            self.answer_json({})  # the check of the card's header

    def _commit(self, files: dict[str, bytes], lines: list[dict[str, dict[str, str] | str]]) -> None:
        for line in lines:
            value = line["value"]
            assert isinstance(value, dict)
            match line["key"]:
                case "header":
                    self.hub.commits.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "deletedFile":
                    del files[value["path"]]

    def _is_refused(self, path: str) -> bool:
        status = next((status for start, status in self.hub.refused.items() if path.startswith(start)), None)
        if status is not None:
            self.answer_json({"error": "refused"}, status)
        return status is not None


@contextmanager
def upload_hub() -> Iterator[Hub]:
    """A hub that is empty and refuses nothing."""
    hub = Hub()
    with serving(_Handler, hub=hub) as hub.address:
        yield hub
