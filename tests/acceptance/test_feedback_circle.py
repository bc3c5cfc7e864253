"""The circle of a system in use: a wrong answer, a person's correction, a round of training, the right answer.

Everything is real: the models, the service as a process of its own, the site's files, the command that exports.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deployment import free_ports
from fedrag_process import await_moment, run_to_its_end, started

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.evaluation.answers import exact_match
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

SHIPPED = Path(__file__).parents[2] / "simulations" / "data" / "tiny"
TRAIN = {"north": 8, "east": 4}

# What people of the site ask: the answer is known there, and no sentence says it in these words.
ASKED = {
    "How long is the ferry Alma away from Ulvik?": ("fourteen hours", "north-1"),
    "What must I pay if I keep a book for a month too long?": ("eight coins", "north-3"),
    "Where does the fish go that nobody bought?": ("the school kitchen", "north-4"),
    "How do I know that fog is coming?": ("the lamp turns green", "north-2"),
}


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Two small sites, so that a round takes a minute."""
    for name, questions in TRAIN.items():
        shutil.copytree(SHIPPED / name, tmp_path / "sites" / name)
        file = tmp_path / "sites" / name / "train.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)[:questions]
        file.write_text("".join(lines), encoding="utf-8")
    return tmp_path / "sites"


def one_round(sites: Path, out: Path) -> RunFolder:
    settings: dict[str, Any] = {
        "name": "circle",
        "data": {"sites": str(sites)},
        "rag": {"passages": 2, "answer_tokens": 10},
        "generator": {"learning_rate": 2e-3},
        "federation": {"rounds": 1, "schedule": "joint"},
        "evaluation": {"split": "none"},
    }
    return simulate(Config.from_dict(settings), out=out)


@contextmanager
def served(run: RunFolder, site: Path) -> Iterator[httpx.Client]:
    """Serve a run's models on a site's passages in a process of its own."""
    [port] = free_ports(1)
    with (
        started("serve", run.path, "--data", site, "--port", str(port)) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        await_moment(process, lambda: is_up(client), timeout_s=300)
        yield client


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def ask(client: httpx.Client, question: str) -> tuple[str, list[str]]:
    """Return the answer and the ids of the passages that were shown."""
    body = {"model": "fedrag", "messages": [{"role": "user", "content": question}]}
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return reply["choices"][0]["message"]["content"], [passage["id"] for passage in reply["fedrag"]["passages"]]


@pytest.mark.usefixtures("real_models")
def test_a_wrong_answer_that_a_person_corrects_is_right_after_the_next_round(sites: Path, tmp_path: Path) -> None:
    north = sites / "north"
    corrected: list[str] = []
    with served(one_round(sites, tmp_path / "before"), north) as service:
        for question, (right, passage) in ASKED.items():
            answer, shown = ask(service, question)
            if exact_match(answer, [right]):
                continue
            said = {"question": question, "answer": answer, "shown": shown, "verdict": "wrong"}
            service.post("/feedback", json=said | {"correction": right, "right_ids": [passage]}).raise_for_status()
            corrected.append(question)
        assert corrected, "the models know everything already"
        for row in service.get("/review/rows").raise_for_status().json()["rows"]:
            service.post(f"/review/rows/{row['id']}", json={"state": "accepted"}).raise_for_status()

    code, out, err = run_to_its_end("feedback", "export", north)
    assert (code, err) == (0, "")
    assert out.startswith(f"{len(corrected)} question")
    learned = [question for question in load_site(north).train if question.origin == "feedback"]
    assert [question.question for question in learned] == corrected

    with served(one_round(sites, tmp_path / "after"), north) as service:
        answers = {question: ask(service, question)[0] for question in corrected}
    right = {question for question, answer in answers.items() if exact_match(answer, [ASKED[question][0]])}
    assert right == set(corrected), json.dumps(answers)
