"""What a registered site, or whoever has taken the coordinator's machine, sends to another site's node."""

from __future__ import annotations

import numpy as np
import pytest
from deployment import Deployment
from flwr.app import Array, ArrayRecord, Message, RecordDict
from foul_messages import GarbageRecord, in_the_servers_name
from soak import resident_mb
from tiny_federation import tiny_config

from fedrag.security.keys import load_private_key
from fedrag.site.egress import read_egress
from fedrag.site.service.connection import connect

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("tiny_home")]


@pytest.fixture(scope="module")
def deployment(deployment: Deployment) -> Deployment:
    """Leave north alone, with a small limit."""
    deployment.end("south")
    deployment.end("north")
    deployment.set_setting("north", "max_message_mb", 2.0)
    deployment.start_site("north")
    deployment.wait_until_online(["north"])
    return deployment


def garbage() -> RecordDict:
    return RecordDict({"request": GarbageRecord()})


def of_megabytes(number: int) -> RecordDict:
    noise = np.random.default_rng(0).integers(0, 255, number * 2**20, dtype=np.uint8)
    return RecordDict({"state": ArrayRecord({"generator": Array(noise)})})


def node_of(deployment: Deployment, name: str) -> int:
    return next(node.node_id for node in deployment.server.link.nodes() if node.name == name)


def test_what_a_site_sends_to_another_site_does_not_arrive(deployment, data):
    run = deployment.begin(tiny_config(data, federation={"min_sites": 3, "greeting_timeout_s": 300.0}))
    deployment.wait(lambda: len(read_egress(deployment.root / "north" / "egress.jsonl")) == 1, 120, "north greeted")
    before = deployment.node_pids("north")
    flower_run = deployment.server.current()["flower_run"]
    folder, server = deployment.root / "south", f"127.0.0.1:{deployment.server.config.port}"
    key = load_private_key(folder / "site.key")
    with connect(server, folder / "ca.crt", key, folder / "address", lambda: False) as attacker:
        for content in (garbage(), of_megabytes(30)):
            assert not attacker.send(in_the_servers_name(flower_run, node_of(deployment, "north"), content), 0.0)
    assert deployment.stop() == run
    deployment.wait(lambda: not deployment.server.current(), 30, "the run stopped")
    with deployment.server.link.grid(deployment.server.link.start_run()) as grid:  # comes after all that was sent
        (asked,) = grid.push_messages([Message(RecordDict(), node_of(deployment, "north"), "query.greet", ttl=60.0)])
        deployment.wait(lambda: bool(grid.pull_messages([asked])), 60, "north answers")
    assert deployment.node_pids("north") == before
    assert [line["kind"] for line in read_egress(deployment.root / "north" / "egress.jsonl")] == ["greet", "refusal"]
    assert "a message" not in deployment.node_log("north")


def test_a_node_survives_what_it_cannot_read_and_fetches_nothing_above_its_limit(deployment, data):
    """Sent from the coordinator's own machine: no gate is in between."""
    (before,) = deployment.node_pids("north")
    resident = resident_mb(before)
    node, link = node_of(deployment, "north"), deployment.server.link
    with link.grid(link.start_run()) as grid:
        grid.push_messages([Message(garbage(), node, "train.round", ttl=60.0)])
        deployment.wait(lambda: "a message cannot be read; 1 so far" in deployment.node_log("north"), 60, "left aside")
        (asked,) = grid.push_messages([Message(of_megabytes(150), node, "train.round", ttl=60.0)])
        replies: list[Message] = []
        deployment.wait(lambda: bool(replies.extend(grid.pull_messages([asked])) or replies), 60, "refused")
    assert replies[0].content["refusal"]["code"] == "policy-message-size"
    assert "a message is too large; 2 so far" in deployment.node_log("north")
    assert deployment.node_pids("north") == [before]
    assert resident_mb(before) < resident + 20
    run = deployment.begin(
        tiny_config(data, name="after", federation={"rounds": 1, "min_sites": 1, "greeting_timeout_s": 180.0})
    )
    assert list(deployment.wait_until_done(run).rounds()[0]["sites"]) == ["north"]
