"""A secure sum between real processes: what it comes to, what leaves, who must have confirmed whom, and who may die.

One deployment of four sites, one run of three rounds; the test sees all keys and all folders, as no party does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from deployment import Deployment
from ports import free_ports
from tap import Tap
from tiny_federation import node_configs, tiny_config, write_small_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.federation.codec import encode
from fedrag.federation.messages import Request, open_reply, request_content
from fedrag.federation.secure_messages import content_from_bytes, open_masked, open_revealed
from fedrag.federation.secure_vector import NUMBERS, train_layout
from fedrag.federation.update import add, unflatten
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.checkpoint import read_checkpoint
from fedrag.runs.run_folder import RunFolder
from fedrag.secure_sum.agreement import agreement_public, own_seed, pair_seed, shared_secret
from fedrag.secure_sum.fixed_point import RingVector
from fedrag.secure_sum.masks import add_mask
from fedrag.secure_sum.roster import Member, roster_of
from fedrag.secure_sum.shares import combine
from fedrag.security.keys import fingerprint, load_public_key
from fedrag.site.agreement_key import AGREEMENT_FILE
from fedrag.site.client_app import make_client_app
from fedrag.site.client_folder import SECURE
from fedrag.site.egress import SURVIVORS, read_egress
from fedrag.types import Array, State

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

NAMES = ("east", "north", "south", "west")
STAYED = NAMES[:3]
"""Those of the last round; west dies in it before it has masked anything, and is silent until the deadline."""
THRESHOLD = 3
DEADLINE_S = 60.0
COMPONENT = "generator"


@dataclass(frozen=True, slots=True)
class Ran:
    """What is left of the run, and what was seen of it."""

    deployment: Deployment
    tap: Tap
    run: RunFolder
    config: Config
    before_last: State


@pytest.fixture(scope="module")
def tapped(tmp_path_factory) -> Iterator[tuple[Deployment, Tap, Path]]:
    data = write_small_sites(tmp_path_factory.mktemp("data"), north=4, south=5, east=4, west=4)
    root = tmp_path_factory.mktemp("deployment")
    deployment = Deployment(root, {name: data / name for name in NAMES})
    (port,) = free_ports(1)
    tap = Tap(port, deployment.server.config.port, deployment.server.path, root)
    for name in NAMES:
        path = root / name / "site.toml"
        path.write_text(path.read_text().replace(f":{deployment.server.config.port}", f":{port}"))
        deployment.set_setting(name, "secure_colluding", 0)  # of four sites one may vanish then
    deployment.set_setting("south", "secure", "required")
    with deployment:
        yield deployment, tap, data
    tap.close()


@pytest.fixture(scope="module")
def ran(tapped) -> Ran:
    """A run in which a node, the executor and the masks of a site are lost, each between the two messages.

    In the last round a site is lost as well, so that all others must reveal, and its seeds with them.
    """
    deployment, tap, data = tapped
    settings = {
        "rounds": 3,
        "schedule": COMPONENT,
        "secure": True,
        "secure_colluding": 0,
        "min_sites": 4,
        "deliver": False,
        "deadline_s": DEADLINE_S,
        "secure_max_examples": 100,
    }
    config = tiny_config(data, generator={"epochs": 3}, federation=settings | {"greeting_timeout_s": 120.0})
    name = deployment.begin(config)
    deployment.wait(lambda: deployment.outcome(name).state == "stopped", 240, "no site has confirmed another")
    assert "(secure-peers" in deployment.outcome(name).why
    for site in NAMES:
        deployment.wait(lambda site=site: "fedrag client peers" in deployment.log(site), 20, f"{site} says what to do")
        confirm(deployment, site)
    tap.sent.clear()
    deployment.wait(lambda: not deployment.server.current(), 30, "the coordinator free")
    deployment.resume(name)

    with held(deployment, 1, "south"):  # a node dies between the messages
        deployment.kill_service("north")
        deployment.wait(lambda: not deployment.node_pids("north"), 30, "north's node is gone")
        deployment.start_site("north")
        deployment.wait(lambda: deployment.log("north").count("takes part at") == 2, 60, "north is back")
        deployment.wait(lambda: has_left(deployment, "west", 1), 240, "west's masked reply of round 1")
        signal_to(deployment, "west", signal.SIGSTOP)
    # Three of the four open the sum, and a fourth is waited for a moment alone: without west, north is needed.
    deployment.wait(lambda: "reveal" in of_round(deployment, "north", 1), 240, "north's second message of round 1")
    signal_to(deployment, "west", signal.SIGCONT)
    with held(deployment, 2, "south"):  # the executor does
        for pid in deployment.executor_pids():
            os.kill(pid, signal.SIGKILL)
        deployment.wait(lambda: "the executor died" in deployment.log("server"), 60, "the executor's death noticed")
    with held(deployment, 3, "south", "west"):  # west does, and what north keeps: it can reveal nothing
        newest = max((deployment.server.runs / name / "checkpoints").glob("round-*"), key=lambda path: path.name)
        checkpoint, _ = read_checkpoint(newest)
        assert checkpoint.round_number == 2
        typed("client", "purge", deployment.root / "north", "--yes")
        rest = [*deployment.worker_pids("west"), *deployment.node_pids("west")]
        deployment.kill_service("west")
        for pid in rest:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return Ran(deployment, tap, deployment.wait_until_done(name, 300), config, checkpoint.state)


def typed(*words: object) -> str:
    """Give a command, and return what it says."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def confirm(deployment: Deployment, site: str) -> None:
    """Do what an administrator does: type the fingerprints that the others read out."""
    for other in NAMES:
        if other != site:
            read_out = fingerprint(load_public_key(deployment.root / other / "site.pub"))
            typed("client", "peers", deployment.root / site, "--confirm", f"{other}={read_out}")


