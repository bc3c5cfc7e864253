"""Rounds by secure sum on tiny random models: the same sum to the bit, and nothing of a single site."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import Context, Message
from tiny_federation import (
    Lines,
    assert_same_state,
    client_folders,
    federate,
    is_changed,
    largest_difference,
    node_configs,
    tiny_config,
    with_faults,
    write_small_sites,
)

from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError, QuorumError
from fedrag.federation.messages import GREET, TRAIN, VALIDATE, Request, array_bytes, open_request
from fedrag.federation.secure_messages import REVEAL, context_of, open_masked, reveal_content, terms_of
from fedrag.federation.secure_vector import train_layout
from fedrag.federation.signing import content_digest
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.run_folder import RunFolder
from fedrag.secure_sum.masking import OpenRound, RevealRequest
from fedrag.secure_sum.unmasking import MaskedSum
from fedrag.seeding import derive_seed
from fedrag.site.client_app import make_client_app
from fedrag.site.secure_round import secure_folder
from fedrag.site.site_config import Policy
from fedrag.site.steps import train_site

pytestmark = pytest.mark.usefixtures("tiny_home")

ROUND = {
    **{"rounds": 1, "schedule": "generator", "secure": True, "secure_colluding": 0},
    **{"secure_clip_norm": 1.0, "secure_max_examples": 16},  # as small as these sites are: hardly any rounding
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    """Four sites with unequal numbers of questions."""
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=5, c=4, d=6)


def secure_config(sites, **federation):
    return tiny_config(sites, federation={**ROUND, **federation})


def vanish(message, context, real):
    raise ConnectionError("gone")


def weighted_sum(config, folders, tmp_path):
    """Return the sum over sites of what they train from the start, in whole numbers of Python, and what to divide by.

    Every element is rounded as the protocol says, from the same chance, in exact fractions.
    """
    settings = config.federation
    request = Request(config.to_toml(), 1, initial_state(config, ("generator",)), ("generator",), {"generator": 0})
    limit = (2**31 - 1) // len(folders)
    scale = 1
    while 2 * scale * settings.secure_clip_norm * settings.secure_max_examples <= limit:
        scale *= 2
    total, weights = [0] * request.manifest("generator").size, 0
    for folder in folders:
        site = load_site(folder)
        bench = Workbench(site, tmp_path / "cache", tmp_path / "scores", config)
        reply = train_site(bench, request)
        weight = reply.num_examples["generator"]
        seed = derive_seed(config.seed, 1, site.name, "secure rounding", TRAIN)
        chance = bytearray(hashlib.sha256(str(seed).encode()).digest())
        chance[-1] ^= 1  # the first component's
        draws = np.frombuffer(ctr_stream(bytes(chance), 4 * len(total)), "<u4")
        for i, (value, draw) in enumerate(zip(reply.update["generator"].tolist(), draws.tolist(), strict=True)):
            exact = Fraction(value) * weight * scale
            whole = exact.numerator // exact.denominator
            total[i] += whole + (Fraction(draw, 2**32) < exact - whole)
        weights += weight
    return request, total, weights * scale


def ctr_stream(key: bytes, count: int) -> bytes:
    from Crypto.Cipher import AES
    from Crypto.Util import Counter

    return AES.new(key, AES.MODE_CTR, counter=Counter.new(128, initial_value=0)).encrypt(bytes(count))


def test_a_round_gives_the_plain_sum_of_the_same_whole_numbers_to_the_bit(sites, tmp_path):
    config = secure_config(sites)
    state, run = federate(config, tmp_path / "run")
    request, total, divisor = weighted_sum(config, client_folders(config), tmp_path)
    mean = np.array([float(Fraction(whole, divisor)) for whole in total], np.float32)
    before = np.concatenate([tensor.reshape(-1) for tensor in request.state["generator"].values()])
    after = np.concatenate([tensor.reshape(-1) for tensor in state["generator"].values()])
    np.testing.assert_array_equal(after, before + mean)
    told = run.rounds()[0]
    assert told["together"]["generator.examples"] == 3 + 5 + 4 + 6
    assert {key for site in told["sites"].values() for key in site} == {"bytes"}


def test_what_a_site_tells_apart_is_that_it_is_there(sites, tmp_path):
    """No count, loss, norm or second leaves a site in the clear, whatever it is asked."""
    kinds = {}

    def watched(message, context):
        reply = make_client_app()(message, context)
        kinds.setdefault(message.metadata.message_type, []).append(reply.content)
        return reply

    federate(secure_config(sites, keep="best", schedule="joint"), tmp_path / "run", app=watched)
    assert set(kinds) >= {GREET, TRAIN, VALIDATE, REVEAL}
    for kind in (GREET, TRAIN, VALIDATE, REVEAL):
        for content in kinds[kind]:
            numbers = {key: value for record in content.metric_records.values() for key, value in record.items()}
            assert set(numbers.values()) <= {0, 1}, kind
    for kind in (TRAIN, VALIDATE):
        assert all(set(content) == {"masked", "sealed"} for content in kinds[kind])
    assert all(set(content) == {"revealed"} for content in kinds[REVEAL])


@pytest.mark.parametrize(
    "federation",
    [
        {"schedule": "joint", "rounds": 2, "keep": "best"},
        {"rule": "ffa", "weighting": "equal"},
        {"rule": "rolora", "rounds": 2, "proximal_mu": 0.1},
        {"server_optimizer": "adam", "secure_bits": 64},
    ],
    ids=["joint", "ffa", "rolora", "adam"],
)
def test_rules_and_optimizers_of_sums_give_what_they_give_without_masks(sites, tmp_path, federation):
    plain = {name: value for name, value in federation.items() if not name.startswith("secure")}
    without = tiny_config(sites, federation={**{"rounds": 1, "schedule": "generator"}, **plain})
    expected, plain_run = federate(without, tmp_path / "plain")
    state, run = federate(secure_config(sites, **federation), tmp_path / "secure")
    assert is_changed(state, initial_state(without, ("generator",)), "generator")
    assert largest_difference(state, expected) < (2e-3 if "server_optimizer" in federation else 2e-5)
    for record, plain_record in zip(run.rounds(), plain_run.rounds(), strict=True):
        losses = [site["generator.loss"] for site in plain_record["sites"].values()]
        assert record["together"]["generator.loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        for component, score in plain_record["validation"].items():
            assert record["validation"][component] == pytest.approx(score, abs=1e-3)


def test_a_site_that_goes_before_it_masks_is_left_out_of_the_sum(sites, tmp_path):
    config, display = secure_config(sites), Lines()
    state, run = federate(config, tmp_path / "run", app=with_faults({"b": vanish}), display=display)
    assert list(run.rounds()[0]["left_out"]) == ["b"]
    three = tiny_config(sites, data={"hold_out": ["b"]}, federation={"rounds": 1, "schedule": "generator"})
    expected, _ = federate(three, tmp_path / "three")
    assert largest_difference(state, expected) < 2e-5


def test_a_survivor_that_goes_before_it_reveals_costs_the_round_which_is_asked_for_once_more(sites, tmp_path):
    times, contents = {"train": 0, "reveal": 0}, []

    def flaky(message, context):
        name, kind = context.node_config["site-name"], message.metadata.message_type
        if kind == TRAIN and name == "a":
            times["train"] += 1
            if times["train"] == 1:
                raise ConnectionError
        if kind == REVEAL and name == "c":
            times["reveal"] += 1
            if times["reveal"] == 1:
                raise ConnectionError
        reply = make_client_app()(message, context)
        if kind == TRAIN:
            contents.append((name, reply.content["masked"]["generator"].data))
        return reply

    display = Lines()
    state, run = federate(secure_config(sites), tmp_path / "run", app=flaky, display=display)
    assert "the secure sum is lost, and nothing was opened: c did not reveal" in display.text
    assert set(run.rounds()[0]["sites"]) == {"b", "c", "d"}, "b and d revealed for these, and do for no others"
    assert run.rounds()[0]["left_out"] == {"a": "it was not in the sum that was asked for before"}
    expected, _ = federate(secure_config(sites), tmp_path / "quiet", app=with_faults({"a": vanish}))
    assert_same_state(state, expected)
    of_b = [data for name, data in contents if name == "b"]
    assert len(of_b) == 2
    assert of_b[0] != of_b[1]  # masked anew under a context of its own


def test_a_round_is_lost_no_more_often_than_it_may_be(sites, tmp_path):
    config = secure_config(sites)
    app = with_faults({"a": vanish})
    reveal_lost = with_faults({"c": vanish}, REVEAL)

    def both(message, context):
        return (app if message.metadata.message_type == TRAIN else reveal_lost)(message, context)

    with pytest.raises(QuorumError, match=r"lost 2 times \(federation.secure_repeats\), .* c did not reveal"):
        federate(config, tmp_path / "run", app=both)
    for folder in (tmp_path / "run" / "sites").glob("*/secure"):
        [told] = folder.glob("*.json")
        assert len(json.loads(told.read_text())["rounds"]["1"]) == (0 if folder.parent.name == "a" else 2)


def asked(sites, tmp_path):
    """Run a round and return what one site was sent, by kind, with its context and the digest of what it answered."""
    messages: dict[str, tuple[Message, Context, bytes]] = {}

    def watched(message, context):
        reply = make_client_app()(message, context)
        if context.node_config["site-name"] == "b":
            messages[message.metadata.message_type] = message, context, content_digest(reply.content)
        return reply

    federate(secure_config(sites), tmp_path / "run", app=watched)
    return messages


def test_a_repeated_request_is_answered_with_the_stored_bytes_and_trains_nothing(sites, tmp_path):
    messages = asked(sites, tmp_path)
    for kind in (TRAIN, REVEAL):
        message, context, digest = messages[kind]
        context.node_config["site-folder"] = str(tmp_path / "nowhere")
        assert content_digest(make_client_app()(message, context).content) == digest


def test_a_site_reveals_once_and_for_no_other_survivors(sites, tmp_path):
    message, context, _ = asked(sites, tmp_path)[REVEAL]
    message.content["reveal"]["survivors"] = ["a", "b", "c"]
    refused = make_client_app()(message, context)
    assert refused.content["refusal"]["code"] == "secure-survivors"
    folder = Path(context.node_config["site-cache"]) / "secure"
    assert not list(folder.glob("*.open"))  # what takes the masks off is gone
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


def lying(sites, tmp_path):
    """Run a round of a coordinator that opens the sum of all four, and return its requests to each site, by kind."""
    sent: dict[tuple[str, str], tuple[Message, Context]] = {}

    def watched(message, context):
        sent[context.node_config["site-name"], message.metadata.message_type] = message, context
        return make_client_app()(message, context)

    federate(secure_config(sites), tmp_path / "run", app=watched)
    return sent


def asked_without_d(sent) -> dict[str, Message]:
    """Ask the others to mask the same round once more, as one that was lost, and to reveal without d."""
    replies, answered = {}, {}
    for name in "abc":
        message, context = sent[name, TRAIN]
        message.content["secure"]["attempt"] = 1
        replies[name] = make_client_app()(message, context)
    terms, request = terms_of(message.content), open_request(message)
    layout = train_layout(Config.from_toml(request.scenario).federation, request, 4)
    masked = MaskedSum(layout, terms, context_of(message.content, TRAIN, terms))
    for name, reply in replies.items():
        masked.add(name, open_masked(reply, layout, terms.roster, name))
    for name in "abc":
        context = sent[name, TRAIN][1]
        request = Message(reveal_content(masked.request_to(name)), context.node_id, REVEAL, group_id="1")
        answered[name] = make_client_app()(request, context)
    return answered


def test_a_coordinator_that_has_opened_a_sum_gets_none_of_the_same_round_without_one_site(sites, tmp_path):
    """The difference of the two would be what d sent."""
    for reply in asked_without_d(lying(sites, tmp_path)).values():
        assert reply.content["refusal"]["code"] == "secure-other-sites"


def test_a_round_without_a_site_for_whose_sum_this_one_revealed_is_not_even_masked(sites, tmp_path):
    message, context = lying(sites, tmp_path)["a", TRAIN]
    terms = message.content["secure"]
    for name in ("names", "keys", "signatures"):
        terms[name] = terms[name][:3]
    assert make_client_app()(message, context).content["refusal"]["code"] == "secure-other-sites"


def test_a_reveal_is_asked_for_under_the_run_and_the_round_of_its_sum_or_refused(sites, tmp_path):
    """Else the egress log would hold it under another run than the one that the administrators compare."""
    message, context, digest = asked(sites, tmp_path)[REVEAL]
    run = "run"  # the folder's name
    for node_run, group, code in ((run, "1", ""), ("another", "1", "secure-request"), (run, "2", "secure-request")):
        config = {**context.node_config, "run": node_run}
        sent = Message(message.content, context.node_id, REVEAL, group_id=group)
        content = make_client_app()(sent, replace(context, node_config=config)).content
        assert content["refusal"]["code"] == code if code else content_digest(content) == digest


def test_a_context_whose_reply_is_gone_is_refused_and_not_masked_again(sites, tmp_path):
    message, context, _ = asked(sites, tmp_path)[TRAIN]
    for path in (Path(context.node_config["site-cache"]) / "secure").glob("*.reply"):
        path.unlink()
    assert make_client_app()(message, context).content["refusal"]["code"] == "secure-superseded"


def test_a_site_masks_a_round_no_more_often_than_it_may(sites, tmp_path):
    message, context, _ = asked(sites, tmp_path)[TRAIN]
    for attempt, code in ((1, None), (2, "secure-repeats")):
        message.content["secure"]["attempt"] = attempt
        content = make_client_app()(message, context).content
        assert ("refusal" in content) == (code is not None)
        assert code is None or content["refusal"]["code"] == code


def test_what_the_policy_of_a_site_bounds_holds_whatever_the_scenario_says(sites, tmp_path):
    message, context, _ = asked(sites, tmp_path)[TRAIN]
    message.content["secure"]["attempt"] = 1
    for policy, code in (
        (Policy(secure_repeats=0), "secure-repeats"),  # the scenario would allow one more
        (Policy(secure_min_sites=5), "secure-survivors"),
    ):
        assert make_client_app(policy=policy)(message, context).content["refusal"]["code"] == code
    assert "refusal" not in make_client_app(policy=Policy())(message, context).content
    kept = OpenRound.from_bytes(next(secure_folder(context.node_config).glob("*.open")).read_bytes())
    request = reveal_content(RevealRequest(kept.context, tuple("abcd"), dict.fromkeys("acd", bytes(32))))
    for policy, code in ((Policy(secure_min_sites=5), "secure-survivors"), (Policy(), "secure-shares")):
        sent = Message(request, context.node_id, REVEAL, group_id="1")
        assert make_client_app(policy=policy)(sent, context).content["refusal"]["code"] == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"threshold": 2}, "secure-survivors"),
        ({"threshold": 9}, "bad-request"),
        ({"names": ["a", "b", "c", "c"]}, "bad-request"),
        ({"keys": [bytes([number]) * 32 for number in range(4)]}, "secure-roster"),
        ({"names": ["a", "c", "d", "x"]}, "secure-other-sites"),
        ({"keys": [bytes(31)] * 4}, "bad-request"),
        ({"attempt": -1}, "bad-request"),
    ],
)
def test_a_site_refuses_terms_that_would_lay_it_bare(sites, tmp_path, change, code):
    message, context, _ = asked(sites, tmp_path)[TRAIN]
    message.content["secure"]["attempt"] = 1
    for name, value in change.items():
        message.content["secure"][name] = value
    assert make_client_app()(message, context).content["refusal"]["code"] == code


def test_a_site_that_cannot_train_every_component_takes_no_part(sites, tmp_path):
    """Zeros for what it did not train would leave another site's update alone in the sum."""
    root = Path(shutil.copytree(sites, tmp_path / "sites"))
    rows = [json.loads(line) for line in (root / "a" / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("passages", None)
        row.pop("passage_ids", None)
        row.pop("passage", None)
    (root / "a" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not any(question.passage_ids for question in load_site(root / "a").train)
    config = tiny_config(root, federation={**ROUND, "schedule": "joint"}, retriever={"loss": "contrastive"})
    display = Lines()
    _, run = federate(config, tmp_path / "run", display=display)
    assert "a sits out" in display.text
    assert run.rounds()[0]["asked"] == ["b", "c", "d"]


def test_two_sites_are_refused_with_the_reason(sites, tmp_path):
    with pytest.raises(ConfigError, match="needs 3 sites, data.only names 2: of two, each would learn the other's"):
        tiny_config(sites, data={"only": ["a", "b"]}, federation=ROUND)
    config = tiny_config(sites, federation={**ROUND, "greeting_timeout_s": 0.2})
    nodes = node_configs(client_folders(config)[:2], tmp_path)
    with pytest.raises(QuorumError, match="2 sites can take part, at least 3 are needed"):
        federate(config, tmp_path / "run", nodes=nodes)
    config = tiny_config(sites, data={"hold_out": ["d"]}, federation={**ROUND, "secure_colluding": 2})
    with pytest.raises(QuorumError, match="3 sites cannot hide a site from the server and 2 others"):
        federate(config, tmp_path / "other")


def test_a_round_whose_sum_was_lost_waits_for_the_sites_of_that_sum_across_a_resumed_run(sites, tmp_path):
    """a was gone, c went before it revealed; a comes back alone: its update is the difference to the sum before."""
    gone = {"a": TRAIN, "c": REVEAL}

    def away(message, context):
        name, kind = context.node_config["site-name"], message.metadata.message_type
        if gone.get(name) == kind:
            if name == "c":
                gone.update({"a": "", "c": TRAIN})
            raise ConnectionError("gone")
        return make_client_app()(message, context)

    with pytest.raises(QuorumError, match=r"round 1: c cannot be left out .* bring them back, then resume"):
        federate(secure_config(sites), tmp_path / "run", app=away)
    without = Path(shutil.copytree(tmp_path / "run", tmp_path / "without" / "run"))
    _, run = federate(secure_config(sites), tmp_path / "run")
    assert set(run.rounds()[0]["sites"]) == {"b", "c", "d"}
    display = Lines()
    nodes = node_configs(client_folders(secure_config(sites)), without / "sites")
    nodes = [node for node in nodes if node["site-name"] != "c"]
    state, run = federate(secure_config(sites), without, nodes=nodes, display=display)
    assert "round 1: c cannot be left out: a sum with them" in display.text
    assert run.rounds()[0]["sites"] == {}, "the round is passed"
    assert not is_changed(state, initial_state(run.config, ("generator",)), "generator")


def test_a_run_that_ended_between_the_two_messages_goes_on_with_the_same_masks(sites, tmp_path):
    config = secure_config(sites, rounds=2)
    expected, _ = federate(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    trained = []

    def killed(message, context):
        if message.metadata.message_type == TRAIN:
            trained.append(context.node_config["site-name"])
        if message.metadata.message_type == REVEAL and context.node_config["site-name"] == "b" and len(trained) > 4:
            raise Killed
        return make_client_app()(message, context)

    with pytest.raises(Killed):
        federate(config, tmp_path / "whole-2" / "whole", app=killed)
    assert RunFolder.open(tmp_path / "whole-2" / "whole").load_checkpoint()[0].round_number == 1
    state, run = federate(config, tmp_path / "whole-2" / "whole")
    assert [record["round"] for record in run.rounds()] == [1, 2]
    assert_same_state(state, expected)


def test_a_site_that_sends_what_no_honest_one_can_spoils_the_round_and_names_nobody(sites, tmp_path):
    """Its sum was opened: a second one, perhaps without another site, would tell that site's update."""
    times, display = [], Lines()

    def wild(message, context, real):
        times.append(1)
        reply = real(message, context)
        array = reply.content["masked"]["generator"]
        array.data = array.data[:-400] + bytes(400)
        return reply

    with pytest.raises(QuorumError, match=r"no single site can be named, since none is seen"):
        federate(secure_config(sites), tmp_path / "run", app=with_faults({"b": wild}), display=display)
    assert len(times) == 1
    assert "nothing was opened" not in display.text


class StrictGrid(InProcessGrid):
    """One that keeps count of bad replies, as a coordinator's does."""

    counted: ClassVar[list[tuple[str, str]]] = []

    def note_bad_reply(self, name: str, why: str) -> None:
        self.counted.append((name, why))


def short(message, context, real):
    reply = real(message, context)
    reply.content["masked"]["generator"].data = b""
    return reply


def unreadable(message, context, real):
    reply = real(message, context)
    first, *others = reply.content["sealed"]["shares"]
    reply.content["sealed"]["shares"] = [bytes(len(first)), *others]
    return reply


def test_a_site_that_sends_what_no_honest_one_does_is_named_and_counted_where_it_can_be_known(sites, tmp_path):
    StrictGrid.counted.clear()
    display, app = Lines(), with_faults({"d": short})
    revealed = with_faults({"c": vanish}, REVEAL)  # a client that fails is no bad reply

    def either(message, context):
        return (revealed if message.metadata.message_type == REVEAL else app)(message, context)

    once = secure_config(sites, secure_repeats=0)
    with pytest.raises(QuorumError, match="c did not reveal"):
        federate(once, tmp_path / "short", app=either, display=display, grid=StrictGrid)
    assert "d is left out of round 1: an array cannot be read" in display.text
    assert StrictGrid.counted == [("d", "reply_not_as_asked")]

    StrictGrid.counted.clear()
    display, app = Lines(), with_faults({"a": unreadable})
    _, run = federate(secure_config(sites), tmp_path / "run", app=app, display=display, grid=StrictGrid)
    assert "round 1: b could not open the share that a had sealed" in display.text
    assert StrictGrid.counted == [("a", "sealed_shares_not_valid")]
    assert sorted(run.rounds()[0]["sites"]) == ["a", "b", "c", "d"], "the other shares of its mask are enough"


def test_a_large_update_is_drawn_in_by_the_site_and_counted(sites, tmp_path):
    display = Lines()
    _, run = federate(secure_config(sites, secure_clip_norm=1e-3), tmp_path / "run", display=display)
    assert "4 updates of the generator had a norm above 0.001 and were drawn in to it" in display.text
    assert run.rounds()[0]["update_norm"]["generator"] <= 1e-3 * 1.001


def test_a_component_has_a_norm_of_its_own_and_then_its_own_precision(sites, tmp_path):
    """The range of the whole numbers follows the norm, and the step of the roundings with it."""
    config = secure_config(sites, schedule="joint", secure_clip_norm=800.0, retriever={"secure_clip_norm": 100.0})
    names = ("generator", "retriever")
    request = Request(config.to_toml(), 1, initial_state(config, names), names, dict.fromkeys(names, 0))
    scales = {part.name: part.scale for part in train_layout(config.federation, request, 4)}
    assert scales["retriever"] == 8 * scales["generator"]
    display = Lines()
    config = secure_config(sites, schedule="joint", retriever={"secure_clip_norm": 1e-3})
    _, run = federate(config, tmp_path / "run", display=display)
    assert "4 updates of the retriever had a norm above 0.001 and were drawn in to it" in display.text
    assert "of the generator had a norm above" not in display.text
    norms = run.rounds()[0]["update_norm"]
    assert norms["retriever"] <= 1e-3 * 1.001 < norms["generator"]


def test_a_masked_update_has_no_more_bytes_than_float32(sites, tmp_path):
    _, run = federate(secure_config(sites), tmp_path / "run")
    _, plain = federate(tiny_config(sites, federation={"rounds": 1, "schedule": "generator"}), tmp_path / "plain")
    told, plainly = (list(found.rounds()[0]["sites"].values())[0]["bytes"] for found in (run, plain))
    assert told <= plainly + 256  # the head of a second array, and eleven numbers


def test_a_reply_of_another_protocol_than_the_scenario_asks_for_is_refused(sites, tmp_path):
    message, context, _ = asked(sites, tmp_path)[TRAIN]
    del message.content["secure"]
    assert make_client_app()(message, context).content["refusal"]["code"] == "bad-request"
    assert array_bytes(message.content) > 0


def test_a_grid_that_vouches_for_no_keys_makes_no_secure_round(sites, tmp_path):
    config, display = secure_config(sites, greeting_timeout_s=0.2), Lines()
    nodes = [
        {k: v for k, v in node.items() if k != "agreement-key"}
        for node in node_configs(client_folders(config), tmp_path)
    ]
    with pytest.raises(QuorumError, match="0 sites can take part"):
        federate(config, tmp_path / "run", nodes=nodes, display=display, grid=InProcessGrid)
    assert "a takes no part: it is registered without an agreement key, which secure sums need" in display.text
