"""The SuperLink's database, beside a SuperLink that uses it."""

from __future__ import annotations

import numpy as np
import pytest
from deployment import Deployment
from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedrag.security.keys import load_private_key, load_public_key, new_key
from fedrag.site.service.connection import connect

pytestmark = pytest.mark.slow

MEGABYTES = 60


def test_the_room_of_messages_is_given_back_while_the_superlink_runs(tmp_path):
    with Deployment(tmp_path, {}) as deployment:
        link = deployment.server.link
        new_key(tmp_path / "site.key")
        link.register("north", load_public_key(tmp_path / "site.pub"))
        (node,) = link.nodes()
        server, key = f"127.0.0.1:{deployment.server.config.port}", load_private_key(tmp_path / "site.key")
        with connect(server, deployment.server.path / "ca.crt", key, tmp_path / "address", lambda: False):
            pass  # known as offline from here on
        before = deployment.superlink_pids()
        noise = np.random.default_rng(0).integers(0, 255, MEGABYTES * 2**20, dtype=np.uint8)
        with link.grid(link.start_run()) as grid:
            content = RecordDict({"state": ArrayRecord({"generator": Array(noise)})})
            grid.push_messages([Message(content, node.node_id, "train.round", ttl=600.0)])
            assert database_mb(deployment) > MEGABYTES
        deployment.wait(lambda: database_mb(deployment) < 10, 90, "the database small again")
        assert deployment.superlink_pids() == before
        with link.grid(link.start_run()) as grid:
            content = RecordDict({"state": ArrayRecord({"generator": Array(noise[: 2**20])})})
            assert grid.push_messages([Message(content, node.node_id, "train.round", ttl=600.0)])


def database_mb(deployment: Deployment) -> float:
    return sum(file.stat().st_size for file in deployment.server.path.glob("superlink.db*")) / 1e6
