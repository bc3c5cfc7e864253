"""`fedrag data`, as a person types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from fedrag.cli.data import app
from fedrag.data.site_folder import load_sites
from fedrag.errors import ConfigError, DataError

TINY = Path(__file__).parents[2] / "simulations" / "data" / "tiny"


def run(*arguments: object) -> Result:
    """Run a command; a FedragError is raised, as the main command expects."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    def article(title: str) -> dict[str, object]:
        questions = [{"id": f"{title}{i}", "question": f"{title} {i}?", "answers": [{"text": "x"}]} for i in range(5)]
        questions.append({"id": "no", "question": "Who?", "answers": [], "is_impossible": True})  # type: ignore[dict-item]
        return {"title": title, "paragraphs": [{"context": f"About {title}.", "qas": questions}]}

    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [article(title) for title in ("Ant", "Bee", "Cat")]}))
    return path


def test_check_prints_a_line_a_site_and_the_totals() -> None:
    result = run("check", TINY)
    assert result.exit_code == 0
    assert re.search(r"north +8 +16 +4 +6 +26 +32\.5/36", result.output)
    assert re.search(r"3 sites +24 +48 +12 +18", result.output)
    assert result.output.endswith("No errors.\n")


def test_check_takes_sites_and_folders_of_sites_together(tmp_path: Path) -> None:
    assert re.search(r"2 sites +16 ", run("check", TINY / "north", TINY / "south").output)


def test_check_lists_what_is_wrong_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rows = [{"id": f"q{i}", "question": "", "answers": ["x"]} for i in range(25)]
    (tmp_path / "a" / "passages.jsonl").write_text('{"id": "p1", "text": "[bold]x"}\n')
    (tmp_path / "a" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("check", tmp_path, "--json", tmp_path / "report.json")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 20
    assert errors[0] == f'Error: {tmp_path / "a" / "train.jsonl"}:1: "question" must be a non-empty string'
    assert "... and 5 more" in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["errors"]) == 25
    assert report["sites"][0]["n_passages"] == 1


def test_check_prints_warnings_and_exits_with_0(tmp_path: Path) -> None:
    question = {"id": "q1", "question": "Why?", "answers": ["x"], "passage_ids": ["p1"]}
    for name, split in (("a", "train"), ("b", "test")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "passages.jsonl").write_text('{"id": "p1", "text": "t"}\n')
        (tmp_path / name / f"{split}.jsonl").write_text(json.dumps(question) + "\n")
    result = run("check", tmp_path)
    assert result.exit_code == 0
    assert "Warning: questions in train at one site and in validation or test at another: 1" in result.output


def test_check_counts_what_is_cut_where_a_model_or_a_scenario_is_named(tiny_home: Path, tmp_path: Path) -> None:
    """Tokens of the tiny models are bytes; passages there have 162 to 192, answers 12 or 13 and up to 33."""
    assert "cut to fit" not in run("check", TINY).output.lower()
    assert "cut to fit" not in run("check", TINY, "--model", "fedrag/tiny-encoder").output.lower()
    report = tmp_path / "report.json"
    fits = run("check", TINY, "--model", "fedrag/tiny-causal", "--json", report)
    assert "Cut to fit 1,024 tokens of a prompt and 32 of an answer: 0 of 24 passages, 0 of 78 prompts, 1 of 78" in (
        fits.output
    )
    assert json.loads(report.read_text())["cuts"]["north"] == (
        {"passages": 0, "n_passages": 8, "prompts": 0, "answers": 0, "n_questions": 26}
    )
    scenario = tmp_path / "s.toml"
    scenario.write_text(
        'name = "s"\ndata.sites = "x"\nmodels.generator = "fedrag/tiny-causal"\n'
        "rag.prompt_tokens = 300\nrag.answer_tokens = 64\nrag.passages = 1\n"
    )
    cut = run("check", TINY, "--scenario", scenario)
    assert (cut.exit_code, cut.stderr) == (0, "")
    assert "Cut to fit 300 tokens of a prompt and 64 of an answer: 24 of 24 passages, 78 of 78" in cut.output


def test_squad_is_imported_by_title_and_by_group(squad: Path, tmp_path: Path) -> None:
    result = run("import", "squad", squad, tmp_path / "out", "--site-by", "title", "--split", "1/0/0")
    assert result.output == (
        f"{tmp_path / 'out'}: 3 sites, 3 passages, 15 questions (15 train, 0 validation, 0 test).\n"
        "Left out: 3 impossible questions.\n"
    )
    assert [site.name for site in load_sites(tmp_path / "out")] == ["ant", "bee", "cat"]
    run("import", "squad", squad, tmp_path / "grouped", "--groups", 2)
    assert [site.name for site in load_sites(tmp_path / "grouped")] == ["group-1", "group-2"]


