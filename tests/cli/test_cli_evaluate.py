"""`fedrag evaluate` and `fedrag compare`, as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app

TINY = Path(__file__).parents[2] / "simulations" / "data" / "tiny"
SCENARIO = f"""\
name = "measured"

[data]
sites = "{TINY}"
hold_out = ["south"]

[models]
generator = "fedrag/tiny-causal"
retriever = "fedrag/tiny-encoder"

[rag]
prompt_tokens = 192
answer_tokens = 8

[retriever]
learning_rate = 0.05    # high, so that one round shows

[federation]
rounds = 1
schedule = "retriever"

[evaluation]
sites = "held-out"
generate = false

[simulation]
threads = 1
"""
RETRIEVAL = ("recall_at_1", "recall_at_5", "mrr", "ndcg_at_10")


@pytest.fixture(scope="module")
def folder(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two runs that differ in their number of passes."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    for name, epochs in (("one", 1), ("four", 4)):
        arguments = ["--out", str(folder / name), "--set", f"retriever.epochs={epochs}"]
        fedrag("simulate", str(folder / "scenario.toml"), *arguments)
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def fedrag(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def evaluated(*options: str) -> dict[str, dict[str, object]]:
    """Evaluate the first run and return the JSON."""
    fedrag("evaluate", "one", "--json", "result.json", "--data", str(TINY), *options)
    content: dict[str, dict[str, object]] = json.loads(Path("result.json").read_text())
    return content


def test_the_result_of_a_site_that_took_no_part_is_that_of_the_run():
    results = json.loads(Path("one/results.json").read_text())
    assert set(results["federated"]["sites"]) == {"south"}
    assert evaluated("--only", "retrieval")["sites"]["south"] == results["federated"]["sites"]["south"]
    assert evaluated("--only", "retrieval", "--base")["sites"]["south"] == results["untouched"]["sites"]["south"]


def test_training_shows_in_the_figures():
    trained, base = (evaluated("--only", "retrieval", *options)["overall"] for options in ((), ("--base",)))
    assert trained["n_questions"] == base["n_questions"] == 18
    assert trained["mrr"] != base["mrr"]


def test_the_json_names_run_models_and_split_and_nulls_what_was_not_measured():
    result = evaluated("--only", "retrieval", "--split", "validation")
    assert (result["run"]["name"], result["models"], result["split"]) == ("one", "trained", "validation")
    assert result["overall"]["n_questions"] == 12
    for scope in (result["overall"], *result["sites"].values()):
        assert [scope[name] for name in ("exact_match", "f1", "rouge_l")] == [None] * 3
        assert all(0 <= scope[name] <= 1 for name in RETRIEVAL)


def test_overall_is_the_mean_over_all_questions():
    result = evaluated("--only", "retrieval", "--split", "all")
    sites = result["sites"].values()
    assert result["overall"]["n_questions"] == sum(site["n_questions"] for site in sites) == 3 * (16 + 4 + 6)
    total = sum(site["mrr"] * site["n_questions"] for site in sites)
    assert result["overall"]["mrr"] == pytest.approx(total / 78)


def test_the_table_shows_sites_then_overall_and_no_column_that_was_not_measured():
    output = fedrag("evaluate", "one", "--data", str(TINY), "--only", "retrieval")
    assert output.splitlines()[0].rstrip() == "one, trained: test questions, in per cent"
    rows = [line.split() for line in output.splitlines() if line.strip()]
    assert rows[1] == ["Questions", "Recall@1", "Recall@5", "MRR", "nDCG@10"]
    assert [row[0] for row in rows[3:]] == ["east", "north", "south", "overall"]


def test_the_table_tells_how_many_lines_hold_the_distinct_questions(tmp_path: Path):
    shutil.copytree(TINY / "east", tmp_path / "east")
    file = tmp_path / "east" / "test.jsonl"
    again = file.read_text(encoding="utf-8").splitlines()[0].replace('"id": "', '"id": "again-', 1)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{again}\n")
    output = fedrag("evaluate", "one", "--data", str(tmp_path), "--only", "retrieval")
    assert output.splitlines()[-1] == "6 distinct questions, in 7 lines"


def test_a_site_without_questions_in_the_split_is_named(tmp_path: Path):
    shutil.copytree(TINY, tmp_path / "sites")
    (tmp_path / "sites" / "east" / "test.jsonl").unlink()
    output = fedrag("evaluate", "one", "--data", str(tmp_path / "sites"), "--only", "retrieval")
    assert "east has no test questions" in output.splitlines()


def test_answers_are_measured_where_generation_is_on(folder: Path):
    settings = ["evaluation.generate=true", "federation.schedule=generator", "evaluation.untouched=false"]
    sets = [part for setting in settings for part in ("--set", setting)]
    fedrag("simulate", "scenario.toml", "--out", "answering", *sets)
    fedrag("evaluate", "answering", "--data", str(TINY / "north"), "--json", "answers.json")
    result = json.loads(Path("answers.json").read_text())
    assert list(result["sites"]) == ["north"]
    assert all(isinstance(result["overall"][name], float) for name in ("exact_match", "f1", "rouge_l"))


def test_compare_shows_the_second_minus_the_first():
    output = fedrag("compare", "one", "four")
    assert output.splitlines()[0].rstrip() == "6 questions that both runs measured, in per cent"
    first, second = (json.loads(Path(f"{name}/results.json").read_text())["federated"] for name in ("one", "four"))
    [row] = [line.split() for line in output.splitlines() if line.split()[:1] == ["MRR"]]
    before, after = 100 * first["overall"]["mrr"], 100 * second["overall"]["mrr"]
    assert row[1:4] == [f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}"]
    low, high = float(row[4]), float(row[6])
    assert low <= after - before <= high


def test_a_run_compared_with_itself_differs_by_nothing():
    output = fedrag("compare", "one", "one")
    rows = [line.split() for line in output.splitlines() if line.split()[:1] in (["MRR"], ["Recall@1"])]
    assert [row[3:] for row in rows] == 2 * [["+0.0", "+0.0", "to", "+0.0", "-"]]  # of one site: no interval over sites


def test_several_runs_are_compared_with_the_first():
    output = fedrag("compare", "one", "four", "one")
    assert output.splitlines()[0].rstrip() == "6 questions that all 3 runs measured, in per cent"
    lines = [line.split() for line in output.splitlines()]
    [number] = [number for number, line in enumerate(lines) if line[:2] == ["MRR", "one"]]
    told = json.loads(fedrag("compare", "one", "four", "one", "--json"))
    rows = [other["metrics"]["mrr"] for other in told["others"]]
    assert (told["first"], told["n_questions"], [other["run"] for other in told["others"]]) == (
        "one",
        6,
        ["four", "one"],
    )
    assert lines[number][2] == f"{100 * rows[0]['first']:.1f}"
    assert [line[0:3] for line in lines[number + 1 : number + 3]] == [
        [name, f"{100 * row['second']:.1f}", f"{100 * row['difference']['mean_difference']:+.1f}"]
        for name, row in zip(("four", "one"), rows, strict=True)
    ]


def test_one_run_alone_is_compared_with_nothing():
    result = CliRunner().invoke(app, ["compare", "one"])
    assert result.exit_code == 2
    assert result.stderr == "Error: expected the folders of two runs or more; the others are compared with the first\n"
