"""Every command that a document shows runs as shown: on small files of the named kinds, with the tiny models.

The tiny models stand under the names of the real ones, so that not a letter of a command is changed.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from office_files import write_documents, write_xlsx
from test_readme_commands import DOCUMENTS, ROOT, blocks
from typer.main import get_command
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.models import resident
from fedrag.weights.store import find_model

NOT_RUN = {
    "fedrag report runs/tiny-1 --to tensorboard --to mlflow": "extras; make integrations runs it with all four",
    "fedrag models fetch": "make setup runs it; it downloads the real models",
    "fedrag models fetch Qwen/Qwen2.5-0.5B-Instruct": "it needs the model hub",
    "fedrag data import hub rajpurkar/squad data/squad --question question --answer answers.text --passage context "
    "--site title": "it needs the hub's data sets",
} | dict.fromkeys(
    [
        "fedrag serve runs/libraries-1 --data my-federation/sites/harbour-library",
        "fedrag serve runs/tiny-1 --data simulations/data/tiny/north",
        "fedrag serve simulations/scenarios/tiny.toml --data simulations/data/tiny/north --port 8101",
        "fedrag serve runs/tiny-1 --data simulations/data/tiny/north --host 0.0.0.0 --token-file token.txt",
    ],
    "it goes on running; tests/cli/test_cli_serve.py starts such ones and ends them",
)
TRIED = {
    f"fedrag simulate simulations/scenarios/{name}.toml{threads}": "a dry run: minutes; tests/simulation runs such ones"
    for name in ("staged", "iterate")
    for threads in ("", " --set simulation.threads=1")
} | dict.fromkeys(
    [
        "fedrag simulate simulations/scenarios/private.toml",
        "fedrag simulate simulations/scenarios/private.toml --set privacy.epsilon=2",
    ],
    "a dry run: two questions a file leave no hard negative; tests/simulation/test_private.py runs such ones",
)
TRIED["fedrag simulate simulations/scenarios/iterate.toml --set data.sites=data/policyqa-tenth"] = "a dry run: as above"
TRIED["fedrag simulate simulations/scenarios/tiny.toml --set federation.personalise=1"] = (
    "a dry run: tests/simulation/test_personalise.py runs such ones"
)
TRIED[
    "fedrag simulate simulations/scenarios/xquad.toml --set data.sites=data/xquad-wide --set federation.rounds=2 "
    "--set federation.secure=true"
] = "a dry run: of so few questions some sites have none that train the retriever; tests/federation runs such ones"
TRIED["fedrag simulate simulations/scenarios/demo.toml --set 'evaluation.rates=[2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3]'"] = (
    "a dry run: three arms of five rates; simulations/README.md shows two with tiny.toml, which run"
)
TRIED[
    "fedrag simulate simulations/scenarios/xquad.toml --set federation.rounds=4 --set retriever.learning_rate=1e-3 "
    '--set \'evaluation.baselines=["local", "pooled"]\' --set evaluation.arms.local.generator.learning_rate=5e-4 '
    "--set evaluation.arms.local.retriever.learning_rate=5e-4 "
    "--set evaluation.arms.pooled.generator.learning_rate=2.5e-4 "
    "--set evaluation.arms.pooled.retriever.learning_rate=2.5e-4"
] = "a dry run: three arms of four rounds; demo.toml, which runs, has such arms"
TRIED[
    "fedrag simulate simulations/scenarios/policyqa.toml --set data.sites=data/policyqa-rates "
    '--set \'data.hold_out=["adweek.com","fool.com","ted.com","walmart.com","yahoo.com"]\' '
    "--set evaluation.sites=held-out --set evaluation.split=all --set federation.rule=ffa "
    "--set retriever.learning_rate=4e-3 --set federation.rounds=8 --set retriever.contrastive.hard_negatives=1"
] = "a dry run: eight rounds; shorter ones of this scenario run"
TRIED["fedrag simulate simulations/scenarios/medquad.toml"] = "a dry run: random models answer to the last token"
LEAVES = {
    "README.md": ("my-federation/scenario.toml", "runs/libraries-1/report.html", "libraries-models/README.md"),
    "simulations/README.md": (
        "runs/demo-1/report.html",
        "runs/policyqa-1/final",
        "runs/tiny-1/results.json",
        "runs/one-round/results.json",
        "result.json",
        "exported/retriever/modules.json",
        "exported/retriever/README.md",
        "exported/generator/README.md",
        "exported/rag.json",
        "whole/generator/model.safetensors",
        "whole/openai/train.jsonl",
        "tiny.html",
    ),
    "simulations/RESULTS.md": ("runs/demo-1/report.html", "runs/xquad-1/final", "runs/policyqa-1/results.json"),
}
PRINTED = {
    "RagSystem": "The pool opens at seven.",
    "write_sites": "['east', 'west']",
    "ComponentSpec": "moved: True exported: ['head.safetensors']",
    "rag.json": "Question: What does a late book cost?",
    "simulate": "'n_questions': 6",
}
WEBSITES = ("adweek.com", "fool.com", "ted.com", "walmart.com", "yahoo.com", "style.com", "mlb.com", "npr.org")
SUBJECTS = ("porter", "gate", "lift", "tram", "owl", "cellar", "parcel", "letter", "roof", "tyre")
ROWS = [
    {
        "q": "Who guards the gate?",
        "a": "A porter",
        "context": "A porter guards the gate.",
        "hospital": "a",
    },
    {"q": "When does the ward open?", "a": "at nine", "context": "The ward opens at nine.", "hospital": "b"},
    {"q": "What is on the roof?", "a": "a garden", "context": "There is a garden on the roof.", "hospital": "a"},
]
HOTPOT = {
    "question": "Where is the lift?",
    "answer": "at the back",
    "supporting_facts": [["Lift", 0]],
    "context": [["Lift", ["The lift is at the back."]]],
}


def shown(document: str) -> list[str]:
    """Return the commands of a document's blocks, in order."""
    return [line for block in blocks(document) for line in block.splitlines() if line.startswith("fedrag ")]


