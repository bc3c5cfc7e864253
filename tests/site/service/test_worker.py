"""The worker process of a site: what it does is said in the site's log, and there alone."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from signed_requests import write_site
from tiny_federation import tiny_config

from fedrag.components.state import initial_state
from fedrag.federation.messages import TRAIN, Request, request_content
from fedrag.site.service.worker import Worker
from fedrag.site.site_config import SITE_FILE


def test_that_layers_are_checkpointed_is_one_line_in_the_log_and_no_text_in_the_reply(tiny_home, tmp_path, capfd):
    folder = write_site(tmp_path)
    config = tiny_config(generator={"activation_checkpointing": "on"})
    state = initial_state(config, ("generator",))
    content = request_content(Request(config.to_toml(), 1, state, ("generator",)))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    node_config = {
        "site-name": "north",
        "site-folder": str(folder.parent / "data" / "north"),
        "site-cache": str(folder),
    }
    worker = Worker(folder / SITE_FILE, node_config)
    try:
        reply = worker.answer(Message(content, 7, TRAIN), "tiny-1", 120.0)
    finally:
        worker.end()
    assert isinstance(reply, RecordDict)
    assert "update" in "".join(reply)
    lines = [line for line in capfd.readouterr().out.splitlines() if "backward pass" in line]
    assert len(lines) == 1
    assert lines[0].endswith(
        "fedrag.training each layer computes its activations again in the backward pass: the scenario says so"
    )
    assert "backward pass" not in str(reply)
