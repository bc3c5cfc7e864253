"""A grid that signs requests and takes only replies that their site signed."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from tiny_federation import Lines

from fedrag.coordinator import signed_grid
from fedrag.coordinator.conduct import Conduct
from fedrag.coordinator.signed_grid import Member, SignedGrid
from fedrag.federation.greeting import PEERS, with_agreement
from fedrag.federation.messages import GREET, Request, request_content
from fedrag.federation.signing import Slip, verified_slip, with_signature
from fedrag.grids.in_process import InProcessGrid
from fedrag.grids.local import FIRST_NODE_ID, error_reply
from fedrag.secure_sum.roster import is_signed_by, signed_member
from fedrag.security.keys import load_private_key, new_key, public_key_text

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


def nothing_held() -> Conduct:
    return Conduct(Path(tempfile.mkdtemp()))


class LosingGrid(InProcessGrid):
    """A grid in which the first messages that are asked for are lost, as when a node dies with one."""

    def __init__(self, *args, lose):
        super().__init__(*args)
        self._lose = lose

    def pull_messages(self, message_ids):
        if self._lose and (waiting := [message_id for message_id in message_ids if message_id in self._waiting]):
            self._lose -= 1
            lost = self._waiting.pop(waiting[0])
            return [error_reply(lost, ErrorCode.NODE_UNAVAILABLE, "gone")]
        return super().pull_messages(message_ids)


def exchange(keys, app, lose=0, came=lambda: ""):
    lines = Lines()
    inner = LosingGrid(app, [{"site-name": name} for name in NAMES], lose=lose)

    def members():
        return [Member(FIRST_NODE_ID + i, name, keys[name].public_key(), came()) for i, name in enumerate(NAMES)]

    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], members, lines, nothing_held())
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


def test_a_request_that_was_lost_is_sent_again_with_the_same_id(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    seen = []

    def remember(slip):
        seen.append((slip.site, slip.request))
        return slip

    replies, lines = exchange(keys, answers_as(keys, remember), lose=3)
    assert sorted(reply.content["told"]["site"] for reply in replies) == list(NAMES)
    assert len(seen) == len(set(seen)) == 2
    assert lines.said == []


def test_a_site_that_came_anew_is_asked_again_and_its_first_reply_counts(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    times = iter(range(1000))
    replies, _ = exchange(keys, answers_as(keys), came=lambda: str(next(times)))
    assert sorted(reply.content["told"]["site"] for reply in replies) == list(NAMES)


def test_a_site_that_stays_away_is_given_up(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    monkeypatch.setattr(signed_grid, "PATIENCE_S", 0.0)
    monkeypatch.setattr(SignedGrid, "online", lambda self: self._known)
    inner = LosingGrid(answers_as(keys), [{"site-name": "north"}], lose=1)
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], list, Lines(), nothing_held())
    grid._known = {FIRST_NODE_ID: Member(FIRST_NODE_ID, "north", keys["north"].public_key())}
    ids = grid.push_messages([grid.create_message(RecordDict(), "query", FIRST_NODE_ID, "1")])
    grid._known = {}
    replies = grid.pull_messages(ids) + grid.pull_messages(ids)
    assert [reply.has_error() for reply in replies] == [True]
    assert replies[0].metadata.reply_to_message_id == ids[0]


def test_a_site_that_was_lost_a_moment_ago_is_waited_for(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    members = [Member(FIRST_NODE_ID, "north", keys["north"].public_key())]
    inner = LosingGrid(answers_as(keys), [{"site-name": "north"}], lose=1)
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: members, Lines(), nothing_held())
    ids = grid.push_messages([grid.create_message(RecordDict(), "query", node, "1") for node in grid.get_node_ids()])
    away, members[:] = list(members), []
    assert [grid.pull_messages(ids) for _ in range(3)] == [[], [], []]
    members[:] = away
    replies = grid.pull_messages(ids) + grid.pull_messages(ids)
    assert [reply.content["told"]["site"] for reply in replies] == ["north"]


class TwoRepliesAtOnce(InProcessGrid):
    """A grid that keeps replies back until two can be handed over in one pull, as a SuperLink hands over all it has."""

    def __init__(self, *args):
        super().__init__(*args)
        self._ready = []

    def pull_messages(self, message_ids):
        self._ready += super().pull_messages(message_ids)
        if len(self._ready) < 2:
            return []
        ready, self._ready = self._ready, []
        return ready


def test_of_two_copies_that_are_answered_at_once_one_reply_counts(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    monkeypatch.setattr(signed_grid, "FIRST_COPY_S", 0.0)
    inner = TwoRepliesAtOnce(answers_as(keys), [{"site-name": "north"}])
    member = Member(FIRST_NODE_ID, "north", keys["north"].public_key())
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: [member], Lines(), nothing_held())
    ids = grid.push_messages([grid.create_message(RecordDict(), "query", node, "1") for node in grid.get_node_ids()])
    assert grid.pull_messages(ids) == []  # the first copy's reply is kept back, and the second copy is sent
    (reply,) = grid.pull_messages(ids)
    assert reply.content["told"]["site"] == "north"
    assert reply.metadata.reply_to_message_id == ids[0]
    assert grid.pull_messages(ids) == []


def test_a_request_that_nobody_answers_is_sent_again_less_and_less_often(keys, monkeypatch):
    monkeypatch.setattr(signed_grid, "LOOK_S", 0.0)
    monkeypatch.setattr(signed_grid, "FIRST_COPY_S", 0.05)
    inner = LosingGrid(answers_as(keys), [{"site-name": "north"}], lose=0)
    pushed = []
    monkeypatch.setattr(inner, "pull_messages", lambda ids: [])
    monkeypatch.setattr(inner, "push_messages", lambda messages: [pushed.append(time.monotonic()) or str(len(pushed))])
    member = Member(FIRST_NODE_ID, "north", keys["north"].public_key())
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: [member], Lines(), nothing_held())
    ids = grid.push_messages([grid.create_message(RecordDict(), "query", node, "1") for node in grid.get_node_ids()])
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        assert grid.pull_messages(ids) == []
        time.sleep(0.01)
    waits = [later - earlier for earlier, later in zip(pushed, pushed[1:], strict=False)]
    assert len(waits) == 3  # after 0.05, 0.2 and 0.8 s
    assert all(wait > 0.9 * 0.05 * 4**number for number, wait in enumerate(waits))


def test_a_site_that_is_late_is_greeted_which_ends_its_work_and_nothing_of_it_is_waited_for(keys):
    inner = InProcessGrid(answers_as(keys), [{"site-name": name} for name in NAMES])
    members = [Member(FIRST_NODE_ID + i, name, keys[name].public_key()) for i, name in enumerate(NAMES)]
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: members, Lines(), nothing_held())
    content = request_content(Request("name = 'tiny'", 3))
    ids = grid.push_messages([grid.create_message(content, "query", node, "3") for node in grid.get_node_ids()])
    assert len(grid.pull_messages(ids[:1])) == 1
    grid.withdraw(ids[1:])
    last = list(inner._waiting.values())[-1]
    slip = verified_slip(last.content, "request", keys["coordinator"].public_key())
    assert (slip.site, slip.kind, last.metadata.message_type) == ("south", GREET, GREET)
    assert last.content["request"]["scenario"] == "name = 'tiny'"
    assert grid.pull_messages(ids[1:]) == []
    assert grid._asked == {}


def bad_replies(keys, app) -> dict[str, int]:
    conduct = nothing_held()
    inner = InProcessGrid(app, [{"site-name": "north"}])
    member = Member(FIRST_NODE_ID, "north", keys["north"].public_key())
    grid = SignedGrid(inner, "tiny-1", keys["coordinator"], lambda: [member], Lines(), conduct)
    grid.send_and_receive([grid.create_message(RecordDict(), "query", node, "1") for node in grid.get_node_ids()])
    return {name: site.bad_replies for name, site in conduct.sites().items()}


def test_a_reply_with_anothers_signature_is_held_against_its_site(keys):
    assert bad_replies(keys, answers_as(keys)) == {}
    assert bad_replies(keys, answers_as(keys, signer=lambda name: "south")) == {"north": 1}
    assert bad_replies(keys, answers_as(keys, lambda slip: replace(slip, request="other"))) == {"north": 1}


def test_a_site_that_could_not_tell_what_it_was_asked_may_refuse(keys):
    """As one does that holds an earlier key of the coordinator, or takes no message this large."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        slip = Slip("reply", "", "", "north", "query", "0", time.time())
        refusal = RecordDict({"refusal": ConfigRecord({"code": "bad-signature", "error-id": "00000000"})})
        return Message(with_signature(refusal, slip, keys["north"]), reply_to=message)

    assert bad_replies(keys, app) == {}


