"""An export is uploaded in one commit; what keeps it from the hub is said before anything is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from fedrag.errors import ConfigError
from fedrag.exporting.hub_upload import HubRepository
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.exporting.write_export import ExportOptions, export_system


class Hub(ThreadingHTTPServer):
    """As much of the hub's upload API as a folder of small files needs; it remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.full = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/whoami-v2":
            self._answer(
                200, {"name": "clinic", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
            )
        else:
            self._answer(404, {"error": f"no {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not body and self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        match self.path.split("?")[0]:
            case "/api/repos/create":
                self.server.created.append(json.loads(body))
                self._answer(200, {"url": f"{self.server.address}/clinic/rag"})
            case "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            case "/api/models/clinic/rag/preupload/main":
                files = json.loads(body)["files"]
                told = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                self._answer(200, {"files": told})
            case "/api/models/clinic/rag/commit/main" if self.server.full:
                self._answer(403, {"error": "Storage limit reached."})
            case "/api/models/clinic/rag/commit/main":
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                commit = {"commitUrl": f"{self.server.address}/clinic/rag/commit/1", "commitOid": "1"}
                self._answer(200, commit | {"commitMessage": "Upload with fedrag"})
            case other:
                self._answer(404, {"error": f"no {other}"})

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["clinic/rag", "rag"])
def test_every_file_arrives_in_a_private_repository(hub: Hub, system: TrainedSystem, tmp_path: Path, name: str) -> None:
    said = export_system(system, tmp_path / "out", ExportOptions(push=name))
    assert said[-1] == f"pushed: {hub.address}/clinic/rag"
    [created] = hub.created
    assert created["name"] == "rag"
    assert created.get("private") is True or created.get("visibility") == "private"
    written = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    files = {name: path.read_bytes() for name, path in written.items() if path.is_file()}
    assert hub.files == files
    assert {"README.md", "rag.json", "generator/adapter_model.safetensors"} <= set(files)


def test_an_upload_that_is_refused_leaves_the_folder(hub: Hub, system: TrainedSystem, tmp_path: Path) -> None:
    hub.full = True
    with pytest.raises(ConfigError, match="out is written, but was not pushed: .*; push it with: hf upload clinic/rag"):
        export_system(system, tmp_path / "out", ExportOptions(push="clinic/rag"))
    assert (tmp_path / "out" / "README.md").is_file()


def test_a_wrong_token_is_told_before_anything_is_written(hub: Hub, system, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError, match="--push: the model hub does not take the token"):
        export_system(system, tmp_path / "out", ExportOptions(push="clinic/rag"))
    assert not (tmp_path / "out").exists()


def test_no_token_is_one_sentence(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError) as refused:
        HubRepository.reach("clinic/rag")
    assert str(refused.value) == (
        "--push: there is no token of the model hub here; run: hf auth login, or set HF_TOKEN"
    )
    assert hub.tokens == set()


def test_offline_is_one_sentence(hub: Hub, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        HubRepository.reach("clinic/rag")


@pytest.mark.parametrize("name", ["a/b/c", "a b", "-x", ""])
def test_what_is_no_id_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a repository of the model hub"):
        HubRepository.reach(name)
