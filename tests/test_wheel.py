"""fedrag works from an installed wheel, far from its checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrag.languages.catalogue import LANGUAGES
from fedrag.security.installed import installed_release

CHECKOUT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git would carry, with the build tools at hand."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "simulations" / "scenarios", source / "simulations" / "scenarios")
    for name in ("fedrag", "clients", "server"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into a new environment that sees this one's dependencies; return its bin."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    [packages] = (folder / "lib").glob("python*/site-packages")
    # Appended, so that the wheel wins. A path, not addsitedir: the .pth of the editable install stays unread.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--force-reinstall", wheel], check=True)
    return folder / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a program of the new environment in an empty folder, with a home of its own."""

    def run_program(program: str, *arguments: str) -> str:
        environment = {**os.environ, "FEDRAG_HOME": str(tmp_path / "home")}
        environment.pop("PYTHONPATH", None)
        command = [installed / program, *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run_program


def test_of_modules_the_wheel_holds_fedrag_alone(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"fedrag", "fedrag-0.2.0.dist-info", "fedrag-0.2.0.data"}
    assert "fedrag/py.typed" in names
    assert {"fedrag/reporting/templates/page.html.jinja", "fedrag/reporting/templates/page.css"} <= set(names)
    assert {f"fedrag/languages/{code}.toml" for code in LANGUAGES} <= set(names)
    assert "fedrag-0.2.0.dist-info/licenses/LICENSE" in names


def test_with_the_wheel_come_units_scenarios_and_both_documents(installed: Path):
    share = installed.parent / "share" / "fedrag"
    for name in (
        "server/README.md",
        "server/fedrag-server.service",
        "clients/README.md",
        "clients/fedrag-client.service",
    ):
        assert (share / name).read_bytes() == (CHECKOUT / name).read_bytes()
    assert (share / "clients" / "site.example.toml").is_file()
    scenarios = {path.name for path in (CHECKOUT / "simulations" / "scenarios").iterdir()}
    assert {path.name for path in (share / "scenarios").iterdir()} == scenarios


def test_two_installations_of_the_same_files_have_the_same_hash(run: Callable[..., str], installed: Path):
    show = "from fedrag.security.installed import installed_release; print(installed_release())"
    first = run("python", "-c", show).strip()
    assert first == installed_release(CHECKOUT / "fedrag")
    [package] = (installed.parent / "lib").glob("python*/site-packages/fedrag")
    with (package / "types.py").open("a") as file:
        file.write("# changed\n")
    assert run("python", "-c", show).strip() != first


def test_the_installed_package_is_the_one_that_runs(run: Callable[..., str], installed: Path):
    place = run("python", "-c", "import fedrag; print(fedrag.__file__)")
    assert place.startswith(str(installed.parent))


def test_the_command_answers(run: Callable[..., str]):
    assert "models" in run("fedrag", "--help")


def test_a_new_folder_can_be_written(run: Callable[..., str], tmp_path: Path):
    run("fedrag", "new", "mine")
    assert "No errors." in run("fedrag", "data", "check", "mine/sites")
    template = CHECKOUT / "fedrag" / "template"
    shipped, written = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (template, tmp_path / "mine")
    )
    assert shipped == written


def test_models_can_be_fetched(run: Callable[..., str]):
    names = ("fedrag/tiny-causal", "fedrag/tiny-encoder")
    assert run("fedrag", "models", "fetch", *names).splitlines() == [f"{name}: fetched (random)" for name in names]


def test_a_simulation_runs_away_from_the_checkout(run: Callable[..., str], tmp_path: Path):
    shutil.copytree(CHECKOUT / "simulations", tmp_path / "simulations")
    run("fedrag", "models", "fetch", "fedrag/tiny-causal", "fedrag/tiny-encoder")
    output = run("fedrag", "simulate", "simulations/scenarios/tiny.toml", "--set", "federation.rounds=1")
    assert "round 1/1: 3 of 3 sites" in output
    assert (tmp_path / "runs" / "tiny-1" / "results.json").is_file()
    assert (tmp_path / "runs" / "tiny-1" / "report.html").is_file()
