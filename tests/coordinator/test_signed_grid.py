"""A grid that signs requests and takes only replies that their site signed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from tiny_federation import Lines

from fedrag.coordinator.signed_grid import Member, SignedGrid
from fedrag.federation.signing import Slip, verified_slip, with_signature
from fedrag.grids.in_process import InProcessGrid
from fedrag.grids.local import FIRST_NODE_ID
from fedrag.security.keys import load_private_key, new_key

NAMES = ("north", "south")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("coordinator", *NAMES):
        new_key(folder / f"{name}.key")
    return {name: load_private_key(folder / f"{name}.key") for name in ("coordinator", *NAMES)}


def answers_as(keys, change=lambda slip: slip, signer=lambda name: name):
    """Return a client app that answers as its site, unless told to change its slip or its key."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        name = str(context.node_config["site-name"])
        asked = verified_slip(message.content, "request", keys["coordinator"].public_key())
        slip = change(Slip("reply", asked.run, asked.request, name, asked.kind, asked.version, asked.time))
        told = RecordDict({"told": ConfigRecord({"site": name})})
        return Message(with_signature(told, slip, keys[signer(name)]), reply_to=message)

    return app


def exchange(keys, app):
    lines = Lines()
    inner = InProcessGrid(app, [{"site-name": name} for name in NAMES])
    members = [Member(FIRST_NODE_ID + i, name, keys[name].public_key()) for i, name in enumerate(NAMES)]
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: members, lines)
    messages = [grid.create_message(RecordDict(), "query", node, "1") for node in grid.get_node_ids()]
    return grid.send_and_receive(messages), lines


def test_each_site_reads_a_request_of_its_own_and_is_believed(keys):
    replies, lines = exchange(keys, answers_as(keys))
    assert [reply.content["told"]["site"] for reply in replies] == list(NAMES)
    assert lines.said == []


def test_a_request_names_the_site_it_is_for(keys):
    seen = []

    def remember(slip):
        seen.append(slip.site)
        return slip

    exchange(keys, answers_as(keys, remember))
    assert seen == list(NAMES)


@pytest.mark.parametrize(
    "change",
    [
        lambda slip: replace(slip, role="request"),
        lambda slip: replace(slip, run="tiny-2"),
        lambda slip: replace(slip, request="00" * 16),
        lambda slip: replace(slip, site="north"),
        lambda slip: replace(slip, kind="train.round"),
    ],
    ids=["role", "run", "request", "site", "kind"],
)
def test_a_reply_that_is_not_to_its_request_is_an_error(keys, change):
    replies, lines = exchange(keys, answers_as(keys, lambda slip: change(slip) if slip.site == "south" else slip))
    assert [reply.has_error() for reply in replies] == [False, True]
    assert lines.text.startswith("south: the reply ")


def test_a_site_cannot_sign_for_another(keys):
    replies, lines = exchange(keys, answers_as(keys, signer=lambda name: "south"))
    assert [reply.has_error() for reply in replies] == [True, False]
    assert lines.said == ["north: the reply is signed with another key, or was changed on its way"]
