"""Where questions come from is told wherever questions are counted, if not all come from people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app

ROOT = Path(__file__).parents[2]


def fedrag(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sites; one of them has questions of every origin."""
    sites = Path(shutil.copytree(ROOT / "simulations" / "data" / "tiny", tmp_path_factory.mktemp("origins") / "sites"))
    file = sites / "north" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, origin in zip(rows, ("generated", "generated", "pseudo", "feedback"), strict=False):
        row["origin"] = origin
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sites


def test_data_check_tells_by_site(sites: Path, tmp_path: Path):
    lines = fedrag("data", "check", sites, "--json", tmp_path / "report.json").splitlines()
    assert "north: 26 questions: 22 from people, 2 generated, 1 answered by a model, 1 from feedback." in lines
    report = json.loads((tmp_path / "report.json").read_text())
    assert [site["n_by_origin"] for site in report["sites"]] == [
        {},
        {"": 22, "generated": 2, "pseudo": 1, "feedback": 1},
        {},
    ]
    assert "from people" not in fedrag("data", "check", sites / "south")


def test_what_is_written_is_told_of(sites: Path, tmp_path: Path):
    told = fedrag("data", "partition", sites, tmp_path / "dealt", "--clients", 2, "--by", "iid")
    assert told.endswith(" Of the 78 questions: 74 from people, 2 generated, 1 answered by a model, 1 from feedback.\n")


def test_dry_run_table_and_report_tell(sites: Path, tiny_home: Path, tmp_path: Path):
    scenario, data = ROOT / "simulations" / "scenarios" / "tiny.toml", ["--set", f"data.sites={sites}"]
    assert "  of 78 questions: 74 from people, " in fedrag("simulate", scenario, *data, "--dry-run")
    small = [f"--set={s}" for s in ("federation.rounds=1", "evaluation.baselines=[]", "simulation.grid=in-process")]
    told = "48 training questions: 44 from people, 2 generated, 1 answered by a model, 1 from feedback"
    assert told in fedrag("simulate", scenario, *data, *small, "--out", tmp_path / "run").splitlines()
    assert told in (tmp_path / "run" / "report.html").read_text()