class held:
    """Within the block a round waits for some sites, which are stopped, and north's masked reply has left."""

    def __init__(self, deployment: Deployment, number: int, *names: str) -> None:
        self._deployment, self._number = deployment, number
        self._going = list(names)
        self._stopped: list[str] = []

    def __enter__(self) -> None:
        it, number = self._deployment, self._number
        it.wait(self._stop, 240, f"what comes before round {number} has left {', '.join(self._going)}", every_s=0.05)
        assert not any(of_round(it, name, number) for name in self._stopped), "one was quicker than this test"
        it.wait(lambda: has_left(it, "north", number), 240, f"north's masked reply of round {number}")

    def __exit__(self, *_: object) -> None:
        for name in self._stopped:
            signal_to(self._deployment, name, signal.SIGCONT)

    def _stop(self) -> bool:
        """Stop each site once it has answered all that comes before the round; return whether all are stopped."""
        for name in list(self._going):
            if self._is_through(name):
                signal_to(self._deployment, name, signal.SIGSTOP)
                self._going.remove(name)
                self._stopped.append(name)
        return not self._going

    def _is_through(self, name: str) -> bool:
        it, before = self._deployment, self._number - 1
        answered = of_round(it, name, before)
        done = "reveal" in answered if before else answered.count("greet") > 1
        return done and not (it.root / name / "inbox").is_file()


def signal_to(deployment: Deployment, site: str, number: int) -> None:
    """Send a site's processes a signal."""
    for pid in (*deployment.worker_pids(site), *deployment.node_pids(site)):
        os.kill(pid, number)


def has_left(deployment: Deployment, site: str, number: int) -> bool:
    """Return whether a site's masked reply of a round is on its way."""
    return "train" in of_round(deployment, site, number) and not (deployment.root / site / "inbox").is_file()


def of_round(deployment: Deployment, site: str, number: int) -> list[str]:
    """What has left a site in a round, but refusals."""
    lines = read_egress(deployment.root / site / "egress.jsonl")
    return [line["kind"] for line in lines if line["round"] == number and line["kind"] != "refusal"]


