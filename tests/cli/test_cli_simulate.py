"""`fedrag simulate`, as a person types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.plan import plan_lines
from fedrag.text import plural, size_text

PASSES = "passes: training, scoring tree, 1 at a time; decoding shared, 1 at a time"
ROOT = Path(__file__).parents[2]
SCENARIO = "simulations/scenarios/tiny.toml"
SHORT = ["rag.prompt_tokens=192", "rag.answer_tokens=4"]


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="module")
def folder(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the scenarios and the data that ship."""
    folder = tmp_path_factory.mktemp("simulate")
    shutil.copytree(ROOT / "simulations", folder / "simulations")
    return folder


Fedrag = Callable[..., str]


@pytest.fixture
def fedrag(folder: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Fedrag:
    """Run a command in that folder, and return what it says."""
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    return run


@pytest.fixture(scope="module")
def finished(folder: Path, tiny_home: Path) -> tuple[str, RunFolder]:
    """Run the tiny scenario once; return what it said and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDRAG_HOME", str(tiny_home))
        patch.chdir(folder)
        result = CliRunner().invoke(app, ["simulate", SCENARIO, "--out", "runs/whole", *sets(*SHORT)])
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout, RunFolder.open(folder / "runs" / "whole")


def test_a_log_tells_of_rounds_delivery_baselines_and_the_folder(finished: tuple[str, RunFolder]):
    lines = finished[0].splitlines()
    assert lines[0] == lines[-1] == "run folder: runs/whole"
    assert lines[1] == PASSES
    assert lines[-2] == "report: runs/whole/report.html"
    assert re.fullmatch(r"round 1/2: 3 of 3 sites, generator loss \d\.\d{4}, retriever loss \d\.\d{4}, \d+ s", lines[2])
    assert lines[3].startswith("round 2/2: 3 of 3 sites, ")
    assert lines[4] == "the result was delivered to 3 of 3 sites"
    baselines = [line for line in lines if line.startswith("baseline: ")]
    assert baselines == [f"baseline: {name}" for name in ("local-east", "local-north", "local-south", "pooled")]


def test_the_table_shows_the_results_in_per_cent(finished: tuple[str, RunFolder]):
    output, run = finished
    assert "tiny: test questions of all sites, in per cent" in output
    headings = ["Questions", "EM", "F1", "ROUGE-L", "Recall@1", "Recall@5", "MRR", "nDCG@10"]
    assert any(line.split() == headings for line in output.splitlines())
    for arm in ("untouched", "local", "federated", "pooled"):
        overall = run.results()[arm]["overall"]
        [row] = [line.split() for line in output.splitlines() if line.split()[:1] == [arm]]
        assert row[1] == str(overall["n_questions"]) == "18"
        shown = ("exact_match", "f1", "rouge_l", "recall_at_1", "recall_at_5", "mrr", "ndcg_at_10")
        assert row[2:] == [f"{100 * overall[name]:.1f}" for name in shown]


def test_below_the_table_stands_what_was_cut(finished: tuple[str, RunFolder]):
    output, run = finished
    for arm in ("untouched", "local", "federated", "pooled"):
        cut, rag = run.results()[arm]["overall"]["cut"], run.config.rag
        [line] = [line for line in output.splitlines() if line.startswith(f"{arm}: cut")]
        assert f"cut at {rag.answer_tokens} tokens: {plural(cut['answers'], 'answer')}" in line


def test_a_finished_run_holds_what_it_used_and_made(finished: tuple[str, RunFolder], folder: Path):
    run = finished[1]
    sites = folder / "simulations/data/tiny"  # in full, so that the run can be resumed from any folder
    day = run.config.rag.date
    assert date.fromisoformat(day) <= datetime.now(UTC).date()
    assert run.config == Config.from_file(ROOT / SCENARIO, [*SHORT, f"data.sites={sites}", f"rag.date='{day}'"])
    assert [record["round"] for record in run.rounds()] == [1, 2]
    assert run.facts["threads"] == 1
    assert (run.path / "final" / "generator" / "adapter_config.json").is_file()
    assert sorted(path.name for path in (run.path / "final").iterdir()) == ["generator", "state.safetensors"]


def test_resuming_a_finished_run_shows_its_table_again(fedrag: Fedrag, finished: tuple[str, RunFolder]):
    output = fedrag("simulate", "--resume", "runs/whole")
    assert "round 1/2" not in output
    table = finished[0][finished[0].index("tiny: test questions") :]
    assert output.endswith(table)


def test_settings_on_the_command_line_override_the_file(fedrag: Fedrag):
    settings = ["federation.rounds=1", "federation.schedule=retriever", "evaluation.split=none", "name=other"]
    output = fedrag("simulate", SCENARIO, *sets(*settings))
    assert "nothing was measured; to do so: fedrag evaluate runs/other-1 --data SITES" in output.splitlines()
    run = RunFolder.open(Path("runs/other-1"))
    assert (run.config.federation.rounds, run.config.federation.schedule) == (1, "retriever")
    assert list(run.results()) == ["run"]


def test_a_dry_run_shows_sites_examples_bytes_and_memory_and_makes_no_folder(fedrag: Fedrag):
    before = set(Path().rglob("*"))
    lines = fedrag("simulate", SCENARIO, "--dry-run").splitlines()
    assert set(Path().rglob("*")) == before
    assert lines[0] == "tiny: 2 rounds, schedule joint"
    assert [line.split() for line in lines[2:7]] == [
        ["Site", "Passages", "Train", "Validation", "Test"],
        ["east", "8", "16", "4", "6"],
        ["north", "8", "16", "4", "6"],
        ["south", "8", "16", "4", "6"],
        ["all", "24", "48", "12", "18"],
    ]
    # Rank 16, two layers. Generator: q k v o (32 to 32), gate up (32 to 64), down (64 to 32);
    # retriever: query key value dense (32 to 32), two more dense (32 to 64, 64 to 32).
    generator = 2 * 16 * (4 * (32 + 32) + 3 * (32 + 64))
    retriever = 2 * 16 * (4 * (32 + 32) + 2 * (32 + 64))
    assert lines[8] == f"generator: {generator:,} weights learn from 48 questions, 1 pass a round, in 2 rounds"
    assert lines[9] == f"retriever: {retriever:,} weights learn from 48 questions, 1 pass a round, in 2 rounds"
    one = 2 * (generator + retriever)
    total = 3 * 2 * 2 * one + 3 * 2 * one  # three sites, two rounds, both ways, and the delivery, in float32
    assert lines[10] == (
        f"bytes (bfloat16): in a round at most {one / 1e3:.1f} kB to a site and {one / 1e3:.1f} kB back; "
        f"at most {total / 1e6:.1f} MB in all"
    )
    assert re.fullmatch(r"memory: base models [\d.]+ kB and training [\d.]+ kB in this process, .*", lines[11])
    assert lines[12] == PASSES
    cut = "cut to fit 320 tokens of a prompt and 16 of an answer: 24 of 24 passages, 78 of 78 prompts, 23 of 78 answers"
    assert lines[13] == (
        "search: cosine, contrastive scale 200, tau_r 0.005; chunks of at most 62 tokens; prompts: none"
    )
    assert lines[14] == cut
    assert lines[15] == (
        "then: untouched, federated, local, pooled measured on the test questions of the sites that take part"
    )


def test_a_dry_run_agrees_with_the_bytes_of_the_run(finished: tuple[str, RunFolder]):
    [first, _] = finished[1].rounds()
    headers = 2 * 128  # numpy's, one a component
    assert first["bytes_to_each_site"] == first["sites"]["east"]["bytes"] == 2 * (17_408 + 14_336) + headers


def test_a_dry_run_tells_who_sits_out_and_who_is_held_out(fedrag: Fedrag, tmp_path: Path):
    sites = tmp_path / "sites"
    shutil.copytree(ROOT / "simulations" / "data" / "tiny", sites)
    (sites / "north" / "train.jsonl").unlink()
    config = Config.from_file(SCENARIO, [f"data.sites={sites}", "data.hold_out=['east']", "federation.wire=float32"])
    lines = plan_lines(config)
    assert "north         8      0           4      6   sits out: nothing to train on" in lines[3]
    assert "  held out: east" in lines
    assert any("learn from 16 questions" in line for line in lines)
    assert any(line.startswith("bytes (float32): in a round at most 127.0 kB to a site") for line in lines)


def test_a_dry_run_tells_of_hard_negatives_that_are_named_and_not_used(fedrag: Fedrag, tmp_path: Path):
    sites = tmp_path / "sites"
    shutil.copytree(ROOT / "simulations" / "data" / "tiny", sites)
    file = sites / "north" / "train.jsonl"
    first, *others = file.read_text().splitlines()
    question = json.loads(first)
    wrong = next(id for id in ("north-1", "north-2") if id not in question["passage_ids"])
    file.write_text("\n".join([json.dumps(question | {"hard_negative_ids": [wrong]}), *others]) + "\n")
    told = "1 question names hard negatives, and none is used: retriever.contrastive.named_negatives = 0"
    overrides = [f"data.sites={sites}", "retriever.loss=contrastive"]
    assert told not in plan_lines(Config.from_file(SCENARIO, overrides))
    assert told in plan_lines(Config.from_file(SCENARIO, [*overrides, "retriever.contrastive.named_negatives=0"]))


@pytest.mark.parametrize(("grid", "share"), [("in-process", 4), ("ray", 8)])
def test_a_dry_run_tells_how_much_memory_the_passages_that_were_read_may_take(fedrag, monkeypatch, grid, share):
    """A quarter of what is free; of two actors each takes half of that."""
    monkeypatch.setattr("fedrag.models.resident.free_memory", lambda device: 8e9)
    overrides = ["generator.adapter_from=question", f"simulation.grid={grid}", "simulation.actors=2"]
    [line] = [line for line in plan_lines(Config.from_file(SCENARIO, overrides)) if line.startswith("memory:")]
    assert line.endswith(f"activations come on top, and up to {size_text(8e9 / share)} of passages that were read")
    [line] = [line for line in plan_lines(Config.from_file(SCENARIO)) if line.startswith("memory:")]
    assert line.endswith("activations come on top")


def test_help_is_quick_and_shows_every_verb():
    # CPU time, not the wall's, and a wide bound: an old core beside other work takes twice as long as a new one alone.
    script = "import sys, time; from fedrag.cli.main import app; app(['--help'], standalone_mode=False)"
    script += "; assert not {'torch', 'transformers', 'flwr', 'ray'} & sys.modules.keys(); print(time.process_time())"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for verb in ("simulate", "evaluate", "compare", "report", "ask", "new", "data", "models"):
        assert re.search(rf"│ {verb} ", result.stdout)
    assert float(result.stdout.splitlines()[-1]) < 2.0


def test_results_are_json_that_other_programs_read(finished: tuple[str, RunFolder]):
    content = json.loads((finished[1].path / "results.json").read_text())
    arms = {"federated", "untouched", "local", "pooled"}
    assert set(content) == {"run", *arms, "question_lines", "training", "forgetting"}
    assert set(content["forgetting"]) == {"before", "after"}
    assert set(content["forgetting"]["after"]) == {"en", "de", "vi", "zh", "all"}
    assert set(content["federated"]) == {"overall", "sites"}
    assert set(content["federated"]["sites"]) == {"east", "north", "south"}


def test_a_finished_run_gets_more_rounds_and_is_measured_anew(
    fedrag: Fedrag, folder: Path, finished: tuple[str, RunFolder]
):
    shutil.copytree(folder / "runs" / "whole", folder / "runs" / "longer")
    output = fedrag("simulate", "--resume", "runs/longer", "--rounds", "3")
    assert "going on after round 2" in output
    assert "round 3/3: 3 of 3 sites" in output
    assert len(RunFolder.open(folder / "runs" / "longer").rounds()) == 3


def test_rounds_go_with_resume_alone(folder: Path):
    result = CliRunner().invoke(app, ["simulate", SCENARIO, "--rounds", "3"])
    assert result.exit_code == 2
    assert "--rounds goes with --resume; a new run has --set federation.rounds=N" in result.output
