"""What a coordinator and a site are handed works as their documents show it.

The commands of the blocks run in order, as they stand, with the tiny models under the names of the real ones. A comment
behind a command says what a reader does, and the test does the same:

- `# goes on running; it says: WORD`: it runs in a terminal of its own, and the next command waits for the word;
- `# again, until the last line says: WORD`: it is typed again and again;
- any other comment is for the reader alone.

`sudo`, `podman`, `pip`, the making of an environment, and what needs one of them, are not run (`NOT_RUN`). What people
do between the commands, such as sending a key, is in `BEFORE`. A port that is taken is replaced by a free one, and
`rag.example.org` by this machine.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from office_files import write_documents
from ports import free_ports

from fedrag.security.file_signature import sign_file
from fedrag.security.keys import new_key
from fedrag.site.site_config import site_toml
from fedrag.weights.store import find_model

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVER, CLIENTS = "server/README.md", "clients/README.md"
FIRST, DOCUMENTS = "From nothing to a finished run", "From a folder of documents"
EXCHANGE = "cp ca.crt coordinator.pub clinic/"
PORTS = (8443, 8444, 8090, 8100)

NOT_RUN = re.compile(
    r"sudo |podman |pip |python3 -m venv|source |cd |rag\.example\.org\.  A |"  # the system of the reader
    r"cp -r ~/|fedrag models fetch fetched/|fedrag server (rotate|backup|restore) |"
    r"fedrag client accept-key |ssh-keygen |openssl dgst |sha256sum "
)
"""What the two long tests leave out; the lines of the last row have tests of their own."""


def lines_of(document: str, section: str = "", without: str = "") -> list[str]:
    """Return the lines of the blocks of a document, of one of its sections, or of all without one."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if name := section or without:
        before, found, after = text.partition(f"\n## {name}\n")
        inside, rest, last = after.partition("\n## ")
        assert found, name
        text = inside if section else before + rest + last
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [line for language, block in blocks if not language for line in block.splitlines()]


