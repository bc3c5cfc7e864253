"""The page of real runs on the tiny models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hostile_data import HOSTILE_NAME, SCRIPT
from tiny_federation import tiny_config, write_small_sites
from typer.testing import CliRunner

import fedrag
from fedrag.cli.main import app
from fedrag.errors import RunError
from fedrag.evaluation.records import ARMS
from fedrag.reporting.page import render
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.text import plural

SECTIONS = (
    "What was measured",
    "What each arm trained",
    "Site by site",
    "Over the rounds",
    "What each site did",
    "Examples",
    "What ran",
)


class Page(HTMLParser):
    """What a reader finds: texts, headings, the labels of the images, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.headings, self.labels, self.tags = "", [], [], []
        self._open = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.text += " "
        self._open = tag
        if ("role", "img") in attrs:
            self.labels.append(dict(attrs)["aria-label"])

    def handle_data(self, data):
        if self._open != "style":
            self.text += data
        if self._open == "h2" and data.strip():
            self.headings.append(data.strip())


@pytest.fixture(autouse=True)
def _threads(tiny_home: Path):
    """A simulation sets torch's threads for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def copied(whole_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run that a test may change."""
    shutil.copytree(whole_run.path, tmp_path / "copied")
    return RunFolder.open(tmp_path / "copied")


def test_the_page_has_all_its_parts(whole_run: RunFolder):
    page = Page(render(whole_run))
    assert tuple(page.headings) == SECTIONS
    assert "Federation reaches 0.0 per cent exact match on 7 questions." in page.text
    assert "This run used random models" in page.text
    assert f"fedrag simulate {whole_run.path}/scenario.toml" in page.text
    assert "2 sites, 2 rounds" in page.text
    labels = [label.split(".")[0] for label in page.labels]
    assert labels == [
        "Exact match in per cent",
        "Recall@1 in per cent",
        *(
            f"{what} by round"
            for component in ("generator", "retriever")
            for what in (
                f"Training loss of the {component}",
                f"Validation of the {component}",
                f"Size of the {component}'s update",
                f"Aggregation error of the {component}",
                f"Learning rate of the {component}",
            )
        ),
        "Bytes by site",
    ]


def test_the_page_agrees_with_the_results(whole_run: RunFolder):
    page = Page(render(whole_run))
    results = whole_run.results()
    for site in ("b", HOSTILE_NAME):
        told = next(label for label in page.labels if label.startswith("Recall@1"))
        values = [
            f"{name} {100 * results[arm]['sites'][site]['recall_at_1']:.1f}"
            for arm, name in (
                ("untouched", "untouched"),
                ("local", "local"),
                ("federated", "federated"),
                ("pooled", "pooled"),
            )
        ]
        assert f"{site}: {', '.join(values)}" in told
    sent = sum(record["sites"]["b"]["bytes"] for record in whole_run.rounds())
    assert f"b: {sent / 1e3:.1f} kB received, {sent / 1e3:.1f} kB sent" in page.labels[-1]


def test_the_page_tells_what_was_cut_of_each_arm(whole_run: RunFolder):
    page, results = Page(render(whole_run)), whole_run.results()
    for arm in (name for name in ARMS if name in results):
        cut = results[arm]["overall"]["cut"]
        assert cut["answers"] > 0  # random models do not end their answers
        prompts = f"cut to fit 192 tokens: {plural(cut['prompts'], 'prompt')}"
        assert (
            f"{arm.capitalize()}: {prompts}, in them {plural(cut['passages'], 'passage')}; cut at 8 tokens:"
            in page.text
        )


