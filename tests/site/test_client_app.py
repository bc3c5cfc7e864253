"""The site's client app: what leaves a site, and what does not."""

from __future__ import annotations

import errno
import json
import re

import pytest
from flwr.app import Array
from tiny_federation import Lines, federate, node_configs, small_site, tiny_config, write_small_sites

from fedrag.components.state import initial_state
from fedrag.data.questions import question_counts
from fedrag.data.writing import write_site
from fedrag.errors import (
    ConfigError,
    DataError,
    MessageError,
    ModelError,
    QuorumError,
    TrainingDiverged,
    TrainingProcessLost,
)
from fedrag.federation.greeting import POLICY_RULES
from fedrag.federation.messages import HOME, Request, request_content
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.home_results import HOME_FOLDER
from fedrag.site.client_app import make_client_app
from fedrag.site.policy import policy_numbers
from fedrag.site.refusal import DeadlinePassed, refusal_code
from fedrag.site.site_config import Policy
from fedrag.training.losses import Losses
from fedrag.types import IDENTITY_PARTS, Passage, Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

CANARIES = ["QUOKKA", "NUMBAT", "BILBY", "DINGO", "POTOROO", "WOMBAT", "BANDICOOT", "ECHIDNA"]


def site_of_canaries(name):
    """Return a site each of whose texts holds a word that may never leave it."""
    question, answer, passage, title, question_id, passage_id = CANARIES[:6]
    passages = tuple(Passage(f"{passage_id}-{n}", f"The {passage} number {n} is here.", title) for n in range(3))

    def questions(split):
        return tuple(
            Question(f"{question_id}-{split}-{n}", f"Where is {question} {n}?", (answer,), (f"{passage_id}-{n}",))
            for n in range(3)
        )

    return Site(name, passages, questions("train"), questions("validation"), questions("test"))


class Recording(InProcessGrid):
    """Keeps every reply."""

    replies: list = []

    def pull_messages(self, message_ids):
        found = super().pull_messages(message_ids)
        self.replies.extend(found)
        return found


def texts_of(reply):
    """Return every text and every byte of a reply as one text."""
    if reply.has_error():
        return f"{reply.error.code} {reply.error.reason}"
    parts = []
    for name, record in reply.content.items():
        parts.append(name)
        for key, value in record.items():
            parts.append(key)
            if isinstance(value, Array):
                parts += [value.dtype, value.stype, value.data.decode("latin-1")]
            else:
                parts.append(json.dumps(value))
    return "\n".join(parts)


@pytest.fixture
def replies(tmp_path):
    """Every reply of a run of two sites of canaries, of which one raises errors in its second round."""
    folder = tmp_path / CANARIES[6]
    for name in ("a", "b"):
        write_site(folder / name, site_of_canaries(name))
    calls = []

    def loss(logits, labels):
        calls.append(1)
        if len(calls) == 3:
            raise FileNotFoundError(errno.ENOENT, CANARIES[7], f"/srv/{CANARIES[6]}/train.jsonl")
        return Losses().answer(logits, labels)

    Recording.replies = []
    config = tiny_config(
        folder,
        retriever={"loss": "both", "lsr": {"candidates": 2}},
        federation={"rounds": 2, "keep": "best", "diagnose": True},
    )
    _, run = federate(config, tmp_path / "run", grid=Recording, app=make_client_app(Losses(answer=loss)))
    assert list(run.rounds()[1]["left_out"]) == ["a"]
    return Recording.replies


def test_no_word_of_a_site_s_data_or_errors_is_in_any_reply(replies):
    kinds = [reply.metadata.message_type for reply in replies]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "query.greet": 2,
        "train.round": 4,
        "evaluate.round": 10,  # of the start and of two rounds, and twice why answers are wrong
        "query.deliver": 2,
    }
    for reply in replies:
        text = texts_of(reply).casefold()
        assert not [canary for canary in CANARIES if canary.casefold() in text]


def test_a_reply_holds_arrays_numbers_digests_and_codes_and_nothing_else(replies):
    for reply in replies:
        content = reply.content
        for name, record in content.items():
            match name:
                case "update":
                    assert set(record) <= {"generator", "retriever"}
                    assert all(array.dtype == "uint8" and array.stype == "numpy.ndarray" for array in record.values())
                case "metrics" | "counts":
                    assert all(isinstance(value, int | float) for value in record.values())
                case "manifests":
                    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record.values())
                case "refusal":
                    assert record["code"] in REFUSALS
                    assert re.fullmatch("[0-9a-f]{8}", record["error-id"])
                    assert len(record) == 2
                case "greeting":
                    hashes = {f"{part}.{model}" for part in IDENTITY_PARTS for model in ("generator", "retriever")}
                    assert set(record) == {"name", "version", *hashes}
                    assert all(re.fullmatch("[0-9a-f]{64}", record[name]) for name in hashes)
                case _:
                    pytest.fail(f"a reply holds a record {name}")