class Reader:
    """Someone who types what a document shows, in a folder and with terminals of their own.

    Args:
        folder: The folder, which is made.
        home: Where the models are.
        changes: What is written instead of what is shown; by default what this machine needs.
    """

    def __init__(self, folder: Path, home: Path, changes: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.folder.mkdir()
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": path, "FEDRAG_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.changes = changes or {"rag.example.org": "localhost"} | _ports_instead()
        self._running: list[subprocess.Popen[bytes]] = []

    def read(self, lines: list[str], before: dict[str, Callable[[], None]] | None = None) -> dict[str, str]:
        """Run lines in order and return what each said in the end."""
        said = {}
        for line in lines:
            if NOT_RUN.match(line):
                continue
            command, _, comment = (part.strip() for part in line.partition(" #"))
            if action := (before or {}).get(command):
                action()
            said[command] = self._type(command, comment)
        return said

    def _type(self, command: str, comment: str) -> str:
        if word := comment.partition("goes on running; it says: ")[2]:
            return self._start(command, word)
        word = comment.partition("again, until the last line says: ")[2]
        end = time.monotonic() + 300
        while True:
            output = self.run(command)
            if word in (output.rstrip().splitlines() or [""])[-1]:  # no word is in every line
                return output
            assert time.monotonic() < end, f"{command} never said {word}\n{output}\n{self.story()}"
            time.sleep(1)

    def run(self, command: str) -> str:
        """Run a command and return what it said; it must go well."""
        done = subprocess.run(
            ["bash", "-c", self._changed(command)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.story()}"
        return done.stdout

    def _start(self, command: str, word: str) -> str:
        log = self.folder / f"terminal-{len(self._running) + 1}.txt"
        with log.open("wb") as file:
            words = ["bash", "-c", f"exec {self._changed(command)}"]
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)
        end = time.monotonic() + 90
        while self._changed(word) not in (said := log.read_text(errors="replace")):
            assert process.poll() is None, f"{command} ended\n{said}"
            assert time.monotonic() < end, f"{command} never said {word}\n{self.story()}"
            time.sleep(0.1)
        return said

    def _changed(self, text: str) -> str:
        for shown, real in self.changes.items():
            text = text.replace(shown, real)
        return text

    def close(self) -> list[int]:
        """End what goes on running, the last one first, and return the exit codes."""
        codes = []
        for process in reversed(self._running):
            process.terminate()
            codes.append(process.wait(75))
        self._running = []
        return codes

    def story(self) -> str:
        """Return the ends of all that was written down."""
        files = [*self.folder.glob("terminal-*.txt"), *self.folder.glob("*/logs/*.log")]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


def _ports_instead() -> dict[str, str]:
    """Return what is to be written instead of the shown ports; nothing while these are free."""
    if all(_is_free(port) for port in PORTS):
        return {}
    proxy, superlink, console, service = free_ports(4)
    return {
        "server init coordinator": f"server init coordinator --port {proxy} --superlink-port {superlink}",
        "server console coordinator": f"server console coordinator --port {console}",
        "client serve clinic": f"client serve clinic --port {service}",
        ":8443": f":{proxy}",
        ":8090": f":{console}",
    }


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a FEDRAG_HOME with the tiny models under the names of the real ones."""
    made = tmp_path_factory.mktemp("readers-home")
    shutil.copytree(
        tiny_home, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns("HuggingFaceTB*", "sentence-transformers*")
    )
    names = {
        "fedrag/tiny-causal": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "fedrag/tiny-encoder": "sentence-transformers/all-MiniLM-L6-v2",
    }
    folders = {find_model(tiny).folder: real for tiny, real in names.items()}
    for folder, real in folders.items():
        command = [BIN / "fedrag", "models", "fetch", folder, "--source", "path", "--name", real]
        subprocess.run(command, env=os.environ | {"FEDRAG_HOME": str(made)}, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def coordinator(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Someone who reads the coordinator's document, from an empty folder on."""
    reader = Reader(tmp_path_factory.mktemp("read") / "coordinators", home)
    yield reader
    assert not any(reader.close()), "what goes on running ends in order when it is told to"


@pytest.fixture(scope="module")
def first_run(coordinator: Reader) -> dict[str, str]:
    """What the commands said that lead to the first finished run."""
    return coordinator.read(lines_of(SERVER, FIRST))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_coordinators_first_section_leads_to_a_finished_run(coordinator: Reader, first_run: dict[str, str]):
    assert "libraries-1" in first_run["fedrag server status coordinator"]
    page = coordinator.folder / "coordinator" / "runs" / "libraries-1" / "report.html"
    assert "harbour" in page.read_text()
    assert "libraries-1" in first_run["fedrag client audit harbour"]
    assert "train" in first_run["fedrag client audit harbour"]
    [answer] = [said for command, said in first_run.items() if "client ask" in command]
    assert "untouched" in answer.lower()
    assert (coordinator.folder / "hillside" / "models" / "libraries-1").is_dir()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("first_run")
def test_the_rest_of_the_coordinators_commands_run(coordinator: Reader):
    rest = lines_of(SERVER)[len(lines_of(SERVER, FIRST)) :]
    command = "fedrag server add-site coordinator clinic.pub --name clinic"
    said = coordinator.read(rest, {command: lambda: new_key(coordinator.folder / "clinic.key")})
    assert "clinic" in said["fedrag server remove-site coordinator clinic"]
    assert "libraries-2" in said["fedrag server status coordinator"]
    assert "clinic" in said["fedrag server sites coordinator"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("first_run")
def test_certificate_and_signing_key_are_renewed_and_a_backup_becomes_a_coordinator_again(coordinator: Reader):
    own = "fedrag (server (rotate|backup|restore)|client accept-key) "
    lines = [line for line in lines_of(SERVER) if re.match(own, line)]
    assert len(lines) == 6
    trusted = (coordinator.folder / "harbour" / "coordinator.pub").read_bytes()
    before = (coordinator.folder / "coordinator" / "server.crt").read_bytes()
    for line in lines:
        coordinator.run(line)
    assert (coordinator.folder / "coordinator" / "server.crt").read_bytes() != before
    new = (coordinator.folder / "coordinator" / "signing.pub").read_bytes()
    assert (coordinator.folder / "harbour" / "coordinator.pub").read_bytes() == new != trusted
    again = coordinator.folder / "coordinator-again"
    assert (again / "sites.json").read_bytes() == (coordinator.folder / "coordinator" / "sites.json").read_bytes()


def test_the_lines_that_verify_a_release_tell_a_released_file_from_another(tmp_path: Path):
    lines = [line for line in lines_of(SERVER) if re.match("ssh-keygen |openssl dgst |sha256sum ", line)]
    assert len(lines) == 3
    new_key(tmp_path / "coordinator")
    (tmp_path / "fedrag-0.2.0-py3-none-any.whl").write_text("released")
    run_in(tmp_path, "sha256sum *.whl > SHA256SUMS")
    sign_file(tmp_path / "coordinator", tmp_path / "SHA256SUMS")
    for line in lines:
        run_in(tmp_path, line)
    (tmp_path / "fedrag-0.2.0-py3-none-any.whl").write_text("another")
    with pytest.raises(AssertionError, match="FAILED"):
        run_in(tmp_path, lines[2])
    run_in(tmp_path, "sha256sum *.whl > SHA256SUMS")
    with pytest.raises(AssertionError, match="Verification"):
        run_in(tmp_path, lines[1])


@pytest.fixture
def waiting_coordinator(home: Path, tmp_path: Path) -> Iterator[Reader]:
    """A coordinator that is up and has no site yet."""
    reader = Reader(tmp_path / "coordinators", home)
    try:
        reader.read([line for line in lines_of(SERVER, FIRST) if re.match("fedrag server (init|start) ", line)])
        yield reader
    finally:
        reader.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_administrators_documents_lead_to_a_site_that_takes_part(
    waiting_coordinator: Reader, home: Path, tmp_path: Path
):
    site = Reader(tmp_path / "sites", home, waiting_coordinator.changes)
    write_documents(site.folder)
    try:
        said = site.read(lines_of(CLIENTS, DOCUMENTS), {EXCHANGE: lambda: exchange_keys(site, waiting_coordinator)})
    finally:
        codes = site.close()
    assert codes == [0]
    [imported] = [text for command, text in said.items() if " import documents " in command]
    assert "visits.pdf: 2 passages\n" in imported
    assert "Left out: scan.pdf: it holds no text" in imported
    assert "6 of 7 questions labelled by where the answer stands; 1 " in imported
    assert "to do" not in said["fedrag client check clinic"]
    [updated] = [text for command, text in said.items() if " data update " in command]
    assert "5 passages: 5 as before, 0 changed, 0 new; 0 went." in updated


def exchange_keys(site: Reader, coordinator: Reader) -> None:
    """Do what people do: the site's key goes to the coordinator, and its certificate and key come back."""
    shutil.copy(site.folder / "clinic" / "site.pub", coordinator.folder / "clinics.pub")
    coordinator.run("fedrag server add-site coordinator clinics.pub --name clinic")
    for file in (coordinator.folder / "coordinator" / "for-sites").iterdir():
        shutil.copy(file, site.folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("first_run")
def test_a_sites_commands_lead_from_nothing_to_delivered_models(coordinator: Reader, home: Path, tmp_path: Path):
    site = Reader(tmp_path / "sites", home, coordinator.changes)

    def begin_a_run() -> None:
        settings = "--set federation.min_sites=3 --set federation.rounds=1"
        coordinator.run(f"fedrag server run coordinator example/scenario.toml {settings}")

    before = {EXCHANGE: lambda: exchange_keys(site, coordinator), "fedrag client models clinic": begin_a_run}
    try:
        said = site.read(lines_of(CLIENTS, without=DOCUMENTS), before)
    finally:
        codes = site.close()
    assert codes == [0, 0]
    assert "to do" not in said["fedrag client check clinic"]
    assert "In all," in said["fedrag client audit clinic"]
    assert "is current now" in said["fedrag client adopt clinic"]
    assert "Recommendation: " in said["fedrag client diagnose clinic"]
    assert "untouched models are current" in said["fedrag client rollback clinic"]
    assert not list((site.folder / "clinic" / "models").glob("*/*.safetensors"))


@pytest.mark.parametrize(
    "with_dependencies",
    [
        pytest.param(False, marks=[pytest.mark.slow, pytest.mark.timeout(300)], id="fedrag alone"),
        pytest.param(True, marks=[pytest.mark.acceptance, pytest.mark.timeout(3600)], id="everything"),
    ],
)
def test_fedrag_installs_from_wheels_and_models_from_folders_without_an_index(
    with_dependencies: bool, home: Path, tmp_path: Path
):
    """The wheels of all dependencies take minutes; the quick form lends the new environment those of this one."""
    shown = lines_of(CLIENTS, "Without a package index")
    [wheel] = [line for line in shown if line.startswith("pip wheel ")]
    [install] = [line for line in shown if line.startswith("pip install ")]
    clone, machine = tmp_path / "clone", tmp_path / "machine"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "fedrag", clone / "fedrag", ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(machine, with_pip=False)
    [packages] = (machine / "lib").glob("python*/site-packages")
    for_wheel, for_install = "--quiet", "--quiet"
    if not with_dependencies:
        for_wheel, for_install = "--quiet --no-deps --no-build-isolation", "--quiet --no-deps --force-reinstall"
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = f"{sys.executable} -m pip"
    run_in(clone, wheel.replace("pip wheel", f"{pip} wheel {for_wheel}"))
    run_in(clone, install.replace("pip install", f"{pip} --python {machine}/bin/python install {for_install}"))
    assert (packages / "fedrag" / "__init__.py").is_file()
    assert run_in(tmp_path, f"{machine}/bin/fedrag --version") == "fedrag 0.2.0\n"
    fetches = [line for line in shown if line.startswith("fedrag models fetch fetched/")]
    assert len(fetches) == 2
    shutil.copytree(home / "models", tmp_path / "fetched")
    for line in fetches:
        run_in(tmp_path, f"FEDRAG_HOME={tmp_path}/new HF_HUB_OFFLINE=1 {machine}/bin/{line}")
    assert {path.name for path in (tmp_path / "new" / "models").iterdir()} >= {line.split()[3][8:] for line in fetches}


def run_in(folder: Path, line: str) -> str:
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_example_of_a_site_toml_is_a_new_one():
    text = (ROOT / "clients" / "site.example.toml").read_text(encoding="utf-8")
    assert text == site_toml("clinic", "rag.example.org:8443")
    assert tomllib.loads(text)["name"] == "clinic"


UNITS = ("server/fedrag-server.service", "clients/fedrag-client.service")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (package systemd)")
def test_systemd_understands_every_line_of_a_service_unit(unit: str, tmp_path: Path):
    text = (ROOT / unit).read_text()
    assert "ExecStart=/opt/fedrag/bin/fedrag " in text
    here = tmp_path / Path(unit).name
    here.write_text(text.replace("/opt/fedrag/bin/fedrag", str(BIN / "fedrag")))
    assert verify(here) == (0, [])
    here.write_text(here.read_text() + "KillMode=mixd\n[Service]\nKillMode=mixd\n")
    assert verify(here)[1], "a line that it does not understand would be noticed"


def verify(unit: Path) -> tuple[int, list[str]]:
    """Return the exit code, and what was said about this unit: an unknown key is a warning alone."""
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    return done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]


@pytest.mark.parametrize(
    ("unit", "verb", "children"), [(UNITS[0], "server", 4), (UNITS[1], "client", 2)], ids=["server", "client"]
)
def test_a_service_unit_starts_a_service_as_its_own_user_and_waits_for_its_orderly_end(
    unit: str, verb: str, children: int
):
    settings = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / unit).read_text(), re.M))
    folder = f"/var/lib/fedrag-{verb}"
    assert settings["User"] == f"fedrag-{verb}"
    assert settings["ExecStart"].startswith(f"/opt/fedrag/bin/fedrag {verb} start {folder}/")
    assert settings["ReadWritePaths"] == folder
    assert int(settings["TimeoutStopSec"]) > 15 * children
    assert settings["KillMode"] == "mixed", "the service ends its own processes"
    shown = (ROOT / unit).with_name("README.md").read_text()
    assert f"{verb} init {settings['ExecStart'].split()[-1].removeprefix('/var/lib/')} " in shown
    assert f"--home-dir {folder} " in shown