def squad(titles: tuple[str, ...]) -> str:
    """Return SQuAD-like JSON: two passages an article, six questions a passage."""
    articles = []
    for title in titles:
        paragraphs = []
        for n, thing in enumerate(("letters", "parcels")):
            context = f"{title} keeps {thing} for {n + 3} days in the cellar."
            qas = [
                {
                    "id": f"{title}-{n}-{k}",
                    "question": f"{opening} {thing} at {title}?",
                    "answers": [{"text": f"{n + 3} days", "answer_start": context.index(f"{n + 3} days")}],
                }
                for k, opening in enumerate(
                    ("How long are", "For how many days are", "Say how long there are", "Until when lie", "Why", "Who")
                )
            ]
            paragraphs.append({"context": context, "qas": qas})
        articles.append({"title": title, "paragraphs": paragraphs})
    return json.dumps({"version": "1.1", "data": articles})


def write_users_files(folder: Path) -> None:
    """Write what the documents assume that a user has."""
    (folder / "squad.json").write_text(squad(("north", "south")))
    for language in ("en", "vi", "zh", "de"):
        (folder / f"xquad.{language}.json").write_text(squad(tuple(f"article-{n}" for n in range(8))))
    for name in ("dev.json", "test.json"):
        (folder / name).write_text(squad(WEBSITES))
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with (folder / "qa.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "qa.parquet")
    write_xlsx(folder / "qa.xlsx", [list(ROWS[0]), *(list(row.values()) for row in ROWS)])
    write_documents(folder)
    for source in ("5_NIDDK_QA", "8_NHLBI_QA_XML"):
        (folder / "MedQuAD-master" / source).mkdir(parents=True)
        for n, illness in enumerate(("Gout", "Croup", "Mumps", "Scurvy", "Rickets", "Colic")):
            (folder / "MedQuAD-master" / source / f"{n}.xml").write_text(
                f"<Document><Focus>{illness}</Focus><QAPairs><QAPair><Question qid='{n}'>What is {illness}?</Question>"
                f"<Answer>{illness} is an illness.</Answer></QAPair></QAPairs></Document>"
            )
    chat: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "Context: The lift is at the back.\n\nQuestion: Where is the lift?"},
            {"role": "assistant", "content": "at the back"},
        ]
    }
    (folder / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    (folder / "hotpot_dev_distractor_v1.json").write_text(json.dumps([HOTPOT]))
    triplet = {"anchor": "Who guards the gate?", "positive": "A porter does.", "negative": "The gate is green."}
    (folder / "triplets.jsonl").write_text(json.dumps(triplet) + "\n")
    (folder / "scifact" / "qrels").mkdir(parents=True)
    things = [f"{size} {thing}" for size in ("long", "old", "red", "late") for thing in SUBJECTS]
    for name in ("corpus", "queries"):
        rows = [{"_id": str(n), "text": f"The {thing}."} for n, thing in enumerate(things)]
        (folder / "scifact" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"{n}\t{n}\t1\n" for n in range(len(things)))
    (folder / "scifact" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    article = {"QUESTION": "Is it?", "CONTEXTS": ["It may be."], "LABELS": ["AIM"], "final_decision": "maybe"}
    (folder / "ori_pqal.json").write_text(json.dumps({"1": article}))
    (folder / "annotations.json").write_text(squad(("north", "south")).replace('"title"', '"document"'))
    (folder / "testset.csv").write_text(
        "user_input,reference_contexts,reference\nWho guards the gate?,\"['A porter does.']\",A porter\n"
    )
    for site, like in {"east": "east", "west": "north"}.items():
        shutil.copytree(ROOT / "simulations" / "data" / "tiny" / like, folder / "hospitals" / site)


def keep_questions(site: Path, number: int = 2) -> None:
    """Leave some questions a file, and the passages that they name; tests/data/test_space_data.py reads all of them."""
    named = set()
    for split in ("train", "validation", "test"):
        lines = (site / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:number]
        named |= {passage for line in lines for passage in json.loads(line)["passage_ids"]}
        (site / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = (site / "passages.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["id"] in named]
    (site / "passages.jsonl").write_text("".join(kept), encoding="utf-8")


def shorten(scenario: Path) -> None:
    """Leave two rounds of one pass: that a command runs does not depend on more."""
    text = scenario.read_text(encoding="utf-8")
    text = re.sub(r"^epochs = \d+", "epochs = 1", text, flags=re.M)
    if "stage_rounds" not in text:  # two stages need more
        text = re.sub(r"^rounds = [3-9]$", "rounds = 2", text, flags=re.M)
    scenario.write_text(text, encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path, tiny_home: Path, one_cpu: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with what a clone holds and what its user has, the tiny models under the real names."""
    shutil.copytree(ROOT / "simulations", tmp_path / "simulations")
    for data in ("space", "tiny"):
        sites = sorted((tmp_path / "simulations" / "data" / data).iterdir())
        for site in sites[:3]:
            keep_questions(site)
        for site in sites[3:]:
            shutil.rmtree(site)
    for scenario in (tmp_path / "simulations" / "scenarios").glob("*.toml"):
        shorten(scenario)
    write_users_files(tmp_path)
    causal, encoder = find_model("fedrag/tiny-causal").folder, find_model("fedrag/tiny-encoder").folder
    home = tmp_path / "home"
    shutil.copytree(tiny_home, home, ignore=shutil.ignore_patterns("HuggingFaceTB*", "sentence-transformers*"))
    monkeypatch.setenv("FEDRAG_HOME", str(home))
    monkeypatch.setattr(resident, "_RESIDENT", {})  # an earlier test may have loaded the real models under their names
    monkeypatch.chdir(tmp_path)
    shutil.copytree(causal, tmp_path / "path" / "to" / "my-model")
    for folder, name in (
        (causal, "HuggingFaceTB/SmolLM2-135M-Instruct"),
        (causal, "google/gemma-3-270m"),
        (encoder, "sentence-transformers/all-MiniLM-L6-v2"),
        (encoder, "intfloat/multilingual-e5-small"),
    ):
        run(f"fedrag models fetch {folder} --source path --name {name}")
    return tmp_path


def run(line: str) -> str:
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return result.output


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", LEAVES)
def test_every_shown_command_runs(document: str, clone: Path):
    for line in shown(document):
        if line not in NOT_RUN:
            line = f"{line} --dry-run" if line in TRIED else line
            # Of random models, under the names of the real ones, all similarities are alike.
            run(f"{line} --set retriever.contrastive.hard_negative_margin=0" if "/private.toml" in line else line)
    for name in LEAVES[document]:
        assert (clone / name).exists(), name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_examples_of_the_help_on_the_data_that_ships_run_as_shown(clone: Path):
    group = get_command(app)
    assert isinstance(group, click.Group)
    verbs = [*group.commands.values(), *group.commands["data"].commands.values()]  # type: ignore[attr-defined]
    verbs += group.commands["data"].commands["import"].commands.values()  # type: ignore[attr-defined]
    paragraphs = [" ".join(text.split()) for verb in verbs for text in str(verb.help).split("\n\n")]
    examples = [text.removeprefix("Example: ") for text in paragraphs if text.startswith("Example: ")]
    lines = [line for line in examples if re.search(r"\btiny\b|runs/tiny-1|fedrag new", line)]
    lines = [line for line in lines if not line.startswith("fedrag serve ")]  # it goes on running
    assert {line.split()[1] for line in lines} >= {"simulate", "evaluate", "compare", "ask", "new", "data"}
    for line in [lines[0], *lines]:  # two runs, for one example compares them
        run(line)
    assert {path.name for path in (clone / "runs").iterdir()} == {"tiny-1", "tiny-2"}


def test_only_documents_with_commands_are_run():
    assert list(LEAVES) == [document for document in DOCUMENTS if shown(document)]


def test_what_is_not_run_is_shown():
    assert NOT_RUN.keys() | TRIED.keys() <= {line for document in DOCUMENTS for line in shown(document)}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("code", [code for document in DOCUMENTS for code in blocks(document, "python")])
def test_the_shown_python_runs_as_a_script_outside_the_project(clone: Path, code: str):
    (clone / "shown.py").write_text(code)
    done = subprocess.run([sys.executable, "shown.py"], cwd=clone, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert next(printed for word, printed in PRINTED.items() if word in code) in done.stdout
