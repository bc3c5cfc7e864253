"""A registered site that claims half a billion questions, over real connections: it does not own the model."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import FEDRAG, Deployment
from flwr.app import Message
from tiny_federation import tiny_config, write_small_sites

from fedrag.federation.aggregation import WEIGHT_LIMIT
from fedrag.federation.messages import GREET, TRAIN
from fedrag.federation.signing import request_id, verified_slip, with_signature
from fedrag.security.keys import load_private_key
from fedrag.site.service.connection import connect
from fedrag.site.service.request_handler import RequestHandler
from fedrag.site.site_config import SITE_FILE, SiteConfig

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("tiny_home")]

HUGE = WEIGHT_LIMIT - 1


def serve_greedily(folder: Path, until: Callable[[], bool]) -> None:
    """Do the work of a site as an honest one does, and claim what it likes, signed with the site's own key."""
    config, key = SiteConfig.from_file(folder / SITE_FILE), load_private_key(folder / "site.key")
    handler, seen = RequestHandler(folder, config), set()
    with connect(config.server, Path(config.ca), key, folder / "address", lambda: False) as connection:
        while not until():
            asked = connection.receive()
            if asked is None or request_id(asked) in seen:
                time.sleep(0.1)
                continue
            seen.add(request_id(asked))
            reply = handler.answer(asked)
            slip = verified_slip(reply.content, "reply", key.public_key())
            if asked.metadata.message_type == GREET:
                reply.content["counts"].update(dict.fromkeys(reply.content["counts"], HUGE))
            if asked.metadata.message_type == TRAIN:
                reply.content["metrics"]["num-examples.generator"] = HUGE
            connection.send(Message(with_signature(reply.content, slip, key), reply_to=asked), 0.0)
    handler.interrupt()


def test_a_huge_claim_is_cut_by_the_ratio_and_by_what_was_confirmed_at_enrolment(tmp_path):
    data = write_small_sites(tmp_path / "data", north=4, south=4)
    settings = {"schedule": "generator", "rounds": 1, "min_sites": 2, "greeting_timeout_s": 180.0, "deliver": False}
    config = tiny_config(data, federation=settings)
    with Deployment(tmp_path / "deployment", {name: data / name for name in ("north", "south")}) as deployment:
        deployment.end("south")
        deployment.wait_until_online(["north"])
        south, done = deployment.root / "south", threading.Event()
        serving = threading.Thread(target=serve_greedily, args=(south, done.is_set), daemon=True)
        serving.start()
        try:
            deployment.wait_until_online(["north", "south"])
            run = deployment.wait_until_done(deployment.begin(config))
            assert run.rounds()[0]["weights_cut"] == {"south": {"generator": 40}}
            assert "south counts for 40 generator questions in round 1" in deployment.executor_log
            confirm = ["server", "add-site", deployment.server.path, south / "site.pub", "--name", "south"]
            told = subprocess.run([FEDRAG, *confirm, "--questions", "4"], check=True, capture_output=True, text=True)
            assert "it counts for at most 4 training questions" in told.stdout
            run = deployment.wait_until_done(deployment.begin(config))
            assert run.rounds()[0]["weights_cut"] == {"south": {"generator": 4}}
            assert "4 were confirmed when it was registered" in deployment.executor_log
        finally:
            done.set()
            serving.join(30)