@pytest.mark.parametrize("document", [SERVER, CLIENTS])
def test_every_test_and_file_that_a_document_names_exists(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|server|clients|simulations)/[\w./-]+)`", text)
    linked = [str(Path(document).parent / target) for target in re.findall(r"\]\((?!http)([^)#]+)", text)]
    assert named
    assert linked
    assert [path for path in named + linked if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", [SERVER, CLIENTS])
def test_the_lines_that_a_document_explains_are_said_by_the_code(document: str):
    section = (ROOT / document).read_text(encoding="utf-8").partition("\n## Troubleshooting\n")[2]
    explained = re.findall(r"^\| `(.+?)` \|", section, re.M)
    assert len(explained) > 5
    said = "\n".join(text for path in (ROOT / "fedrag").rglob("*.py") for text in texts_of(path))
    lines = [line for cell in explained for line in cell.split("`, `")]
    parts = [(line, part.strip()) for line in lines for part in re.split(r"\.\.\.|^attention: ", line)]
    assert [(line, part) for line, part in parts if part not in said] == []


def texts_of(path: Path) -> list[str]:
    """Return the texts of a source file, without what is filled in."""
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_nothing_is_left_out_that_could_run():
    shown = [line for document in (SERVER, CLIENTS) for line in lines_of(document)]
    ours = [line for line in shown if line.startswith("fedrag ")]
    left_out = [line for line in ours if NOT_RUN.match(line)]
    own_tests = "fedrag (server (rotate|backup|restore)|client accept-key|models fetch fetched/)"
    assert all(re.match(own_tests, line) for line in left_out)
    assert len(left_out) == 8
    assert len(ours) > 30
