"""What the documents show works as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

from fedrag.cli.main import app
from fedrag.config.reference import with_settings
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_sites
from fedrag.errors import ConfigError
from fedrag.site.admin import site_reference
from fedrag.site.site_config import SiteConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "simulations/README.md", "simulations/RESULTS.md")
DEPLOYED = ("server/README.md", "clients/README.md")  # tests/deployed/test_readme_deployment.py runs their commands


def blocks(document: str, language: str = "") -> list[str]:
    """Return the code blocks of one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if kind == language]


def shown_commands() -> list[str]:
    """Return every fedrag command that stands in a document: in a block, or between backquotes in a line."""
    documents = DOCUMENTS + DEPLOYED
    lines = [line for document in documents for block in blocks(document) for line in block.splitlines()]
    lines = [re.sub(r"^sudo -Hu \S+ /opt/fedrag/bin/", "", line) for line in lines]
    texts = [(ROOT / document).read_text(encoding="utf-8") for document in documents]
    inline = [command for text in texts for command in re.findall(r"`(fedrag [^`\n]+)`", text)]
    return sorted({line for line in [*lines, *inline] if line.startswith("fedrag ")})


def parse(command_line: str) -> click.Context:
    """Parse a command without running it; a wrong option or value raises."""
    command, words = get_command(app), shlex.split(command_line, comments=True)[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command.make_context(command_line, words)


def test_the_documents_show_commands():
    verbs = {tuple(command.split()[1:3]) for command in shown_commands()}
    assert {("models", "fetch"), ("data", "import"), ("data", "check")} <= verbs


@pytest.mark.parametrize("command_line", shown_commands())
def test_every_shown_command_is_understood(command_line: str):
    context = parse(command_line)
    scenario = context.params.get("scenario")
    if scenario is not None and str(scenario).startswith("simulations/"):  # others are made by commands shown before
        Config.from_file(ROOT / scenario, context.params.get("overrides") or ())


def test_a_command_with_a_wrong_option_would_be_noticed():
    with pytest.raises(click.UsageError):
        parse("fedrag data check data/xquad --colour red")


def test_every_shown_make_target_exists():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    shown = [
        line.split()[1] for d in DOCUMENTS for b in blocks(d) for line in b.splitlines() if line.startswith("make ")
    ]
    assert shown
    assert set(shown) <= set(targets)


@pytest.mark.parametrize("toml", blocks("simulations/README.md", "toml"))
def test_every_shown_scenario_is_valid(toml: str):
    named = toml if toml.startswith("name") else f'name = "shown"\n{toml}'
    assert Config.from_toml(named).name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "simulations" / "scenarios").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_scenario_is_valid_and_documented(path: Path):
    assert Config.from_file(path).name == path.stem
    assert f"`{path.name}`" in (ROOT / "simulations" / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_agrees_with_the_config():
    text = (ROOT / "simulations" / "README.md").read_text(encoding="utf-8")
    assert text == with_settings(text), "run: python -m fedrag.config.reference simulations/README.md"


def test_the_tables_of_a_sites_settings_agree_with_the_site_toml():
    text = (ROOT / "clients" / "README.md").read_text(encoding="utf-8")
    written = with_settings(text, SiteConfig, site_reference.MODULE)
    assert text == written, "run: python -m fedrag.site.admin.site_reference clients/README.md"
    assert '| `components` | list of `"generator"`, `"retriever"` | `["generator", "retriever"]` | Components' in text
    assert "| `base_models` | table of texts | `{}` | Models" in text


def test_the_table_of_settings_names_types_limits_and_defaults():
    text = (ROOT / "simulations" / "README.md").read_text(encoding="utf-8")
    assert "| `rounds` | whole number, at least 1 | `2` | Communication rounds. |" in text
    assert '| `side` | `"query"`, `"both"` | `"query"` | Encoder side that learns. |' in text
    assert "| `sites` | text | required | Folder" in text
    with pytest.raises(ConfigError, match="expected the two lines"):
        with_settings("no markers")


def test_every_file_of_the_map_exists():
    for line in file_map():
        folder = ROOT / "fedrag" if line.startswith("  ") else ROOT
        assert all((folder / name).exists() for name in names_of(line)), line


def test_the_map_names_every_room_and_every_plain_module():
    listed = [name.rstrip("/") for line in file_map() for name in names_of(line) if line.startswith("  ")]
    package = ROOT / "fedrag"
    own = {p.name for p in package.iterdir() if not p.name.startswith(("_", ".")) and p.name != "py.typed"}
    own |= {p.parent.relative_to(package).as_posix() for p in package.rglob("*/__init__.py")}
    assert own - set(listed) == set()
    assert len(set(listed)) == len(listed)


def file_map() -> list[str]:
    [block] = [block for block in blocks("CONTRIBUTING.md") if block.startswith("fedrag/ ")]
    return block.splitlines()


def names_of(line: str) -> list[str]:
    """Return the paths at the beginning of a line of the map."""
    return re.split(r"\s{2,}", line.strip())[0].split()


def test_the_shown_site_folder_can_be_loaded(tmp_path: Path):
    [block] = [block for block in blocks("README.md") if block.startswith("hospitals/")]
    folder = tmp_path / "hospitals" / "east"
    folder.mkdir(parents=True)
    for name, row in re.findall(r"(\w+\.jsonl) +(\{.*\})", block):
        (folder / name).write_text(f"{row}\n", encoding="utf-8")
    [site] = load_sites(tmp_path / "hospitals")
    assert (site.name, len(site.passages), site.train[0].passage_ids) == ("east", 1, ("p1",))
