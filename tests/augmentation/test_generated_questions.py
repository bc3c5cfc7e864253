"""`fedrag data questions`: over a real HTTP endpoint, and with a generator of the store."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from chat_endpoint import Endpoint, failure, redirect, served
from starlette.responses import PlainTextResponse
from typer.testing import CliRunner

from fedrag.augmentation import endpoint_writer
from fedrag.augmentation.endpoint_writer import KEY_VARIABLE
from fedrag.augmentation.tried_texts import TRIED_FILE
from fedrag.cli import data_augment
from fedrag.cli.main import app
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.types import Passage, Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

THINGS = ("gate", "hall", "yard", "roof", "attic", "cellar")
TOP_ALL = ("--top-k", "6")  # the tiny retriever is random: among so many it finds every passage


def answer(system: str, user: str) -> str:
    """Write and answer as a good model would."""
    thing = re.findall(r"guards the (\w+)", user)[0]
    if "teacher" in system:
        return f'Question: "Who guards the {thing}?"'
    return f"Porter {THINGS.index(thing) + 1}."


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(endpoint_writer, "_WAIT_S", 0.01)
    with served(answer) as found:
        yield found


@pytest.fixture
def site(tmp_path) -> Path:
    """A site of six passages and no question but one in the test split."""
    passages = tuple(
        Passage(f"p{n}", f"Porter {n + 1} guards the {thing} of the house.") for n, thing in enumerate(THINGS)
    )
    write_site(tmp_path / "east", Site("east", passages))
    return tmp_path / "east"


@pytest.fixture
def scenario(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(
        'name = "tiny"\n[data]\nsites = "x"\n'
        '[models]\ngenerator = "fedrag/tiny-causal"\nretriever = "fedrag/tiny-encoder"\n'
        "[rag]\npassages = 1\nprompt_tokens = 320\nanswer_tokens = 8\n"
    )
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def written(site: Path) -> list[dict]:
    path = site / "train.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def asked_for_questions(endpoint: Endpoint) -> list[str]:
    messages = [body["messages"] for body in endpoint.asked]
    return [user["content"] for system, user in messages if "teacher" in system["content"]]


def test_an_endpoint_writes_questions_and_those_that_hold_are_added(site, scenario, endpoint):
    result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    assert result.exit_code == 0, result.output
    assert "6 questions added to" in result.output
    rows = {row["question"]: row for row in written(site)}
    assert rows["Who guards the yard?"]["answers"] == ["Porter 3"]
    assert rows["Who guards the yard?"]["passage_ids"] == ["p2"]
    assert {row["origin"] for row in rows.values()} == {"generated"}
    assert len({row["id"] for row in rows.values()}) == 6
    assert len(load_site(site).train) == 6
    assert endpoint.asked[0]["model"] == "house-model"
    assert "Warning" not in result.output


def test_the_same_command_again_asks_nothing_and_adds_nothing(site, scenario, endpoint):
    command = ("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    run(*command)
    before, endpoint.asked = (site / "train.jsonl").read_bytes(), []
    result = run(*command)
    assert "0 questions added" in result.output
    assert "6 questions kept, of 6 pieces tried" in result.output
    assert endpoint.asked == []
    assert (site / "train.jsonl").read_bytes() == before


def test_a_limit_is_of_all_calls_with_the_same_settings(site, scenario, endpoint):
    command = ("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    run(*command, "--limit", "2")
    assert len(written(site)) == 2
    run(*command, "--limit", "2")
    assert len(written(site)) == 2
    run(*command, "--limit", "5")
    assert len(written(site)) == 5
    run(*command)
    assert len(written(site)) == 6


def test_what_an_endpoint_s_end_cuts_short_is_kept_and_gone_on_from(site, scenario, endpoint, monkeypatch):
    monkeypatch.setattr(endpoint_writer.EndpointWriter, "at_once", 2)
    command = ("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    run(*command, "--limit", "2")
    endpoint.faults = [failure(503)] * 100
    result = run(*command)
    assert result.exit_code == 2
    assert "answers with the status 503 Service Unavailable; what was written so far is kept" in result.output
    assert len(written(site)) == 2
    endpoint.faults, endpoint.asked = [], []
    run(*command)
    assert len(written(site)) == 6
    assert len(asked_for_questions(endpoint)) == 4


def test_a_fault_that_passes_is_not_told_of(site, scenario, endpoint):
    endpoint.faults = [failure(429), failure(500)]
    result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    assert result.exit_code == 0, result.output
    assert len(written(site)) == 6


def test_what_is_known_held_out_or_does_not_hold_is_left_out_and_counted(site, scenario, monkeypatch):
    """Two are known at the site, one is held out, one is no question, one has no answer, one gives it away."""
    data = load_site(site)
    shutil.rmtree(site)
    known = Question("1", "who guards the GATE", ("Porter 1",), ("p0",))
    held_out = Question("2", "Who guards the hall?", ("Porter 2",), ("p1",))
    write_site(site, Site("east", data.passages, (known,), test=(held_out,)))

    def weak(system: str, user: str) -> str:
        thing = re.findall(r"guards the (\w+)", user)[0]
        if "teacher" not in system:
            return "nobody at all" if thing == "roof" else answer(system, user)
        return {"yard": "I do not know.", "attic": "Who is Porter 5 who guards the attic?"}.get(
            thing, f"Who guards the {thing}?"
        )

    before = (site / "test.jsonl").read_bytes()
    with served(weak) as endpoint:
        result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    assert [row["question"] for row in written(site)] == ["who guards the GATE", "Who guards the cellar?"]
    for line in (
        "no question was written: 1",
        "the site has the question already: 1",
        "the question stands in validation or test: 1",
        "no answer stands in the passage, or the question holds it: 2",
    ):
        assert line in result.output
    assert (site / "test.jsonl").read_bytes() == before


def test_a_question_that_does_not_find_its_passage_is_left_out(site, scenario):
    def astray(system: str, user: str) -> str:
        written = answer(system, user.replace("the attic", "the roof"))
        return written.replace("guards", "is it who guards") if "the attic" in user else written

    with served(astray) as endpoint:
        result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, "--top-k", "1")
    assert "the retriever does not find the passage: 1" in result.output
    assert all(row["passage_ids"] != ["p4"] for row in written(site))


def test_what_is_tried_is_noted_without_a_text(site, scenario, endpoint):
    run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    noted = (site / TRIED_FILE).read_text()
    assert noted.count("\n") == 6
    assert not any(word in noted for word in ("guards", "orter", "gate"))
    (site / TRIED_FILE).write_text(noted + '{"key": "cut o')
    again = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    assert "0 questions added" in again.output


def test_a_line_without_its_end_is_not_joined_to_the_next(site, scenario, endpoint):
    (site / "train.jsonl").write_text('{"id": "1", "question": "Why?", "answers": ["so"]}')
    run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL, "--limit", "1")
    assert len(load_site(site).train) == 2


def test_the_key_goes_to_the_endpoint_alone_and_only_where_one_is_set(site, scenario, endpoint, monkeypatch):
    command = ("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL, "--limit", "1")
    run(*command)
    assert set(endpoint.keys) == {""}
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    endpoint.keys = []
    run(*command, "--seed", "1", "--model", "other")
    assert set(endpoint.keys) == {"Bearer secret"}
    assert endpoint.asked[-1]["model"] == "other"


def test_no_proxy_of_the_environment_sees_a_passage(site, scenario, endpoint, monkeypatch):
    with served(answer) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
        assert proxy.asked == []
    assert len(written(site)) == 6


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_refused_and_nothing_is_sent_there(status, site, scenario, endpoint):
    with served(answer) as elsewhere:
        endpoint.faults = [redirect(f"{elsewhere.url}/chat/completions", status)] * 20
        result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
        assert elsewhere.asked == []
    assert result.exit_code == 2
    assert f"redirects to {elsewhere.url}/chat/completions, which is refused" in result.output
    assert written(site) == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (PlainTextResponse("<html>"), "its reply is no JSON; is this an OpenAI-compatible endpoint?"),
        (failure(200, {"choices": []}), "its reply holds no message"),
        (failure(401), f"answers with the status 401 Unauthorized; its key is taken from {KEY_VARIABLE}"),
        (failure(404), "answers with the status 404 Not Found"),
    ],
)
def test_an_endpoint_that_is_none_is_told_in_one_sentence(reply, told, site, scenario, endpoint):
    endpoint.faults = [reply] * 20
    result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url, *TOP_ALL)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "localhost:8000",
            '"localhost:8000" is no address of an endpoint; expected one such as http://localhost:8000/v1',
        ),
        ("ftp://localhost", '"ftp://localhost" is no address of an endpoint'),
        ("http://[::1", '"http://[::1" is no address'),
        ("http://no-such-name.invalid/v1", "the name no-such-name.invalid is not known here"),
        ("http://127.0.0.1:9/v1", "cannot be reached"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_in_one_sentence(url, told, site, scenario, monkeypatch):
    monkeypatch.setattr(endpoint_writer, "_WAIT_S", 0.01)
    result = run("questions", site, "--scenario", scenario, "--endpoint", url)
    assert result.exit_code == 2
    assert told in result.output


def test_an_endpoint_outside_the_house_is_warned_of_before_anything_is_sent(site, scenario, endpoint, monkeypatch):
    """The name is resolved: what it says is no proof. Here it leads to two addresses, of which one is public."""
    port = int(endpoint.url.rpartition(":")[2].removesuffix("/v1"))
    known = [(2, 1, 6, "", ("127.0.0.1", port)), (2, 1, 6, "", ("203.0.113.7", port))]
    resolve = data_augment.sys.modules["socket"].getaddrinfo

    def resolved(host, *rest, **more):
        return known if host == "intranet.example" else resolve(host, *rest, **more)

    monkeypatch.setattr("socket.getaddrinfo", resolved)
    url = endpoint.url.replace("127.0.0.1", "intranet.example")
    result = run("questions", site, "--scenario", scenario, "--endpoint", url, *TOP_ALL, "--limit", "1")
    assert "Warning: intranet.example (203.0.113.7) is neither this machine nor a private network: passages" in (
        result.output
    )


def test_the_generator_of_the_store_writes_too(site, scenario):
    """A random model writes nothing that holds, and every passage is tried once."""
    result = run("questions", site, "--scenario", scenario, *TOP_ALL)
    assert result.exit_code == 0, result.output
    assert "0 questions added" in result.output
    assert "of 6 pieces tried; the passages have 6" in result.output
    assert written(site) == []


def test_an_encoder_writes_no_questions(site):
    result = run("questions", site, "--model", "fedrag/tiny-encoder")
    assert result.exit_code == 2
    assert '--model "fedrag/tiny-encoder" is an encoder, no language model' in result.output


def test_two_commands_do_not_add_to_a_site_at_once(site, scenario, endpoint):
    from fedrag.data.writing import alone_at_site

    with alone_at_site(site):
        result = run("questions", site, "--scenario", scenario, "--endpoint", endpoint.url)
    assert result.exit_code == 2
    assert "another fedrag adds questions to this site; let it end first" in result.output


@pytest.mark.slow
def test_the_real_model_writes_questions_that_hold(real_models, tmp_path):
    shipped = Path(__file__).parents[2] / "simulations" / "data" / "space" / "nasa"
    shutil.copytree(shipped, tmp_path / "nasa")
    before = load_site(tmp_path / "nasa")
    result = run("questions", tmp_path / "nasa", "--limit", "3")
    assert result.exit_code == 0, result.output
    after = load_site(tmp_path / "nasa")
    new = after.train[len(before.train) :]
    assert 0 < len(new) <= 3
    passages = {passage.id: passage for passage in after.passages}
    for question in new:
        assert question.origin == "generated"
        assert question.answers[0] in passages[question.passage_ids[0]].full_text
