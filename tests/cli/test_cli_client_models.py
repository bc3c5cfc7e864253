"""`fedrag client ask, export, models, rollback, evaluate, audit-model, purge`, as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from clinic import QUESTION, deliver, make_clinic, trained_run
from sentence_transformers import SentenceTransformer
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.planted_canaries import plant_canaries
from fedrag.diagnosis.diagnose import diagnose_run
from fedrag.models.resident import RoundModels
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.site.delivery import open_current

NORTH = str(SHIPPED / "north")


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("client") / "tiny-1")


@pytest.fixture
def clinic(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that received the retriever of one run and then both components of another."""
    folder = make_clinic(tmp_path)
    deliver(folder, run, "first-1", "retriever")
    deliver(folder, run)
    monkeypatch.chdir(tmp_path)
    return folder


def client(*arguments: str, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, ["client", *arguments], input=typed)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refusal(*arguments: str, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, ["client", *arguments], input=typed)
    assert result.exit_code == 2, result.output
    [line] = [line for line in result.stderr.splitlines() if line]
    return line


def listed() -> dict[str, str]:
    """Return the state of each run, and what is current."""
    found = json.loads(client("models", "clinic", "--json"))
    return {row["run"]: row["state"] for row in found["models"]} | {"": found["current"]}


def test_a_site_asks_what_an_operator_of_the_run_would_ask(clinic: Path, run: RunFolder):
    ours = json.loads(client("ask", "clinic", QUESTION, "--passages", "3", "--json"))
    result = CliRunner().invoke(app, ["ask", str(run.path), QUESTION, "--data", NORTH, "--passages", "3", "--json"])
    theirs = json.loads(result.stdout)
    assert (ours.pop("run"), ours.pop("site")) == ("tiny-1", "clinic")
    assert (theirs.pop("run"), theirs.pop("site")) == ("tiny-1", "north")
    assert ours == theirs
    assert ours["untouched"] != ours["trained"]


def test_without_a_question_a_site_asks_until_an_empty_line(clinic: Path):
    output = client("ask", "clinic", typed=f"{QUESTION}\nWhere is it?\n\n")
    assert output.startswith("Answers come from the passages of clinic. An empty line or Ctrl-D ends it.\nQuestion: ")
    assert [line for line in output.splitlines() if line.startswith("clinic: ")] == [
        f"clinic: {QUESTION}",
        "clinic: Where is it?",
    ]
    assert "Right answers (test.jsonl): two coins a week" in output


def test_going_back_changes_what_answers(clinic: Path):
    both = json.loads(client("ask", "clinic", QUESTION, "--json"))
    assert client("rollback", "clinic") == "tiny-1 is taken back; first-1 is current now\n"
    retriever = json.loads(client("ask", "clinic", QUESTION, "--json"))
    assert (both["run"], retriever["run"]) == ("tiny-1", "first-1")
    assert retriever["components"] == ["retriever"]
    assert retriever["untouched"] == both["untouched"]
    assert retriever["trained"]["found"] == both["trained"]["found"]
    assert client("rollback", "clinic") == "first-1 is taken back; the untouched models are current now\n"
    assert refusal("rollback", "clinic").endswith("the untouched models are current; there is nothing to go back to")
    assert "all delivered models were taken back" in refusal("ask", "clinic", QUESTION)


def test_a_site_exports_what_it_asks(clinic: Path, tmp_path: Path):
    assert client("export", "clinic", "--out", str(tmp_path / "out")).splitlines()[:2] == [
        f"{name}: {tmp_path / 'out' / name}" for name in ("generator", "retriever")
    ]
    delivered = open_current(clinic)
    ours = RoundModels(delivered.config, delivered.state).retriever.encode_queries([QUESTION])
    encoder = SentenceTransformer(str(tmp_path / "out" / "retriever"), device="cpu")
    np.testing.assert_allclose(encoder.encode([QUESTION]), ours, atol=1e-5)
    assert (tmp_path / "out" / "generator" / "README.md").is_file()
    assert refusal("export", "clinic", "--out", str(tmp_path / "out")).endswith("exists already; choose another folder")


