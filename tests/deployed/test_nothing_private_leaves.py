"""Every decrypted byte that leaves a site in a whole run, read at a proxy that ends its TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from ports import free_ports
from tap import Tap, copy
from tiny_federation import small_site, tiny_config

from fedrag.config.scenario import Config
from fedrag.data.feedback_export import export_feedback
from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.federation.greeting import POLICY_RULES
from fedrag.runs.run_folder import RunFolder
from fedrag.site.egress import read_egress
from fedrag.site.policy import policy_numbers
from fedrag.site.site_config import SiteConfig
from fedrag.types import IDENTITY_PARTS, Passage, Question, Site
from fedrag.weights.store import fetched_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

CANARIES = {
    "question": "kanarienvogel-frage",
    "answer": "kanarienvogel-antwort",
    "passage": "kanarienvogel-passage",
    "title": "kanarienvogel-titel",
    "id": "kanarienvogel-id",
    "feedback": "kanarienvogel-rueckmeldung",
    "unanswered": "kanarienvogel-offen",  # the site answers it itself, in every round
    "folder": "kanarienvogel-ordner",
    "model": "kanarienvogel-modell",  # one that a policy names
    "hash": "0c0ffee0" * 8,  # of that model
}
GREETING = ("name", "version", *(f"{part}.{key}" for key in ("generator", "retriever") for part in IDENTITY_PARTS))


class OutboundProxy:
    """The proxy of a house, through which alone it reaches the outside."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", port))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.splitlines()[0])
        host, port = head.split()[1].rsplit(":", 1)
        inside, upstream = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, upstream, bytearray()), copy(inside, writer, bytearray()))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def site_of_canaries() -> Site:
    """Return a site in which every text carries a canary."""
    plain = small_site("north", train=4)

    def question(q: Question) -> Question:
        marked = f"{q.question} {CANARIES['question']}"
        ids = [f"{CANARIES['id']}-{i}" for i in q.passage_ids]
        return Question(f"{CANARIES['id']}-{q.id}", marked, [f"{a} {CANARIES['answer']}" for a in q.answers], ids)

    passages = [
        Passage(f"{CANARIES['id']}-{p.id}", f"{p.text} {CANARIES['passage']}", f"{p.title} {CANARIES['title']}")
        for p in plain.passages
    ]
    splits = (tuple(question(q) for q in split) for split in (plain.train, plain.validation, plain.test))
    asked = Question(f"{CANARIES['id']}-asked", f"Who asks {CANARIES['unanswered']}?", ())
    return Site("north", tuple(passages), *splits, unanswered=(asked,))


def give_feedback(folder: Path) -> None:
    """Let people say something of three answers; a reviewer takes one, which is trained on, and drops another."""
    store, site = FeedbackStore(folder), load_site(folder)
    ids = tuple(passage.id for passage in site.passages[:2])
    said, canary = [], CANARIES["feedback"]
    for number in range(3):
        row = Feedback(f"What is {canary} {number}?", f"no {canary}", ids, "wrong", f"this {canary}", ids[:1])
        said.append(store.add(row))
    store.review(said[0], "accepted")
    store.review(said[1], "dropped")
    [learned] = export_feedback(folder).added
    assert learned.hard_negative_ids == ids[1:]


@pytest.fixture(scope="module")
def tapped(tmp_path_factory) -> Iterator[tuple[Deployment, Tap, OutboundProxy]]:
    data = tmp_path_factory.mktemp("data") / CANARIES["folder"]
    write_site(data / "north", site_of_canaries())
    give_feedback(data / "north")
    write_site(data / "south", small_site("south"))
    root = tmp_path_factory.mktemp("deployment")
    deployment = Deployment(root, {"north": data / "north", "south": data / "south"})
    port, proxy_port = free_ports(2)
    tap = Tap(port, deployment.server.config.port, deployment.server.path, root)
    for name in ("north", "south"):
        path = root / name / "site.toml"
        path.write_text(path.read_text().replace(f":{deployment.server.config.port}", f":{port}"))
    allow_models(root / "north" / "site.toml")
    deployment.set_setting("south", "tell_policy", False)
    proxy = OutboundProxy(proxy_port)
    deployment.set_setting("south", "proxy", f"http://127.0.0.1:{proxy_port}")
    with deployment:
        yield deployment, tap, proxy
    proxy.close()
    tap.close()