def test_a_greeting_tells_the_other_sites_and_brings_an_agreement_key_that_is_kept_if_it_is_signed(keys):
    """South tells one that north has signed."""
    seen, kept = [], []
    app = ClientApp()

    @app.query(GREET.partition(".")[2])
    def greet(message, context):
        name = str(context.node_config["site-name"])
        asked = verified_slip(message.content, "request", keys["coordinator"].public_key())
        seen.append(dict(message.content[PEERS]))
        told = with_agreement(RecordDict(), signed_member(name, name.encode().ljust(32), keys["north"]))
        slip = Slip("reply", asked.run, asked.request, name, asked.kind, asked.version, asked.time)
        return Message(with_signature(told, slip, keys[name]), reply_to=message)

    def learn(member):
        if is_signed_by(member, keys[member.name].public_key()):
            kept.append(member.name)
            return True
        return False

    inner = LosingGrid(app, [{"site-name": name} for name in NAMES], lose=0)
    members = [Member(FIRST_NODE_ID + i, name, keys[name].public_key()) for i, name in enumerate(NAMES)]
    peers = {name: public_key_text(keys[name].public_key()) for name in NAMES}
    args = ("tiny-1", keys["coordinator"], lambda: members, Lines(), nothing_held(), learn, peers)
    grid = SignedGrid(inner, *args)
    grid.send_and_receive([grid.create_message(RecordDict(), GREET, node, "0") for node in grid.get_node_ids()])
    assert seen == [peers, peers]
    assert kept == ["north"]
    assert {node: member.name for node, member in grid.members.items()} == {FIRST_NODE_ID: "north"}
    first = grid.members[FIRST_NODE_ID]
    members[0] = replace(members[0], agreement=first)
    again = SignedGrid(inner, *args)  # as after a crash of the executor
    again.send_and_receive([again.create_message(RecordDict(), GREET, node, "0") for node in again.get_node_ids()])
    assert again.members[FIRST_NODE_ID] == first, "the same signature: a sum that is asked for again is the same"