def test_a_site_writes_its_own_training_set(clinic: Path, tmp_path: Path):
    said = client("export", "clinic", "--out", str(tmp_path / "out"), "--openai-jsonl", "--merged").splitlines()
    assert "must stay in the house" in said[-1]
    lines = (tmp_path / "out" / "openai" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"][-1]["role"] for line in lines] == ["assistant"] * len(lines) != []
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "this site does not" in card
    assert "clinic" not in card
    assert (tmp_path / "out" / "generator" / "model.safetensors").is_file()


def test_the_list_shows_what_was_delivered_and_what_is_current(clinic: Path):
    assert listed() == {"first-1": "earlier", "tiny-1": "current", "": "tiny-1"}
    rows = [line.split() for line in client("models", "clinic").splitlines() if "-1" in line]
    assert [(row[0], row[3:-3], row[-3]) for row in rows] == [
        ("first-1", ["retriever"], "earlier"),
        ("tiny-1", ["generator,", "retriever"], "current"),
    ]
    client("rollback", "clinic")
    assert listed() == {"first-1": "current", "tiny-1": "taken back", "": "first-1"}
    client("rollback", "clinic")
    assert listed() == {"first-1": "taken back", "tiny-1": "taken back", "": None}
    assert "the untouched models are current: all that were delivered are taken back" in client("models", "clinic")
    shutil.rmtree("clinic/models")
    assert client("models", "clinic") == "no models were delivered yet\n"


def test_measuring_writes_a_page_and_figures_beside_the_models(clinic: Path, run: RunFolder):
    output = client("evaluate", "clinic", "--split", "validation")
    assert (
        output.splitlines()[-1]
        == "report: clinic/models/tiny-1/report.html (it quotes this site's data and stays here)"
    )
    results = json.loads(Path("clinic/models/tiny-1/results.json").read_text())
    arguments = ["evaluate", str(run.path), "--data", NORTH, "--split", "validation", "--json", "theirs.json"]
    CliRunner().invoke(app, arguments)
    assert results["federated"] == json.loads(Path("theirs.json").read_text())["overall"]
    assert (results["run"], results["site"], results["split"]) == ("tiny-1", "clinic", "validation")
    rows = [line.split() for line in output.splitlines() if line.split()[:1] in (["untouched"], ["delivered"])]
    assert [row[1] for row in rows] == ["4", "4"]
    assert f"{100 * results['federated']['mrr']:.1f}" in rows[1]
    assert "Federation reaches" in Path("clinic/models/tiny-1/report.html").read_text()
    assert json.loads(client("models", "clinic", "--json"))["models"][1]["report"].endswith("tiny-1/report.html")


def test_what_cannot_be_measured_is_told_in_one_sentence_and_writes_nothing(clinic: Path):
    (clinic / "data" / "test.jsonl").unlink()
    assert refusal("evaluate", "clinic") == (
        "Error: clinic: has no question in its test split; choose another with --split"
    )
    assert not list(clinic.rglob("report.html"))
    assert not list(clinic.rglob("results.json"))


def test_a_site_audits_what_it_received_with_the_canaries_of_that_run(clinic: Path, tmp_path: Path):
    made = plant_canaries(clinic / "data", 40, 0)
    rounds = {"rounds": 1, "schedule": "retriever"}
    deliver(clinic, simulate(tiny_config(clinic / "data", federation=rounds), out=tmp_path / "run"), "planted-1")
    said = client("audit-model", "clinic", "--json", "audit.json")
    told = json.loads((tmp_path / "audit.json").read_text())
    counts = {"planted": len(made.planted), "held_back": len(made.held_back)}
    assert (told["run"], list(told["membership"])) == ("planted-1", ["retriever"])
    assert {key: told["canaries"][key] for key in counts} == counts
    assert told["canaries"]["membership"]["retriever"]["n_members"] == len(made.planted)
    assert f"Of 40 made-up questions, a coin planted {len(made.planted)} among the training questions" in said
    audit = clinic / "models" / "planted-1" / "audit"
    assert [path.name for path in audit.iterdir()] == ["audit.html"]
    written = said + (audit / "audit.html").read_text() + (tmp_path / "audit.json").read_text()
    assert not [q for q in made.in_order if q.question in written or q.answers[0] in written]


def test_purge_tells_what_it_removes_and_why_it_leaves_the_rest_and_asks(clinic: Path):
    (clinic / "egress.jsonl").write_text("the proof")
    output = client("purge", "clinic", typed="n\n")
    assert output.splitlines()[0] == "This removes for good:"
    assert "  models of first-1: " in output
    assert "egress.jsonl, which proves what has left the site" in output
    assert output.splitlines()[-1] == "nothing was removed"
    assert refusal("purge", "clinic", typed="").startswith("Error: nothing was removed: nobody answered; --yes skips")
    assert listed()[""] == "tiny-1"
    output = client("purge", "clinic", "--run", "tiny-1", typed="y\n")
    assert output.splitlines()[-1].endswith("removed; first-1 is current")
    assert not (clinic / "models" / "tiny-1").exists()
    assert client("purge", "clinic", "--yes").splitlines()[-1] == "removed; the untouched models are current"
    assert client("purge", "clinic").splitlines()[0] == "there is nothing to remove"
    assert (clinic / "egress.jsonl").read_text() == "the proof"
    assert (clinic / "site.key").is_file()
    assert "no models of a run 'tiny-1'; there are: none" in refusal("purge", "clinic", "--run", "tiny-1")


@pytest.mark.parametrize(
    "verb",
    [
        ("ask",),
        ("export", "--out", "out"),
        ("models",),
        ("adopt",),
        ("rollback",),
        ("evaluate",),
        ("diagnose",),
        ("purge", "--yes"),
    ],
)
def test_a_folder_that_is_no_site_is_refused(verb: tuple[str, ...], tmp_path: Path):
    (tmp_path / "models" / "precious").mkdir(parents=True)
    name, *options = verb
    assert refusal(name, str(tmp_path), *options).endswith(
        "site.toml: no such file; fedrag client init DIR makes a site's folder"
    )
    assert (tmp_path / "models" / "precious").is_dir()


def test_a_site_sees_why_its_answers_are_wrong(clinic: Path, run: RunFolder):
    output = client("diagnose", "clinic", "--json", "why.json")
    result = json.loads(Path("why.json").read_text())
    theirs = diagnose_run(run.path, NORTH)
    assert result["overall"]["counts"] == theirs["overall"]["counts"]
    assert result["sites"].keys() == {"clinic"}
    assert "tiny-1 at clinic, trained models: 4 validation questions with an answer" in output
    assert "Loss on general text" in output
    assert output.splitlines()[-1] == "The scenario is the coordinator's: these lines are for it to set."
    client("rollback", "clinic")
    client("rollback", "clinic")
    assert "untouched models: 4 validation questions" in client("diagnose", "clinic", "--base")
    assert refusal("diagnose", "clinic").endswith("clinic: all delivered models were taken back"), "it compares nothing"
    (clinic / "data" / "test.jsonl").unlink()
    assert "no question of the test split has an answer" in refusal("diagnose", "clinic", "--base", "--split", "test")