@pytest.fixture(scope="module")
def run(tapped) -> RunFolder:
    """A finished run of both sites."""
    deployment, _, _ = tapped
    return deployment.wait_until_done(deployment.begin(config_of(deployment)))


def config_of(deployment: Deployment) -> Config:
    federation = {"rounds": 2, "schedule": "iterate", "validate_every": 1, "greeting_timeout_s": 180.0}
    return tiny_config(deployment.root, federation=federation)


def allow_models(site_toml: Path) -> None:
    """Let a site's policy name the models that run, and one more."""
    named = {model.name: model.tensors_sha256 for model in fetched_models()} | {CANARIES["model"]: CANARIES["hash"]}
    table = ", ".join(f'"{name}" = "{digest}"' for name, digest in named.items())
    site_toml.write_text(site_toml.read_text().replace("base_models = {}", f"base_models = {{ {table} }}"))


def test_no_canary_is_in_any_byte_that_leaves(tapped, run):
    deployment, tap, proxy = tapped
    assert [sorted(line["sites"]) for line in run.rounds()] == [["north", "south"]] * 2
    assert run.rounds()[0]["sites"]["north"]["retriever.examples"] == 5, "four, and one from feedback"
    assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{tap.port} HTTP/1.1"}, "south went through its house's proxy"
    # An error at the site, whose text quotes its data: what leaves is a code.
    train = data_of(deployment, "north") / "train.jsonl"
    train.write_text(train.read_text() + f'{{"id": "x", "question": "{CANARIES["question"]}"}}\n')
    failed = deployment.begin(config_of(deployment))
    deployment.wait(lambda: deployment.outcome(failed).state in ("finished", "stopped"), 120, "the second run done")
    assert "bad-data" in deployment.executor_log

    assert len(tap.sent) > 100_000, "the proxy saw the run"
    assert b"metric.generator.loss" in tap.sent, "and reads what is in the messages"
    for what, canary in CANARIES.items():
        for encoding in ("utf-8", "utf-16-le", "utf-32-le"):
            assert canary.encode(encoding) not in tap.sent, f"the {what} left the site"
    assert str(deployment.root).encode() not in tap.sent, "a path left the site"


def test_what_a_greeting_tells_has_these_names_and_no_others(tapped, run):
    deployment, tap, _ = tapped
    rules = {f"policy.{rule}" for rule in POLICY_RULES}
    counts = {f"counts.{name}_questions" for name in ("train", "answered", "labelled", "validation")}
    for site, told in (("north", rules | counts), ("south", counts)):
        lines = read_egress(deployment.root / site / "egress.jsonl")
        (greeting, *_) = [line for line in lines if line["kind"] == "greet"]
        assert set(greeting["numbers"]) == told
        texts = {f"greeting.{name}" for name in GREETING}
        assert set(greeting["texts"]) == texts | {"agreement.key", "agreement.signature"}
        assert greeting["arrays"] == []
    assert all(rule.encode() in tap.sent for rule in POLICY_RULES)


def test_the_coordinator_learns_of_a_policy_what_the_site_tells(tapped, run):
    deployment, _, _ = tapped
    policy = SiteConfig.from_file(deployment.root / "north" / "site.toml").policy
    assert CANARIES["model"] in policy.base_models
    assert run.told_by_sites["north"]["policy"] == policy_numbers(policy)
    assert run.told_by_sites["south"]["policy"] == {}


def data_of(deployment: Deployment, name: str) -> Path:
    (line,) = [
        line for line in (deployment.root / name / "site.toml").read_text().splitlines() if line.startswith("data = ")
    ]
    return Path(line.removeprefix("data = ").strip('"'))
