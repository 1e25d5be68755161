"""A local stand-in for the HTTP interface of the Hugging Face hub, with what pushing and pulling a model need of it.

Every commit keeps all files of the repository. Safetensors go by the protocol of Git LFS, as on the hub; other files are in the
commit itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class FakeRepository:
    """Commits by their hash, the newest last; a branch has the name main."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        text = json.dumps([len(self.commits), sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.head if revision == "main" else revision
        return (sha, self.commits[sha]) if sha in self.commits else None


@dataclass
class FakeHub:
    """``repositories`` by OWNER/NAME, ``requests`` (method, path) in order, ``uploads``: what came by LFS, by hash."""

    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def environment(self, cache: Any) -> dict[str, str]:
        """Return the variables that make huggingface_hub use this hub, and a cache of its own."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }  # fmt: skip


@contextmanager
def serve_fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            values = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
            for key, value in values.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _fail(self, status: int, code: str) -> None:
            self._send({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

        def _may_read(self, name: str) -> bool:
            """Return whether a repository is there for this request, as the hub does: a private one is not, without a token."""
            repository = hub.repositories.get(name)
            token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            return repository is not None and (token or not repository.private)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"] and len(parts) >= 4:
                self._model("/".join(parts[2:4]), parts[4:])
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], path.split(f"/resolve/{parts[3]}/", 1)[1])
            else:
                self._fail(404, "NotFound")

        do_HEAD = do_GET

        def _model(self, name: str, rest: list[str]) -> None:
            if not self._may_read(name):
                return self._fail(401, "RepoNotFound")
            repository = hub.repositories[name]
            if (version := repository.at(rest[1] if rest else "main")) is None:
                return self._fail(404, "RevisionNotFound")
            sha, files = version
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            self._send({"id": name, "modelId": name, "sha": sha, "private": repository.private, "siblings": siblings})

        def _file(self, name: str, revision: str, file: str) -> None:
            if not self._may_read(name):
                return self._fail(401, "RepoNotFound")
            version = hub.repositories[name].at(revision)
            if version is None or file not in version[1]:
                return self._fail(404, "EntryNotFound" if version else "RevisionNotFound")
            content = version[1][file]
            headers = {"X-Repo-Commit": version[0], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            self._send(content, 200, {**headers, "Content-Type": "application/octet-stream"})

        def do_POST(self) -> None:
            path, body = unquote(urlsplit(self.path).path), self._body()
            hub.requests.append((self.command, path))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}" and path != "/api/validate-yaml":
                return self._fail(401, "Unauthorized")
            parts = path.strip("/").split("/")
            if path == "/api/validate-yaml":
                return self._send({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                values = json.loads(body)
                name = f"{values['organization']}/{values['name']}"
                if name in hub.repositories:
                    return self._send({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
                private = values.get("visibility") == "private" or values.get("private", False)
                hub.repositories[name] = FakeRepository(private)
                hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
                return self._send({"url": f"{hub.url}/{name}", "name": name, "id": name})
            if parts[-1] == "batch":
                return self._send(self._lfs_batch(json.loads(body)))
            name = "/".join(parts[2:4])
            if parts[4] == "preupload":
                return self._send(self._preupload(json.loads(body)))
            if parts[4] == "commit":
                return self._commit(name, body)
            self._fail(404, "NotFound")

        def _preupload(self, request: dict[str, Any]) -> dict[str, Any]:
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False}
                for f in request["files"]
            ]  # fmt: skip
            return {"files": modes}

        def _lfs_batch(self, request: dict[str, Any]) -> dict[str, Any]:
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}} for each in request["objects"]
            ]
            return {"transfer": "basic", "objects": objects}

        def do_PUT(self) -> None:
            hub.requests.append((self.command, self.path))
            content, oid = self._body(), self.path.rsplit("/", 1)[1]
            if hashlib.sha256(content).hexdigest() != oid:
                return self._fail(400, "WrongHash")
            hub.uploads[oid] = content
            self._send(b"")

        def _commit(self, name: str, body: bytes) -> None:
            if name not in hub.repositories:
                return self._fail(404, "RepoNotFound")
            repository = hub.repositories[name]
            lines = [json.loads(line) for line in body.splitlines() if line]
            header = next(line["value"] for line in lines if line["key"] == "header")
            if header.get("parentCommit") not in (None, repository.head):
                return self._fail(412, "CommitConflict")
            files = dict(repository.commits[repository.head])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.uploads[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = repository.commit(files)
            self._send({"commitOid": sha, "commitUrl": f"{hub.url}/{name}/commit/{sha}", "hookOutput": ""})

    return Handler
