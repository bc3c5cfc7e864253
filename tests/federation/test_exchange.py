"""Who takes part, and waiting that always ends."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from tiny_federation import Lines, tiny_config

from fedrag import __version__
from fedrag.components.base_models import base_identities, base_tensor_hashes
from fedrag.config.run_settings import FederationConfig
from fedrag.config.schedule import sites_asked
from fedrag.errors import QuorumError
from fedrag.federation.exchange import Federation, KnownSite, ask, replies_as_they_come
from fedrag.federation.greeting import Greeting, greeting_content
from fedrag.federation.messages import GREET, TRAIN, Reply, Request, open_request, reply_content, request_content
from fedrag.federation.taking_part import choose_sites, greet_sites
from fedrag.federation.update import manifest_of
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("tiny_home")

CONFIG = tiny_config(federation={"min_sites": 1, "greeting_timeout_s": 0.5})
COUNTS = {"train_questions": 4, "answered_questions": 4, "labelled_questions": 4, "validation_questions": 0}


def greeter(told):
    """Return a client app in which each client greets as it is told, or refuses."""
    app = ClientApp()

    @app.query(GREET.partition(".")[2])
    def greet(message, context):
        greeting = told[context.node_config["site-name"]]
        if greeting is None:
            content = reply_content(Reply(refusal="bad-data", error_id="00000000"), {}, "float32")
            return Message(content, reply_to=message)
        return Message(greeting_content(greeting), reply_to=message)

    return app


def greeting(name, counts=COUNTS, **changed):
    """Return the greeting of a site; of the models that are named, some parts are others."""
    models = base_identities(CONFIG)
    models |= {key: replace(models[key], **dict.fromkeys(parts, "f00")) for key, parts in changed.items()}
    return Greeting(name, __version__, counts, models)


def greet(grid, config, display):
    return greet_sites(Federation(grid, RunFolder(Path(), config), display=display))


def grid_of(told, kind=InProcessGrid):
    return kind(greeter(told), [{"site-name": node} for node in told])


class SilentGrid(InProcessGrid):
    """The last node never answers."""

    def pull_messages(self, message_ids):
        last = max(self.get_node_ids())
        silent = {key for key, message in self._waiting.items() if message.metadata.dst_node_id == last}
        return super().pull_messages(set(message_ids) - silent)


class GrowingGrid(InProcessGrid):
    """One more node is online each time somebody looks, or every second time."""

    seen = 0
    looks_for_one = 1

    def get_node_ids(self):
        self.seen += 1
        return super().get_node_ids()[: -(-self.seen // self.looks_for_one)]


class SlowlyGrowingGrid(GrowingGrid):
    looks_for_one = 2


def test_sites_come_in_order_of_name_whatever_their_nodes():
    sites = greet(grid_of({"1": greeting("zoe"), "2": greeting("ada")}), CONFIG, Lines())
    assert [(site.name, site.node_id) for site in sites] == [("ada", 3), ("zoe", 2)]


@pytest.mark.parametrize("first", ["other", "good"])
def test_a_site_with_other_base_models_takes_no_part_whoever_comes_first(first):
    """The site first in order of name used to be the measure: a wrong one shut out all the others."""
    wrong = greeting("a" if first == "other" else "z", retriever=["tensors"])
    told = {"1": wrong, "2": greeting("m"), "3": greeting("n", generator=["tensors"])}
    display = Lines()
    assert [site.name for site in greet(grid_of(told), CONFIG, display)] == ["m"]
    for name, key, model in (
        (wrong.name, "retriever", "fedrag/tiny-encoder"),
        ("n", "generator", "fedrag/tiny-causal"),
    ):
        assert (
            f"{name} takes no part: the tensors of its {key} differ from the server's; fetch the same files of {model} "
            "at both, and compare the output of: fedrag models list --json"
        ) in display.said


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"generator": ["template"]}, "the chat template of its generator differs from"),
        ({"generator": ["tokenizer"]}, "the tokenizer of its generator differs from"),
        ({"generator": ["configuration"]}, "the configuration of its generator differs from"),
        ({"retriever": ["prompts"]}, "the prompts of its retriever differ from"),
        (
            {"retriever": ["prompts"], "generator": ["tokenizer", "template"]},
            "the prompts of its retriever and the tokenizer and the chat template of its generator differ from",
        ),
    ],
)
def test_each_part_in_which_a_site_differs_is_named(changed, told):
    display = Lines()
    grid = grid_of({"1": greeting("a", **changed), "2": greeting("b")})
    assert [site.name for site in greet(grid, CONFIG, display)] == ["b"]
    assert display.said[0].startswith(f"a takes no part: {told} the server's; fetch the same files of")


def test_a_site_that_tells_nothing_of_its_models_takes_no_part():
    display = Lines()
    silent = Greeting("a", __version__, COUNTS, {})
    assert [site.name for site in greet(grid_of({"1": silent, "2": greeting("b")}), CONFIG, display)] == ["b"]
    assert "the tensors and the tokenizer and the chat template" in display.said[0]


def test_a_site_of_another_minor_version_is_refused_by_name():
    older, newer = replace(greeting("a"), version="0.1.9"), replace(greeting("b"), version=f"{__version__}.post1")
    display = Lines()
    assert [site.name for site in greet(grid_of({"1": older, "2": newer}), CONFIG, display)] == ["b"]
    assert display.said == [f"a takes no part: it runs fedrag 0.1.9, the server {__version__}"]


def test_the_generator_is_compared_only_where_a_round_uses_it():
    retriever_only = tiny_config(federation={"schedule": "retriever"})
    assert list(base_tensor_hashes(retriever_only)) == ["retriever"]
    scored = tiny_config(federation={"schedule": "retriever"}, retriever={"loss": "lsr"})
    assert set(base_tensor_hashes(scored)) == {"retriever", "generator"}


def test_of_two_clients_with_one_name_the_second_takes_no_part():
    display = Lines()
    told = {"1": greeting("a"), "2": greeting("a"), "3": greeting("b")}
    sites = greet(grid_of(told), CONFIG, display)
    assert [(site.name, site.node_id) for site in sites] == [("a", 2), ("b", 4)]
    assert display.said == ["a second client calls itself a; it takes no part"]


def test_a_client_that_refuses_to_greet_is_counted_out_with_its_reason():
    display = Lines()
    sites = greet(grid_of({"1": greeting("a"), "2": None}), CONFIG, display)
    assert [site.name for site in sites] == ["a"]
    assert display.said == [
        "client 2 takes no part: its data is malformed (bad-data; error 00000000 in the site's log)"
    ]


def test_sites_with_nothing_to_train_on_sit_out():
    nothing = {**COUNTS, "train_questions": 0, "answered_questions": 0, "labelled_questions": 0}
    unlabelled = {**COUNTS, "labelled_questions": 0}
    told = {"1": greeting("a", nothing), "2": greeting("b", unlabelled), "3": greeting("c")}
    display = Lines()
    patient = tiny_config(federation={"greeting_timeout_s": 20.0})  # all answer at once, if a busy machine lets them
    assert [site.name for site in greet(grid_of(told), patient, display)] == ["b", "c"]
    assert display.said == ["a sits out: it has no training questions"]


def test_a_site_without_answers_sits_out_a_run_of_the_generator_alone():
    told = {"1": greeting("a", {**COUNTS, "answered_questions": 0}), "2": greeting("b")}
    display = Lines()
    config = tiny_config(federation={"greeting_timeout_s": 20.0, "schedule": "generator", "min_sites": 1})
    assert [site.name for site in greet(grid_of(told), config, display)] == ["b"]
    assert display.said == ["a sits out: it has no answered training questions"]


def test_the_wait_for_silent_nodes_ends():
    grid = grid_of({"1": greeting("a"), "2": greeting("b")}, SilentGrid)
    started, display = time.monotonic(), Lines()
    sites = greet(grid, CONFIG, display)
    assert [site.name for site in sites] == ["a"]
    assert 0.5 <= time.monotonic() - started < 5
    assert display.said == ["going on without 1 of 2 clients: no answer within 0.5 s"]


def test_too_few_sites_stop_the_run_after_the_wait():
    config = tiny_config(federation={"min_sites": 3, "greeting_timeout_s": 0.5})
    started = time.monotonic()
    with pytest.raises(QuorumError, match="2 sites can take part, at least 3 are needed"):
        greet(grid_of({"1": greeting("a"), "2": greeting("b")}), config, Lines())
    assert 0.5 <= time.monotonic() - started < 5


def test_sites_that_come_online_one_by_one_are_waited_for():
    config = tiny_config(federation={"min_sites": 2, "greeting_timeout_s": 20.0})
    grid = grid_of({"1": greeting("a"), "2": greeting("b")}, GrowingGrid)
    assert [site.name for site in greet(grid, config, Lines())] == ["a", "b"]


def go_on(told, before, folder, kind=InProcessGrid, **settings):
    """Greet in a run that had sites before; return who is there, and what was said."""
    config = tiny_config(federation={"min_sites": 1, "greeting_timeout_s": 20.0, **settings})
    run, display = RunFolder(folder, config), Lines()
    run.record_sites({name: {} for name in before})
    sites = greet_sites(Federation(grid_of(told, kind), run, display=display))
    return [site.name for site in sites], display.said


def test_a_run_that_goes_on_waits_for_the_sites_that_it_had(tmp_path):
    told = {"1": greeting("a"), "2": greeting("b")}
    assert go_on(told, ["a", "b"], tmp_path, SlowlyGrowingGrid) == (
        ["a", "b"],
        ["waiting for b, which took part before"],
    )


def test_a_run_that_goes_on_does_so_without_a_site_that_never_comes_back(tmp_path):
    sites, said = go_on({"1": greeting("a")}, ["a", "b", "c"], tmp_path, greeting_timeout_s=1.5)
    assert sites == ["a"]
    assert said == ["waiting for b, c, which took part before", "going on without b, c: not back within 1.5 s"]


def test_a_run_that_goes_on_does_not_wait_for_a_site_that_now_refuses(tmp_path):
    started = time.monotonic()
    sites, _ = go_on({"1": greeting("a"), "2": None}, ["a", "b"], tmp_path)
    assert sites == ["a"]
    assert time.monotonic() - started < 15


def test_replies_that_never_come_do_not_hold_up_the_others():
    grid = grid_of({str(n): greeting(str(n)) for n in range(6)}, SilentGrid)
    messages = [grid.create_message(RecordDict(), "query.nothing", node, "0") for node in grid.get_node_ids()]
    started = time.monotonic()
    nodes = [node for _, node in replies_as_they_come(grid, messages, 0.3)]
    assert sorted(nodes) == grid.get_node_ids()[:-1]
    assert 0.3 <= time.monotonic() - started < 5


class AnonymousGrid(InProcessGrid):
    """Answers as Flower does for a node it has lost: the error names no node."""

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = 1
        return replies


def test_a_reply_belongs_to_the_node_whose_message_it_answers():
    grid = grid_of({"1": None, "2": None}, AnonymousGrid)
    messages = [grid.create_message(RecordDict(), "query.nothing", node, "0") for node in grid.get_node_ids()]
    assert [(reply.has_error(), node) for reply, node in replies_as_they_come(grid, messages, 5.0)] == [
        (True, 2),
        (True, 3),
    ]


def known(*names):
    return [KnownSite(node, Greeting(name, "1", COUNTS, {})) for node, name in enumerate(names)]


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 5), (0.6, 3), (0.41, 3), (0.2, 1), (0.01, 1)])
def test_a_fraction_is_rounded_up_to_whole_sites(fraction, count):
    chosen = choose_sites(known(*"abcde"), sites_asked(FederationConfig(fraction=fraction), 5), seed=0)
    assert len(chosen) == count
    assert [site.name for site in chosen] == sorted(site.name for site in chosen)


def test_the_draw_depends_on_the_seed_alone_and_reaches_every_site():
    draws = [tuple(site.name for site in choose_sites(known(*"abcde"), 2, seed)) for seed in range(30)]
    assert draws == [tuple(site.name for site in choose_sites(known(*"abcde"), 2, seed)) for seed in range(30)]
    assert {name for draw in draws for name in draw} == set("abcde")


def trainer(refusing=()):
    """Return a client app whose clients add 1 to the state, or refuse."""
    app = ClientApp()

    @app.train(TRAIN.partition(".")[2])
    def train(message, context):
        if context.node_config["site-name"] in refusing:
            return Message(reply_content(Reply(refusal="bad-data"), {}, "float32"), reply_to=message)
        state = open_request(message).state
        manifests = {c: manifest_of(tensors) for c, tensors in state.items()}
        update = {c: np.ones(manifest.size, np.float32) for c, manifest in manifests.items()}
        reply = Reply(update, dict.fromkeys(update, 1), {"retriever.loss": 2.0, "generator.loss": 3.0})
        return Message(reply_content(reply, manifests, "float32"), reply_to=message)

    return app


def asked(grid, names, **settings):
    request = Request("", 1, {"retriever": {"a": np.zeros(4, np.float32)}}, ("retriever",), **settings)
    sites = [KnownSite(node, greeting(name)) for node, name in zip(grid.get_node_ids(), names, strict=True)]
    return ask(grid, TRAIN, request, request_content(request), sites)


def test_asking_yields_each_site_with_its_reply_or_with_what_is_wrong_and_the_silent_ones_last(monkeypatch):
    monkeypatch.setattr("fedrag.federation.exchange.SAFETY_S", 0.2)
    names = ("a", "b", "c")
    grid = SilentGrid(trainer(refusing=("a",)), [{"site-name": name} for name in names])
    told = [(site.name, reply) for site, reply in asked(grid, names, deadline_s=0.1)]
    assert [name for name, _ in told] == ["a", "b", "c"]
    refused, reply, silent = (reply for _, reply in told)
    assert str(refused).startswith("its data is malformed (bad-data")
    assert str(silent) == "no reply within 0.1 s"
    assert (reply.num_examples, reply.metrics) == ({"retriever": 1}, {"retriever.loss": 2.0})
    assert reply.n_bytes > 4 * 4


def test_of_a_reply_s_numbers_those_of_components_that_were_asked_for_are_read():
    names = ("a",)
    grid = InProcessGrid(trainer(), [{"site-name": "a"}])
    [(_, reply)] = asked(grid, names, deadline_s=5.0)
    assert "generator.loss" not in reply.metrics
