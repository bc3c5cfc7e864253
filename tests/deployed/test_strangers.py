"""Who is not let in, and what a registered site gone bad can do: nothing that is acted on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from deployment import Deployment
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supernode import node_auth_http_interceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from foul_messages import in_the_servers_name
from tiny_federation import tiny_config

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.files import write_text
from fedrag.security.certificates import new_authority
from fedrag.security.keys import load_private_key
from fedrag.site.egress import read_egress
from fedrag.site.service.connection import AccessDenied, connect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

NAMES = ("north", "south")


def waiting_run(data: Path) -> Config:
    """Return a run that waits for a third site, which never comes."""
    return tiny_config(data, federation={"min_sites": 3, "greeting_timeout_s": 180.0})


def connection_of(deployment: Deployment, name: str):
    folder = deployment.root / name
    server = f"127.0.0.1:{deployment.server.config.port}"
    key = load_private_key(folder / "site.key")
    return connect(server, folder / "ca.crt", key, folder / "address", lambda: True)


def test_an_unregistered_key_is_not_let_in_and_the_site_says_so(deployment, data):
    deployment.make_site("stranger", data / "north")
    deployment.start_site("stranger")
    deployment.wait(lambda: "was not let in: is its key registered" in deployment.log("stranger"), 120, "refused")
    deployment.end("stranger")
    deployment.wait_until_online(NAMES)


def test_a_coordinator_with_a_certificate_of_another_authority_is_not_trusted(deployment, data, tmp_path):
    folder = deployment.make_site("wary", data / "north")
    new_authority(tmp_path / "ca.crt", tmp_path / "ca.key", "another", 10)
    write_text(folder / "ca.crt", (tmp_path / "ca.crt").read_text())
    deployment.start_site("wary")
    deployment.wait(lambda: "was not answered by the coordinator" in deployment.log("wary"), 120, "not trusted")
    deployment.end("wary")


def test_a_clock_that_is_ten_minutes_off_is_not_let_in(deployment, monkeypatch):
    right = node_auth_http_interceptor.now
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: right() - timedelta(minutes=10))
    with pytest.raises(AccessDenied), connection_of(deployment, "south"):
        pass


def fleet(deployment: Deployment, *interceptors: ProtobufClientInterceptor) -> FleetHttpClient:
    """Return a client of the reverse proxy that adds what these add to its requests."""
    server, ca = f"127.0.0.1:{deployment.server.config.port}", deployment.root / "south" / "ca.crt"
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    return FleetHttpClient.from_server_address(server, False, ca.read_bytes(), interceptors=[version, *interceptors])


def identity(deployment: Deployment, name: str) -> NodeAuthHttpInterceptor:
    key = load_private_key(deployment.root / name / "site.key")
    return NodeAuthHttpInterceptor(key, key.public_key())


class Wiretap:
    """Keeps what identifies the sender of a request, or shows it again."""

    def __init__(self, heard: dict[str, str] | None = None) -> None:
        self.heard = heard or {}

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers.update(self.heard)
        self.heard = {name: text for name, text in context.request.headers.items() if name.startswith("flwr-")}
        return call_next(context)


def test_what_identified_a_site_once_opens_nothing_a_second_time(deployment):
    nodes = {node.name: Node(node_id=node.node_id) for node in deployment.server.link.nodes()}
    tap = Wiretap()
    with fleet(deployment, identity(deployment, "south"), tap) as honest:
        assert honest.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=nodes["south"], heartbeat_interval=30)).success
    with fleet(deployment, Wiretap(tap.heard)) as thief:
        for node in nodes.values():
            with pytest.raises(httpx.HTTPStatusError, match="429"):
                thief.PullMessages(PullMessagesRequest(node=node))
    assert 'by zone "replays"' in (deployment.server.logs / "reverse-proxy.log").read_text()


def test_a_registered_site_cannot_take_what_is_meant_for_another(deployment):
    nodes = {node.name: Node(node_id=node.node_id) for node in deployment.server.link.nodes()}
    with fleet(deployment, identity(deployment, "south")) as attacker:
        attacker.PullMessages(PullMessagesRequest(node=nodes["south"]))
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            attacker.PullMessages(PullMessagesRequest(node=nodes["north"]))
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            attacker.PullObject(PullObjectRequest(node=nodes["north"], run_id=1, object_id="0" * 64))
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            attacker.DeactivateNode(DeactivateNodeRequest(node_id=nodes["north"].node_id))
    deployment.wait_until_online(NAMES)


def test_an_instruction_that_a_registered_site_forges_is_refused_and_nothing_is_done(deployment, data):
    run = deployment.begin(waiting_run(data))
    greeted = deployment.root / "north" / "egress.jsonl"
    deployment.wait(lambda: len(read_egress(greeted)) == 1, 120, "north greeted")
    (north,) = (node.node_id for node in deployment.server.link.nodes() if node.name == "north")
    content = RecordDict({"request": ConfigRecord({"scenario": "anything"})})
    with connection_of(deployment, "south") as attacker:
        forged = in_the_servers_name(deployment.server.current()["flower_run"], north, content)
        assert not attacker.send(forged, 0.0), "it is no reply to an open request"
    assert deployment.stop() == run
    deployment.wait(lambda: not deployment.server.current(), 30, "the run stopped")
    link = deployment.server.link
    with link.grid(link.start_run()) as grid:  # whoever has taken the coordinator's machine, but not its key
        grid.push_messages([Message(content, north, "train.round", ttl=60.0)])
        deployment.wait(lambda: "refused with bad-signature" in deployment.node_log("north"), 120, "refused")
    assert [line["kind"] for line in read_egress(greeted)] == ["greet", "refusal"]
    assert deployment.worker_pids("north"), "the worker that greeted goes on undisturbed"


def test_a_removed_site_is_put_out_at_once_and_its_key_is_burnt(deployment, data):
    site = deployment.server.register.remove_site("south")
    deployment.server.link.unregister(site.public_key)
    deployment.wait(lambda: "was not let in" in deployment.log("south"), 120, "put out")
    with pytest.raises(ConfigError, match="is never accepted again"):
        deployment.server.register.add_site("newcomer", deployment.root / "south" / "site.pub")
    deployment.wait_until_online(["north"])
