"""A stand-in for the Hub on the loopback interface: it keeps what is sent, by the calls that huggingface_hub makes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml


class Hub(ThreadingHTTPServer):
    """Repositories by name; `token` is the one that may write."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repos: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}  # large files by their SHA-256
        self.made: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.server.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, hub = self._body(), self.server
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._answer({"error": f"no right to write by {self.headers.get('Authorization')}"}, 403)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            hub.made.append(asked)
            self._answer({"url": f"{hub.address}/{asked.get('organization', 'me')}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            told = json.loads(body)["content"].split("---\n")
            whole = len(told) > 2 and isinstance(yaml.safe_load(told[1]), dict)
            self._answer({"errors": [] if whole else [{"message": "no header"}], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            large = [{"path": f, "uploadMode": modes[f.endswith((".safetensors", ".h5"))]} for f in files]
            self._answer({"files": [file | {"shouldIgnore": False} for file in large]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.address}/store/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._answer({"error": f"no such call: {self.path}"}, 404)

    def _commit(self, body: bytes) -> None:
        repo = self.path.split("/commit/")[0].removeprefix("/api/")
        held = self.server.repos.setdefault(repo, {})
        for line in body.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                held[value["path"]] = self.server.stored[value["oid"]]
        self._answer({"success": True, "commitUrl": f"{self.server.address}/{repo}/commit/1", "commitOid": "1" * 40})


@contextmanager
def hub(token: str) -> Iterator[Hub]:
    """One that answers until the block ends."""
    server = Hub(token)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