def without_masks(ran: Ran, request: Request) -> dict[str, RingVector]:
    """Take the masks off what each site sent last, with the keys of all of them."""
    folders = {name: ran.deployment.root / name for name in NAMES}
    keys = {name: bytes.fromhex((folder / AGREEMENT_FILE).read_text()) for name, folder in folders.items()}
    roster = roster_of(Member(name, agreement_public(key)) for name, key in keys.items())
    layout = train_layout(ran.config.federation, request, len(NAMES))
    shares: dict[str, dict[str, bytes]] = {name: {} for name in STAYED}
    found: dict[str, RingVector] = {}
    for name in STAYED:
        (file,) = (folders[name] / SECURE).glob("*.revealed")
        revealed = open_revealed(message_of(file.read_bytes()[64:]))
        assert set(revealed.shares) == set(STAYED)
        with_west = pair_seed(shared_secret(keys["west"], agreement_public(keys[name])), file.read_bytes()[:32])
        assert revealed.seeds == {"west": with_west}, "of the pairs' masks, those with the one that is gone are told"
        for of, share in revealed.shares.items():
            shares[of][name] = share
    for name in STAYED:
        (file,) = (folders[name] / SECURE).glob("*.reply")
        context = file.read_bytes()[:32]
        masked = open_masked(message_of(file.read_bytes()[32:]), layout, roster, name)
        vector = {part: np.array(ring) for part, ring in masked.vector.items()}
        add_mask(vector, layout, own_seed(combine(shares[name], THRESHOLD, roster.names), context), -1)
        for peer in NAMES:
            if peer != name:
                seed = pair_seed(shared_secret(keys[name], agreement_public(keys[peer])), context)
                add_mask(vector, layout, seed, -1 if peer > name else 1)
        found[name] = vector
    return found


class message_of:
    """Content that came as a message, as far as its readers look."""

    def __init__(self, kept: bytes) -> None:
        self.content = content_from_bytes(kept)

    def has_error(self) -> bool:
        return False


def last_request(ran: Ran) -> Request:
    return Request(ran.config.to_toml(), 3, ran.before_last, (COMPONENT,), {COMPONENT: 2}, wire="float32")


def plain_updates(ran: Ran, caches: Path) -> dict[str, Array]:
    """Train each site once more in this process, from the state of the last round, and without masks."""
    plain = ran.config.model_copy(update={"federation": ran.config.federation.model_copy(update={"secure": False})})
    request = last_request(ran)
    content = request_content(
        Request(plain.to_toml(), 3, ran.before_last, (COMPONENT,), {COMPONENT: 2}, wire="float32")
    )
    folders = [Path(ran.config.data.sites) / name for name in STAYED]
    grid = InProcessGrid(make_client_app(), node_configs(folders, caches))
    ids = list(grid.get_node_ids())
    sent = grid.push_messages([grid.create_message(content, "train.round", node, "3") for node in ids])
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(sent)}
    while len(replies) < len(sent):
        replies |= {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(sent)}
    manifests = {COMPONENT: request.manifest(COMPONENT)}
    return {
        name: open_reply(replies[message], manifests, "float32", (COMPONENT,)).update[COMPONENT]
        for name, message in zip(STAYED, sent, strict=True)
    }


def test_the_result_is_the_sum_of_the_fixed_point_vectors_to_the_bit_and_they_are_what_the_sites_trained(ran, tmp_path):
    request = last_request(ran)
    layout = {part.name: part for part in train_layout(ran.config.federation, request, len(NAMES))}
    bits = layout[COMPONENT].bits
    vectors, plain = without_masks(ran, request), plain_updates(ran, tmp_path)
    weights = {"east": 4, "north": 4, "south": 5}
    for name, vector in vectors.items():
        steps = vector[COMPONENT].view(f"<i{bits // 8}").astype(np.float64)
        off = np.abs(steps - plain[name].astype(np.float64) * weights[name] * layout[COMPONENT].scale)
        assert off.max() < 1, f"{name} masked what it trained, rounded by less than a step"
        assert np.abs(steps).max() > 2**6, "and that is not all zeros"
    total = sum(vector[COMPONENT].astype(object) for vector in vectors.values()) % 2**bits
    signed = np.where(total >= 2 ** (bits - 1), total - 2**bits, total).astype(np.float64)
    mean = ((signed / layout[COMPONENT].scale) / sum(weights.values())).astype(np.float32)
    expected = add(ran.before_last[COMPONENT], unflatten(mean, request.manifest(COMPONENT)))
    for name, tensor in ran.run.load_result()[COMPONENT].items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_no_byte_that_leaves_is_of_a_plain_update_and_no_count_or_loss_is_told(ran, tmp_path):
    sent = bytes(ran.tap.sent)
    for name, update in plain_updates(ran, tmp_path).items():
        for wire in ("float32", "bfloat16"):
            raw = encode(update, wire).tobytes()
            pieces = [raw[start : start + 24] for start in range(0, len(raw) - 24, 96) if any(raw[start : start + 24])]
            assert len(pieces) > 20
            assert not any(piece in sent for piece in pieces), f"{name}'s update left as {wire}"
    for name in STAYED:
        (file,) = (ran.deployment.root / name / SECURE).glob("*.reply")
        masked = content_from_bytes(file.read_bytes()[32:])["masked"]
        assert bytes(masked[COMPONENT].data)[-200:] in sent, "the proxy does read what is in the messages"
        assert {NUMBERS, COMPONENT} == set(masked)
    assert b"num-examples" not in sent
    assert f"metric.{COMPONENT}".encode() not in sent