@pytest.mark.parametrize("tells", [True, False])
def test_a_greeting_tells_the_rules_of_a_policy_by_fixed_names_and_no_model_of_it(tmp_path, tells):
    """A site of a simulation has no policy: its greeting is among the replies above."""
    policy = Policy(base_models={CANARIES[0]: "c" * 64}, quiet_hours="08:00-18:00", tell_policy=tells)
    sites = write_small_sites(tmp_path / "sites", a=2)
    Recording.replies = []
    _, run = federate(
        tiny_config(sites, federation={"rounds": 1, "schedule": "generator"}),
        tmp_path / "run",
        grid=Recording,
        app=make_client_app(policy=policy),
    )
    greeting = Recording.replies[0]
    assert greeting.metadata.message_type == "query.greet"
    assert set(greeting.content) == {"greeting", "counts", *(["policy"] if tells else [])}
    assert tuple(greeting.content.get("policy", {})) == (POLICY_RULES if tells else ())
    assert all(isinstance(number, float) for number in greeting.content.get("policy", {}).values())
    assert not [part for part in (CANARIES[0], "c" * 64, "08:00") if part in texts_of(greeting)]
    assert run.told_by_sites["a"]["policy"] == (policy_numbers(policy) if tells else {})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingDiverged("x"), "diverged"),
        (TrainingProcessLost("x"), "training-process"),
        (DeadlinePassed(), "deadline"),
        (DataError("x"), "bad-data"),
        (ModelError("x"), "bad-model"),
        (MessageError("x"), "bad-request"),
        (ConfigError("x"), "bad-request"),
        (MemoryError(), "out-of-memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out-of-memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "no-disk-space"),
        (KeyError("x"), "error"),
    ],
)
def test_an_error_has_a_code(error, code):
    assert refusal_code(error) == code
    assert code in REFUSALS


def test_a_site_whose_data_breaks_during_the_run_is_left_out_and_back_when_it_is_mended(tmp_path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2)
    config = tiny_config(sites, federation={"rounds": 2, "schedule": "generator"})
    whole = (sites / "b" / "train.jsonl").read_text()

    class Breaking(Lines):
        def say(self, line):
            super().say(line)
            if line.startswith("round 1/2"):
                (sites / "b" / "train.jsonl").write_text(whole)

        def progress(self, task, done, total):
            if (task, done) == ("round 1/2", 0):
                (sites / "b" / "train.jsonl").write_text(whole[:-20])

    _, run = federate(config, tmp_path / "run", display=Breaking())
    assert run.rounds()[0]["left_out"]["b"].startswith("its data is malformed (bad-data; error ")
    assert list(run.rounds()[1]["sites"]) == ["a", "b"]


def test_a_site_that_cannot_read_its_data_does_not_take_part(tmp_path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2)
    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator"})
    (sites / "b" / "passages.jsonl").unlink()
    display = Lines()
    _, run = federate(config, tmp_path / "run", display=display)
    assert run.rounds()[0]["asked"] == ["a"]
    assert any(line.startswith("client 2 takes no part: its data is malformed") for line in display.said)


def test_a_site_loads_no_model_that_is_not_in_its_own_list(tmp_path, monkeypatch):
    """The server has the models, the sites' list is empty: the refusal says so and nothing is loaded."""
    sites = write_small_sites(tmp_path / "sites", a=2)
    config = tiny_config(sites, federation={"rounds": 1, "greeting_timeout_s": 0.1})
    real = make_client_app()

    def elsewhere(message, context):
        with monkeypatch.context() as patch:
            patch.setenv("FEDRAG_HOME", str(tmp_path / "empty"))
            return real(message, context)

    display = Lines()
    with pytest.raises(QuorumError, match="0 sites can take part"):
        federate(config, tmp_path / "run", app=elsewhere, display=display)
    assert any("its models are missing or altered (bad-model" in line for line in display.said)


def test_what_a_site_tells_of_its_questions():
    site = small_site("a", train=3, validation=2)
    others = (Question("x", "Why?", ("because",)), Question("y", "How?", (), (site.passages[0].id,)))
    assert question_counts(Site("a", site.passages, (*site.train, *others), site.validation)) == {
        "train_questions": 5,
        "answered_questions": 4,
        "labelled_questions": 4,
        "validation_questions": 2,
    }


def test_the_folder_of_flower_s_own_simulation_comes_from_the_number_of_the_client(tmp_path, monkeypatch):
    sites = write_small_sites(tmp_path / "sites", a=2, b=3)
    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator"})
    by_folder, _ = federate(config, tmp_path / "by-folder", nodes=node_configs([sites / "a", sites / "b"], tmp_path))
    nodes = [{"partition-id": str(number), "site-cache": str(tmp_path)} for number in range(2)]
    _, run = federate(config, tmp_path / "run", nodes=nodes)
    assert {name: told["generator.examples"] for name, told in run.rounds()[0]["sites"].items()} == {"a": 2, "b": 3}
    assert by_folder


@pytest.mark.parametrize("policy", [None, Policy()], ids=["simulated", "deployed"])
def test_only_a_simulated_site_trains_at_home_when_it_is_asked_to(policy, tmp_path):
    sites, cache = write_small_sites(tmp_path / "data", north=4), tmp_path / "cache"
    config = tiny_config(sites, federation={"personalise": 1, "schedule": "retriever"})
    content = request_content(Request(config.to_toml(), 2, initial_state(config, ("retriever",))))
    grid = InProcessGrid(make_client_app(policy=policy), node_configs([sites / "north"], cache))
    (node,) = grid.get_node_ids()
    sent = grid.push_messages([grid.create_message(content, HOME, node, "2")])
    (reply,) = grid.pull_messages(sent)
    assert reply.has_error() == (policy is not None)
    assert bool(list(cache.rglob(HOME_FOLDER))) == (policy is None)
