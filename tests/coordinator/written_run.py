"""A coordinator's folder with sites and a run whose rounds are written by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port
from tiny_federation import tiny_config

from fedrag.config.scenario import Config
from fedrag.coordinator import console
from fedrag.coordinator.console import console_server
from fedrag.coordinator.console_token import renew_token
from fedrag.coordinator.outcome import Outcome, write_outcome
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.runs.checkpoint import Checkpoint
from fedrag.runs.run_folder import RunFolder
from fedrag.security.keys import new_key
from fedrag.service.web import LOOPBACK

STATE = {"retriever": {"weight": np.zeros(2, np.float32)}}
REFUSAL = "its policy does not allow work at this time of day (policy-quiet-hours; error {:08x} in the site's log)"


def new_folder(root: Path, sites: tuple[str, ...] = ("north", "south")) -> ServerFolder:
    config = ServerConfig(name="rag.example.org", superlink_port=free_port())
    folder = ServerFolder.create(root / "coordinator", config)
    for name in sites:
        new_key(root / f"{name}.key")
        folder.register.add_site(name, root / f"{name}.pub")
    return folder


def console_folder(root: Path) -> ServerFolder:
    """Return a folder whose console has its token, with a scenario that can be run."""
    folder = new_folder(root)
    renew_token(folder)
    (folder.scenarios / "tiny.toml").write_text(tiny_config().to_toml())
    return folder


def record(number: int, left_out: dict[str, str] | None = None, sites: tuple[str, ...] = ("north", "south")) -> Any:
    """Return a round in which each site that is not left out has a loss of one over the round."""
    left_out = left_out or {}
    told = {"retriever.examples": 4, "retriever.loss": 1.0 / number, "seconds": 1.5, "bytes": 600}
    return {
        "round": number,
        "components": ["retriever"],
        "seconds": 2.0,
        "bytes_to_each_site": 1000,
        "asked": sorted({*sites, *left_out}),
        "sites": {name: told for name in sites if name not in left_out},
        "left_out": left_out,
        "update_norm": {"retriever": 0.1},
        "aggregation_error": {"retriever": 0.002 * number},
        "validation": {"retriever": 0.5},
    }


def write_run(folder: ServerFolder, records: list[Any], state: str = "finished", why: str = "") -> RunFolder:
    """Write a run of three rounds, of which some are done."""
    settings = {"name": "written", "data": {"sites": "nowhere"}, "federation": {"rounds": 3, "schedule": "retriever"}}
    run = RunFolder.create(Config.from_dict(settings), root=folder.runs)
    run.record_facts(
        {
            "fedrag": "0.1.0",
            "started": "2026-01-02T03:04:05Z",
            "versions": {"python": "3.11"},
            "models": {},
            "data": {},
            "threads": 1,
            "dtype": {},
        }
    )
    for one in records:
        add_round(run, one)
    if state == "finished":
        run.record_delivery(["north"])
        run.save_result(STATE)
    write_outcome(run.path, Outcome(state, why))
    return run


def add_round(run: RunFolder, one: Any) -> None:
    run.save_checkpoint(Checkpoint(one["round"], STATE, {}, {}), one)


@contextmanager
def shown(folder: ServerFolder, say: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Show a folder's console, which looks for changes ten times a second, on a free port; give its address."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    server = console_server(folder, port, say)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "TICK_S", console.TICK_S / 10)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the console does not end"