def test_a_site_that_died_between_the_messages_answers_the_second_and_trains_no_second_time(ran):
    assert of_round(ran.deployment, "north", 1) == ["train", "reveal"]
    assert sorted(ran.run.rounds()[0]["sites"]) == list(NAMES)


def test_a_coordinator_that_died_between_the_messages_is_sent_the_same_bytes_again(ran):
    lines = read_egress(ran.deployment.root / "north" / "egress.jsonl")
    trained = [line["arrays"] for line in lines if line["round"] == 2 and line["arrays"]]
    assert len(trained) >= 2
    assert all(arrays == trained[0] for arrays in trained)
    assert sorted(ran.run.rounds()[1]["sites"]) == list(NAMES)


def test_a_survivor_that_reveals_nothing_costs_the_attempt_and_the_next_one_has_other_masks(ran):
    assert "north did not reveal its part of round 3" in ran.deployment.executor_log
    assert "the secure sum is lost, and nothing was opened" in ran.deployment.executor_log
    for name in STAYED:
        lines = read_egress(ran.deployment.root / name / "egress.jsonl")
        hashes = {line["arrays"][0]["sha256"] for line in lines if line["round"] == 3 and line["arrays"]}
        assert len(hashes) == 2, name


def test_a_site_that_is_silent_until_the_deadline_is_left_out_and_the_others_open_the_sum_without_it(ran):
    told = ran.run.rounds()[2]
    assert sorted(told["sites"]) == list(STAYED)
    assert list(told["left_out"]) == ["west"]
    assert f"west is left out of round 3: no reply within {DEADLINE_S:g} s" in ran.deployment.executor_log
    assert told["together"][f"{COMPONENT}.examples"] == 4 + 4 + 5


def test_what_is_kept_between_the_messages_is_its_owners_alone_and_gone_once_it_was_revealed(ran):
    for name in NAMES:
        files = list((ran.deployment.root / name / SECURE).iterdir())
        assert files
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert not [file for file in files if file.suffix == ".open"]


def test_the_logs_of_two_sites_show_the_same_survivors_and_no_share(ran):
    told = []
    for name in STAYED:
        lines = read_egress(ran.deployment.root / name / "egress.jsonl")
        reveals = {line["round"]: line for line in lines if line["kind"] == "reveal"}
        told.append({number: line["texts"][SURVIVORS] for number, line in reveals.items()})
        assert all(set(line["texts"]) == {SURVIVORS, "sum of", "revealed.sha256"} for line in reveals.values())
        sums = {number: line["texts"]["sum of"] for number, line in reveals.items()}
        assert sums == {1: ", ".join(NAMES), 2: ", ".join(NAMES), 3: ", ".join(STAYED)}
        shown = typed("client", "audit", ran.deployment.root / name)
        assert "generator (masked)" in shown
        assert all(digest in "".join(shown.split()) for digest in told[-1].values())
    assert told[0] == told[1] == told[2]
    assert set(told[0]) == {1, 2, 3}
