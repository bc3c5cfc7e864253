"""A site's folder and what its coordinator asks it, for tests of the request handler and the node."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from tiny_federation import tiny_config, write_small_sites

from fedrag import __version__
from fedrag.config.scenario import Config
from fedrag.federation.messages import TRAIN, Request, request_content
from fedrag.federation.signing import Slip, new_request_id, with_signature
from fedrag.security.keys import load_private_key, new_key
from fedrag.site.client_folder import create_site
from fedrag.site.service.request_handler import RequestHandler
from fedrag.site.site_config import SITE_FILE, SiteConfig
from fedrag.site.work_ledger import SYSTEM_CLOCK, Clock
from fedrag.types import State


def write_site(root: Path) -> Path:
    """Write the folder of a site "north" with four questions, and its coordinator's key beside it."""
    data = write_small_sites(root / "data", north=4)
    create_site(root / "north", "north", "127.0.0.1:8443", str(data / "north"))
    new_key(root / "coordinator.key")
    (root / "north" / "coordinator.pub").write_text((root / "coordinator.pub").read_text())
    return root / "north"


def coordinator_key(folder: Path) -> EllipticCurvePrivateKey:
    """Return the key with which the coordinator of a site signs."""
    return load_private_key(folder.parent / "coordinator.key")


def open_handler(folder: Path, line: str = "", clock: Clock = SYSTEM_CLOCK) -> RequestHandler:
    """Open the request handler of a site, with one line of its site.toml changed."""
    path = folder / SITE_FILE
    if line:
        setting = line.split(" = ")[0]
        lines = [line if old.startswith(f"{setting} = ") else old for old in path.read_text().splitlines()]
        assert line in lines
        path.write_text("\n".join(lines) + "\n")
    return RequestHandler(folder, SiteConfig.from_file(path), clock)


def slip(**changes: Any) -> Slip:
    """Return what the coordinator's signature covers, for a round of training at "north"."""
    whole = Slip("request", "tiny-1", new_request_id(), "north", TRAIN, __version__, time.time())
    return replace(whole, **changes)


def request(
    key: EllipticCurvePrivateKey,
    signed: Slip | None = None,
    config: Config | None = None,
    kind: str = TRAIN,
    state: State | None = None,
) -> Message:
    """Return a request as it arrives at a node; each has a message id of its own."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    components = () if state else ("generator",)
    content = request_content(Request((config or tiny_config()).to_toml(), 1, state or {}, components))
    message = Message(with_signature(content, signed or slip(), key), 7, kind, group_id="1")
    message.metadata.__dict__["_message_id"] = new_request_id()
    return message


def code(reply: Message) -> str:
    """Return the code of a refusal."""
    return str(reply.content["refusal"]["code"])