def test_the_seed_decides_the_split(squad: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        run("import", "squad", squad, tmp_path / name, "--split", "0.5/0/0.5", "--seed", seed)
    assert load_sites(tmp_path / "one") == load_sites(tmp_path / "again")
    assert load_sites(tmp_path / "one") != load_sites(tmp_path / "two")


def test_medquad_is_imported(tmp_path: Path) -> None:
    (tmp_path / "in" / "5_NIDDK_QA").mkdir(parents=True)
    (tmp_path / "in" / "5_NIDDK_QA" / "1.xml").write_text(
        "<Document><QAPair><Question>Why?</Question><Answer>So.</Answer></QAPair></Document>"
    )
    assert "1 site, 1 passages, 1 questions" in run("import", "medquad", tmp_path / "in", tmp_path / "out").output


@pytest.mark.parametrize(
    ("file_format", "text"), [("jsonl", '{"q": "Why?", "a": "So."}\n'), ("csv", "q,a\nWhy?,So.\n")]
)
def test_tables_are_imported_with_passages_from_a_file(tmp_path: Path, file_format: str, text: str) -> None:
    (tmp_path / "table").write_text(text)
    (tmp_path / "corpus.jsonl").write_text('{"id": "d1", "text": "One."}\n')
    columns = ("--question", "q", "--answer", "a", "--passages", tmp_path / "corpus.jsonl")
    run("import", file_format, tmp_path / "table", tmp_path / "out", *columns)
    assert load_sites(tmp_path / "out")[0].passages[0].id == "d1"


def test_chats_are_imported(tmp_path: Path) -> None:
    user = {"role": "user", "content": "Context: Ada lives in Oslo.\nQuestion: Where?"}
    row = {"messages": [user, {"role": "assistant", "content": "Oslo"}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row))
    pattern = ("--passage-pattern", "context-block")
    result = run("import", "openai-chat", tmp_path / "chats.jsonl", tmp_path / "out", *pattern)
    assert "1 site, 1 passages, 1 questions" in result.output


def test_partition_writes_the_clients(tmp_path: Path) -> None:
    result = run("partition", TINY, tmp_path / "out", "--clients", 4, "--by", "dirichlet", "--alpha", 0.5)
    assert ": 4 sites, " in result.output
    assert "78 questions (48 train, 12 validation, 18 test)" in result.output
    assert [len(site.train) for site in load_sites(tmp_path / "out")] == [12, 12, 12, 12]


def test_partition_by_topic_deals_the_passages_that_an_encoder_finds_alike(tiny_home: Path, tmp_path: Path) -> None:
    by_topic = ("--by", "topic", "--retriever", "fedrag/tiny-encoder")
    result = run("partition", TINY, tmp_path / "out", "--clients", 2, *by_topic)
    assert ": 2 sites, " in result.output
    assert "78 questions (48 train, 12 validation, 18 test)" in result.output


def test_an_import_that_fails_writes_nothing(squad: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="sum to 1"):
        run("import", "squad", squad, tmp_path / "out", "--split", "0.6/0.6/0")
    with pytest.raises(DataError, match="4 groups"):
        run("import", "squad", squad, tmp_path / "out", "--groups", 4)
    with pytest.raises(DataError, match="sources"):
        run("partition", TINY, tmp_path / "out", "--clients", 4, "--by", "source")
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_folder_that_is_taken_is_refused_first(squad: Path, tmp_path: Path) -> None:
    for command in (
        ("import", "squad", squad, tmp_path),
        ("partition", squad, tmp_path, "--clients", 2, "--by", "iid"),
    ):
        with pytest.raises(DataError, match="exists already"):
            run(*command)


def test_every_command_has_a_line_of_help_and_an_example() -> None:
    group = typer.main.get_command(app)
    importers = group.commands["import"].commands  # type: ignore[attr-defined]
    commands = {name: command for name, command in group.commands.items() if name != "import"} | importers  # type: ignore[attr-defined]
    assert set(importers) == {
        *("squad", "medquad", "jsonl", "csv", "tsv", "parquet", "hub", "openai-chat"),
        *("beir", "haystack", "hotpotqa", "pubmedqa", "triplets", "ragas", "xlsx", "documents"),
    }
    for name, command in commands.items():
        assert "\n" not in command.help.split("\n\n")[0], name
        assert f"Example: fedrag data {'import ' if name in importers else ''}{name} " in command.help
