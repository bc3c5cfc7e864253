"""The circle of a system in use: documents, what is wrong with the answers, a round of training, the models taken into
use, a wrong answer, a person's correction, another round, the right answer.

Everything is real: the models, a coordinator and two sites, the service that people ask, and the commands that they
type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deployment import Deployment
from fedrag_process import await_moment, run_to_its_end, started
from ports import free_ports

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.data.words import holds_words
from fedrag.evaluation.answers import exact_match

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

SHIPPED = Path(__file__).parents[2] / "simulations" / "data" / "tiny"
KNOWN = {"north": 4, "east": 2}
"""How many questions each house has in its table."""

# What people ask at north: the answer is known there, and no sentence says it in these words.
ASKED = {
    "How long is the ferry Alma away from Ulvik?": ("fourteen hours", "comes back at nine in the evening"),
    "What must I pay if I keep a book for a month too long?": ("eight coins", "costs two coins a week"),
    "How do I know that fog is coming?": ("the lamp turns green", "The lamp turns green"),
}


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Two small sites, made from documents and a table, so that a round takes a minute."""
    rows = []
    for name, n_known in KNOWN.items():
        house = load_site(SHIPPED / name)
        (tmp_path / "documents" / name).mkdir(parents=True)
        for passage in house.passages:
            document = tmp_path / "documents" / name / f"{passage.id}.md"
            document.write_text(f"# {passage.title}\n\n{passage.text}\n", encoding="utf-8")
        rows += [{"question": q.question, "answer": q.answers[0], "house": name} for q in house.train[:n_known]]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = ("--qa", tmp_path / "questions.jsonl", "--site-by", "folder", "--site", "house", "--split", "1/0/0")
    typed("data", "import", "documents", tmp_path / "documents", tmp_path / "sites", *table)
    return tmp_path / "sites"


def typed(*command: str | Path) -> str:
    """Run a command as a person types it; return what it said."""
    code, out, err = run_to_its_end(*command)
    assert (code, err) == (0, "")
    return out


@pytest.fixture
def deployment(sites: Path, tmp_path: Path) -> Iterator[Deployment]:
    """A coordinator and the two houses, which run."""
    with Deployment(tmp_path / "deployed", {name: sites / name for name in KNOWN}) as running:
        yield running


def one_round(deployment: Deployment) -> str:
    """Train once with both houses, and take the result into use at north, where a person decides; return its run."""
    settings: dict[str, Any] = {
        "name": "circle",
        "data": {"sites": "sites"},
        "rag": {"passages": 1, "answer_tokens": 10},
        # from the question on: what stands before it is read once for all epochs
        "generator": {"learning_rate": 2e-3, "epochs": 8, "batch_size": 4, "adapter_from": "question"},
        "federation": {"rounds": 1, "schedule": "joint", "min_sites": 2, "deadline_s": 1200.0},
    }
    name = deployment.begin(Config.from_dict(settings))
    assert sorted(deployment.wait_until_done(name, timeout_s=1200).rounds()[0]["sites"]) == sorted(KNOWN)
    north = deployment.root / "north"
    deployment.wait(lambda: "waits for you" in typed("client", "models", north), 300, "the models measured")
    assert typed("client", "adopt", north) == f"{name} is current now\n"
    return name


@contextmanager
def served(folder: Path) -> Iterator[httpx.Client]:
    """Let people ask at a site, in a process of its own."""
    [port] = free_ports(1)
    with (
        started("client", "serve", folder, "--port", str(port)) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        await_moment(process, lambda: is_up(client), timeout_s=300)
        yield client


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def holding(site: Path, words: str) -> str:
    """Return the id of the passage that holds some words."""
    [identity] = [passage.id for passage in load_site(site).passages if words in passage.text]
    return identity


def ask(client: httpx.Client, question: str) -> tuple[str, list[str]]:
    """Return the answer and the ids of the passages that were shown."""
    body = {"model": "fedrag", "messages": [{"role": "user", "content": question}]}
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return reply["choices"][0]["message"]["content"], [passage["id"] for passage in reply["fedrag"]["passages"]]


def diagnosis(folder: Path, out: Path) -> dict[str, Any]:
    """Return why answers at a site are wrong."""
    typed("client", "diagnose", folder, "--split", "train", "--json", out)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.usefixtures("real_models")
def test_a_wrong_answer_that_a_person_corrects_is_right_after_the_next_round(
    deployment: Deployment, sites: Path, tmp_path: Path
) -> None:
    data, folder = sites / "north", deployment.root / "north"
    one_round(deployment)
    assert diagnosis(folder, tmp_path / "before.json")["overall"]["counts"]["questions"] == KNOWN["north"]
    corrected: list[str] = []
    with served(folder) as service:
        for question, (right, words) in ASKED.items():
            answer, shown = ask(service, question)
            if holds_words(answer, right):
                continue
            said = {"question": question, "answer": answer, "shown": shown, "verdict": "wrong"}
            said |= {"correction": right, "right_ids": [holding(data, words)]}
            service.post("/feedback", json=said).raise_for_status()
            corrected.append(question)
        assert corrected, "the models know everything already"
        for row in service.get("/review/rows").raise_for_status().json()["rows"]:
            service.post(f"/review/rows/{row['id']}", json={"state": "accepted"}).raise_for_status()

    assert typed("feedback", "export", folder).startswith(f"{len(corrected)} question")
    learned = [question for question in load_site(data).train if question.origin == "feedback"]
    assert [question.question for question in learned] == corrected

    one_round(deployment)
    counts = diagnosis(folder, tmp_path / "after.json")["overall"]["counts"]
    assert counts["questions"] == KNOWN["north"] + len(corrected)
    assert counts["right"] >= len(corrected)
    with served(folder) as service:
        answers = {question: ask(service, question)[0] for question in corrected}
    right = {question for question, answer in answers.items() if exact_match(answer, [ASKED[question][0]])}
    assert right == set(corrected), json.dumps(answers)