def test_what_comes_from_data_is_text_and_no_markup(whole_run: RunFolder):
    html = render(whole_run)
    page = Page(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert SCRIPT in page.text
    assert HOSTILE_NAME in page.text
    assert html.count("&lt;b&gt; &amp; $x$</text>") == 3  # an axis in each of the three plots with sites


def test_the_page_refers_to_nothing_outside_itself(whole_run: RunFolder):
    page = Page(render(whole_run))
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(page.tags)


def test_the_same_run_gives_the_same_page(whole_run: RunFolder):
    assert render(whole_run) == render(whole_run)


def rewrite(run: RunFolder, arm: str, answers: dict[str, tuple[str, float]]) -> None:
    """Give questions another answer and another exact match."""
    path = run.path / "evaluation" / f"{arm}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    for row in rows:
        if row["question_id"] in answers:
            row["answer"], row["metrics"]["exact_match"] = answers[row["question_id"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_examples_show_both_answers_and_the_passages(copied: RunFolder):
    question = json.loads((Path(copied.config.data.sites) / "b" / "test.jsonl").read_text().splitlines()[0])
    rewrite(copied, "untouched", {question["id"]: ("I <i>do not</i> know", 0.0)})
    rewrite(copied, "federated", {question["id"]: (question["answers"][0], 1.0)})
    page = Page(render(copied))
    assert f"From wrong to right {question['question']} Right answer" in page.text
    assert "Before I <i>do not</i> know After " + question["answers"][0] in page.text
    assert (
        "1 from wrong to right, 0 from right to wrong, 2 wrong before and after, 0 right before and after" in page.text
    )
    assert "labelled as right" in page.text


def test_where_the_data_is_gone_or_changed_the_page_says_so(copied: RunFolder, tmp_path: Path):
    moved = tmp_path / "sites"
    shutil.copytree(copied.config.data.sites, moved)
    scenario = copied.path / "scenario.toml"
    scenario.write_text(scenario.read_text().replace(copied.config.data.sites, str(moved)))
    (moved / "b" / "train.jsonl").unlink()
    page = Page(render(RunFolder.open(copied.path)))
    assert f"No text can be shown: {moved / 'b'}: has changed since the run" in page.text
    assert SCRIPT in page.text
    shutil.rmtree(moved)
    page = Page(render(RunFolder.open(copied.path)))
    assert f"No text can be shown: {moved}: no such folder" in page.text
    assert tuple(page.headings) == SECTIONS


def test_a_run_whose_rounds_are_not_done_says_so(copied: RunFolder):
    shutil.rmtree(copied.path / "final")
    shutil.rmtree(copied.path / "evaluation")
    (copied.path / "results.json").unlink()
    log = copied.path / "rounds.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    page = Page(render(copied))
    assert f"not finished: 1 of 2 rounds are done. Go on with: fedrag simulate --resume {copied.path}" in page.text
    assert "The federated models are not measured yet, so there is no verdict." in page.text
    assert page.headings == ["Over the rounds", "What each site did", "What ran"]
    log.unlink()
    assert Page(render(copied)).headings == ["What ran"]


def test_a_run_that_is_still_measured_shows_the_arms_that_are_done(copied: RunFolder):
    (copied.path / "results.json").unlink()
    (copied.path / "evaluation" / "pooled.json").unlink()
    page = Page(render(copied))
    assert "all rounds are done, measured so far: untouched, local, federated." in page.text
    assert "Pooled" not in page.text


def test_a_site_that_was_not_trained_alone_is_named(copied: RunFolder):
    assert "Not trained alone" not in Page(render(copied)).text
    shutil.rmtree(copied.path / "baselines" / "local-b")
    assert "untouched in the column Local: b." in Page(render(copied)).text


def small_run(path: Path, sites: Path, **sections) -> Page:
    return Page(render(simulate(tiny_config(sites, **sections), out=path)))


def test_a_run_of_one_round_one_component_and_one_site_that_measured_nothing(tmp_path: Path):
    sites = write_small_sites(tmp_path / "sites", only=2)
    page = small_run(tmp_path / "run", sites, federation={"rounds": 1, "schedule": "retriever"})
    assert "Nothing was measured, so there is no verdict" in page.text
    assert "1 site, 1 round," in page.text
    assert page.headings == ["Over the rounds", "What each site did", "What ran"]
    assert not any("generator" in label for label in page.labels)


def test_a_run_without_answers_and_without_anything_beside_it(tmp_path: Path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2)
    page = small_run(
        tmp_path / "run",
        sites,
        federation={"rounds": 1, "schedule": "retriever"},
        evaluation={"split": "test", "untouched": False, "generate": False},
    )
    assert "Nothing else was measured, so there is nothing to compare it with." in page.text
    assert "Right means that a labelled passage was retrieved first." in page.text
    assert "Federated minus" not in page.text
    assert "exact match" not in page.text.lower()


def test_sites_that_took_no_part_are_shown_too(tmp_path: Path):
    """Each of them was measured once with every site's own model, and counts as one question."""
    sites = write_small_sites(tmp_path / "sites", a=2, b=2, c=2)
    page = small_run(
        tmp_path / "run",
        sites,
        data={"sites": str(sites), "hold_out": ["c"]},
        federation={"rounds": 1, "schedule": "retriever"},
        evaluation={"split": "test", "sites": "held-out", "generate": False, "baselines": ["local"]},
    )
    assert "on 2 questions" in page.text
    assert "2 test questions of held-out sites" in page.text


def invoke(*arguments: str | Path):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_the_page_where_it_is_told(copied: RunFolder, tmp_path: Path):
    result = invoke(copied.path)
    assert (result.exit_code, result.stdout) == (0, f"report: {copied.path / 'report.html'}\n")
    page = (copied.path / "report.html").read_text(encoding="utf-8")
    assert invoke(copied.path, "--out", tmp_path / "new" / "page.html").exit_code == 0
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == page
    assert fedrag.write_report(copied.path, tmp_path / "own.html").read_text(encoding="utf-8") == page


def test_what_is_no_run_or_is_damaged_is_told_in_one_sentence(copied: RunFolder, tmp_path: Path):
    result = invoke(tmp_path)
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path}: is no run folder (it has no scenario.toml); fedrag simulate makes runs/<scenario>-<n>\n",
    )
    file = copied.path / "evaluation" / "local.jsonl"
    file.write_text("{\n")
    with pytest.raises(RunError, match=r"local\.jsonl:1: expected the JSON record"):
        render(copied)
    result = invoke(copied.path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert not (copied.path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_told_in_one_sentence(whole_run: RunFolder, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    result = invoke(whole_run.path, "--out", tmp_path / "folder")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path / 'folder'}: cannot be written: Is a directory\n",
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_the_report_needs_no_torch():
    script = "import sys, fedrag.reporting.page; print([n for n in ('torch', 'flwr', 'faiss') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
