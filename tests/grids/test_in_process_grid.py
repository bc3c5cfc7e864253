import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy_clients import ALL_SCALED, NODE_CONFIGS, build_app, messages, numbers_by_site

from fedrag.errors import MessageError
from fedrag.grids.in_process import InProcessGrid


@pytest.fixture
def grid():
    return InProcessGrid(build_app(), NODE_CONFIGS)


def test_every_client_answers_with_its_own_node_config(grid):
    replies = grid.send_and_receive(messages(grid))
    assert numbers_by_site(grid, replies) == ALL_SCALED
    assert [reply.content["node"]["id"] for reply in replies] == grid.get_node_ids()


def test_nodes_have_stable_ids_and_the_names_of_their_sites(grid):
    again = InProcessGrid(build_app(), NODE_CONFIGS)
    assert grid.get_node_ids() == again.get_node_ids() == [2, 3, 4, 5]
    assert [(node.node_id, node.name) for node in grid.get_nodes()] == [
        (2, "a"),
        (3, "b"),
        (4, "c"),
        (5, "d"),
    ]


def test_the_agreement_keys_of_all_sites_are_found_once(monkeypatch):
    """Each greeting asks for them: of 10,000 sites 415 had greeted when the time was up."""
    found: list[bytes] = []
    monkeypatch.setattr("fedrag.grids.local.agreement_public", lambda seed: found.append(seed) or "public")
    many = InProcessGrid(build_app(), [{**config, "agreement-key": "0a" * 32} for config in NODE_CONFIGS])
    assert [many.members[node].name for node in many.get_node_ids()] == ["a", "b", "c", "d"]
    assert len(many.members) == len(found) == 4


def test_a_pull_runs_one_client_and_only_one_of_those_asked_for(grid):
    ids = grid.push_messages(messages(grid))
    (reply,) = grid.pull_messages(ids[2:])
    assert reply.metadata.reply_to_message_id == ids[2]
    (reply,) = grid.pull_messages(ids)
    assert reply.metadata.reply_to_message_id == ids[0]
    assert grid.pull_messages([ids[0], ids[2]]) == []  # a reply is handed out once


def test_message_ids_are_unique_hex(grid):
    ids = [*grid.push_messages(messages(grid)), *grid.push_messages(messages(grid))]
    replies = [reply for _ in ids for reply in grid.pull_messages(ids)]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids
    assert len({*ids, *(reply.metadata.message_id for reply in replies)}) == 16
    assert all(len(bytes.fromhex(message_id)) == 16 for message_id in ids)


def test_what_a_client_or_the_server_changes_after_the_push_reaches_nobody_else(grid):
    batch = messages(grid)
    ids = grid.push_messages(batch)
    batch[0].content["state"].clear()
    replies = [reply for _ in ids for reply in grid.pull_messages(ids)]
    assert numbers_by_site(grid, replies) == ALL_SCALED


def test_one_content_for_all_is_kept_once_and_what_a_client_changes_reaches_no_other():
    seen = []
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen.append(message.content["numbers"]["n"])
        message.content["numbers"]["n"] = 99
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, NODE_CONFIGS)
    content = RecordDict({"numbers": ConfigRecord({"n": 1})})
    ids = grid.push_messages([Message(content, node, "train") for node in grid.get_node_ids()])
    assert len({id(message.content) for message in grid._waiting.values()}) == 1
    content["numbers"]["n"] = 2
    for _ in ids:
        grid.pull_messages(ids)
    assert seen == [1] * 4


def test_a_raising_client_gives_an_error_reply_with_the_class_name_only(grid, caplog):
    replies = grid.send_and_receive(messages(grid, "train.fail"))
    assert numbers_by_site(grid, replies) == {**ALL_SCALED, "b": (2, "FileNotFoundError")}
    assert "client b failed" in caplog.text
    assert "/srv/patients" in caplog.text  # the person at this machine is told the whole story


def test_a_client_that_returns_nothing_gives_an_error_reply(grid):
    replies = grid.send_and_receive(messages(grid, "train.nothing"))
    assert [reply.has_error() for reply in replies] == [True] * 4


def test_an_unknown_action_gives_an_error_reply(grid):
    replies = grid.send_and_receive(messages(grid, "evaluate"))
    assert {reply.error.reason for reply in replies} == {"ValueError"}


def test_ctrl_c_passes_through(grid):
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive(messages(grid, "train.interrupt"))


def test_a_message_past_its_time_to_live_is_forgotten_at_the_next_push(grid):
    late = grid.push_messages(messages(grid, ttl=1e-6))
    grid.push_messages(messages(grid))
    assert grid.pull_messages(late) == []


def test_what_nobody_waits_for_any_more_is_not_done(grid):
    ids = grid.push_messages(messages(grid))
    grid.withdraw(ids[1:])
    assert grid.pull_messages(ids[1:]) == []
    assert len(grid.pull_messages(ids)) == 1


def test_a_timeout_leaves_the_rest_undone(grid):
    assert grid.send_and_receive(messages(grid), timeout=0.0) == []


def test_a_message_to_an_unknown_node_is_refused(grid):
    with pytest.raises(MessageError, match="node 99"):
        grid.push_messages([Message(RecordDict(), 99, "train")])
