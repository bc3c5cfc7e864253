"""The worker process of a site: what it does is said in the site's log, and there alone; its helpers end with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from signed_requests import write_site
from tiny_federation import tiny_config

from fedrag.components.state import initial_state
from fedrag.federation.messages import TRAIN, Request, request_content
from fedrag.site.service.worker import Worker
from fedrag.site.site_config import SITE_FILE

pytestmark = pytest.mark.usefixtures("tiny_home")


@contextmanager
def trained(folder: Path, **sections: Any) -> Iterator[RecordDict]:
    """Let a site's worker train the generator; yield its reply while it waits for more work."""
    config = tiny_config(**sections)
    content = request_content(Request(config.to_toml(), 1, initial_state(config, ("generator",)), ("generator",)))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    node_config = {
        "site-name": "north",
        "site-folder": str(folder.parent / "data" / "north"),
        "site-cache": str(folder),
    }
    worker = Worker(folder / SITE_FILE, node_config)
    try:
        yield worker.answer(Message(content, 7, TRAIN), "tiny-1", 120.0)
    finally:
        worker.end()


def helpers(place: Path) -> list[Path]:
    """Return the processes that met in a folder."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        found += [line.parent] if b"crew_helper" in words and str(place).encode() in words else []
    return found


def test_that_layers_are_checkpointed_is_one_line_in_the_log_and_no_text_in_the_reply(tmp_path, capfd):
    with trained(write_site(tmp_path), generator={"activation_checkpointing": "on"}) as reply:
        pass
    assert isinstance(reply, RecordDict)
    assert "update" in "".join(reply)
    lines = [line for line in capfd.readouterr().out.splitlines() if "backward pass" in line]
    assert len(lines) == 1
    assert lines[0].endswith(
        "fedrag.training each layer computes its activations again in the backward pass: the scenario says so"
    )
    assert "backward pass" not in str(reply)


def test_a_helper_ends_with_a_worker_that_is_killed_and_leaves_nothing_behind(tmp_path, monkeypatch):
    meeting = tmp_path / "temporary"
    meeting.mkdir()
    monkeypatch.setenv("TMPDIR", str(meeting))
    folder = write_site(tmp_path)
    site_toml = folder / SITE_FILE
    site_toml.write_text(site_toml.read_text().replace("processes = 1", "processes = 2"))
    with trained(folder) as reply:
        assert "update" in "".join(reply)
        assert len(helpers(meeting)) == 1
        assert list(meeting.iterdir())
    end = time.monotonic() + 60
    while helpers(meeting) and time.monotonic() < end:
        time.sleep(0.1)
    assert helpers(meeting) == []
    assert list(meeting.iterdir()) == []
