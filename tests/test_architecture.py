"""The rooms of fedrag and the directions in which they may import one another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import fedrag

PACKAGE = Path(fedrag.__file__).parent

# The rooms, from the top row down; the longest name that fits a module is its room. A room imports the rows below it.
ROWS = (
    ("cli", "api", "bridges"),
    ("coordinator", "simulation", "serving"),
    ("reporting", "tracking", "exporting", "site.service", "site.admin"),
    (
        "site",
        *(f"federation.{name}" for name in ("federate", "rounds", "fold", "scoring", "exchange", "taking_part")),
        *(f"federation.{name}" for name in ("secure_exchange", "secure_fold", "secure_spoilers")),
    ),
    ("diagnosis", "privacy"),
    ("components", "evaluation", "augmentation"),
    ("training", "rag"),
    ("passes",),
    ("models", "retrieval"),
    ("weights", "federation", "grids", "runs", "dp"),
    ("data", "config", "security", "service", "secure_sum"),
    ("types", "errors", "seeding", "files", "display", "text", "memory", "locks", "languages"),
)
# Inside a row, only where it is natural one way.
WITHIN_A_ROW = {
    ("federation.federate", "federation.rounds"),
    ("federation.federate", "federation.exchange"),
    ("federation.rounds", "federation.fold"),
    ("federation.rounds", "federation.exchange"),
    ("federation.rounds", "federation.taking_part"),
    ("federation.taking_part", "federation.exchange"),
    ("federation.rounds", "federation.scoring"),
    ("federation.fold", "federation.exchange"),
    ("exporting", "reporting"),
    ("federation.scoring", "federation.exchange"),
    ("federation.scoring", "federation.secure_fold"),
    ("federation.rounds", "federation.secure_fold"),
    ("federation.secure_fold", "federation.exchange"),
    ("federation.secure_fold", "federation.fold"),
    ("federation.secure_fold", "federation.secure_exchange"),
    ("federation.rounds", "federation.secure_exchange"),
    ("federation.secure_exchange", "federation.exchange"),
    ("federation.secure_exchange", "federation.secure_spoilers"),
    ("federation.secure_spoilers", "federation.exchange"),
    ("components", "evaluation"),
    ("training", "rag"),
    ("runs", "weights"),
    ("config", "secure_sum"),
    ("secure_sum", "security"),
    ("display", "text"),
    ("files", "errors"),
    ("locks", "errors"),
    ("locks", "files"),
    ("languages", "errors"),
    ("languages", "text"),
}

# Libraries that are imported in some rooms only.
ONLY_IN = {
    "flwr": (
        "coordinator",
        "federation.arriving",
        "federation.exchange",
        "federation.taking_part",
        "federation.federate",
        "federation.fold",
        "federation.messages",
        "federation.greeting",
        "federation.refusal_codes",
        "federation.reply_limit",
        "federation.secure_exchange",
        "federation.secure_fold",
        "federation.secure_messages",
        "federation.secure_spoilers",
        "federation.signing",
        "grids",
        "simulation.clients",  # names the Grid and the client app that it hands on
        "site.client_app",
        "site.egress",
        "site.secure_round",
        "site.service",
    ),
    "ray": ("grids",),
    "dp_accounting": ("dp",),
    "opacus": ("dp",),
    "peft": ("models",),
    "faiss": ("retrieval",),
    "mlflow": ("tracking",),
    "wandb": ("tracking",),
    "trackio": ("tracking",),
    "bm25s": ("retrieval",),
}


@dataclass(frozen=True)
class Module:
    """A module's syntax tree, its lines, and the full names of what it imports, wherever in it that stands."""

    tree: ast.Module
    lines: list[str]
    imports: frozenset[str]


@cache
def modules() -> dict[str, Module]:
    """Read every module below fedrag once, by its name, as `weights.store`."""
    paths = {_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}
    found = {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        found[name] = Module(tree, text.splitlines(), frozenset(_imports(name, tree, paths)))
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _imports(name: str, tree: ast.Module, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("fedrag.") in known else str(node.module)


def own_imports(name: str) -> set[str]:
    """Return the modules of fedrag that a module imports."""
    return {other.removeprefix("fedrag.") for other in modules()[name].imports if other.startswith("fedrag.")}


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> tuple[int, str]:
    """Return a module's row, counted from the top, and its room."""
    fitting = [(row, room) for row, rooms in enumerate(ROWS) for room in rooms if is_in(name, room)]
    assert fitting, f"fedrag/{name.replace('.', '/')} stands in no room of ROWS"
    return max(fitting, key=lambda place: len(place[1]))


def test_imports_run_downwards():
    wrong = []
    for name in modules():
        row, room = room_of(name)
        for other in own_imports(name):
            other_row, other_room = room_of(other)
            allowed = other_row > row or other_room == room or (room, other_room) in WITHIN_A_ROW
            if not allowed:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_imports_run_in_a_circle():
    graph = {name: own_imports(name) - {name} for name in modules()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_every_exception_is_used():
    assert {(room_of(name)[1], room_of(other)[1]) for name in modules() for other in own_imports(name)} >= WITHIN_A_ROW
    for library, rooms in ONLY_IN.items():
        users = [name for name, module in modules().items() if any(is_in(other, library) for other in module.imports)]
        for room in rooms:
            assert any(is_in(name, room) for name in users), f"{room} no longer imports {library}"


def test_libraries_stay_in_their_rooms():
    wrong = [
        f"{name} imports {library}"
        for name, module in modules().items()
        for library, rooms in ONLY_IN.items()
        if any(is_in(other, library) for other in module.imports) and not any(is_in(name, room) for room in rooms)
    ]
    assert not wrong


def test_the_top_level_holds_rooms_and_a_few_plain_modules():
    plain = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert plain == {"types", "errors", "seeding", "files", "display", "text", "memory", "locks"}


def test_every_room_says_in_one_sentence_what_it_is_for():
    for folder in (path.parent for path in PACKAGE.rglob("*.py")):
        told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert told, folder
        assert len(told.splitlines()) == 1, folder
        assert told.endswith("."), folder


def test_no_two_files_share_a_name():
    """Commands mirror what they call; what concerns a component, or another library, has its name."""
    names: dict[str, list[str]] = {}
    for name in modules():
        if not is_in(name, "cli"):
            names.setdefault(name.rpartition(".")[2], []).append(name)
    shared = {stem: found for stem, found in names.items() if len(found) > 1}
    assert set(shared) <= {"generator", "retriever", "service", "haystack"}, shared


def test_imports_inside_functions_stand_in_cli_or_give_their_reason():
    wrong = []
    for name, module in modules().items():
        functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = {node for function in functions for node in ast.walk(function)}
        for node in inside:
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            if is_import and not is_in(name, "cli") and "  # " not in module.lines[node.lineno - 1]:
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong


# What a person does on any system: all but a deployment.
ON_EVERY_SYSTEM = (
    *(
        "cli.main",
        "cli.simulate",
        "cli.data",
        "cli.data_import",
        "cli.models",
        "cli.evaluate",
        "cli.ask",
        "cli.report",
        "cli.serve",
        "cli.feedback",
    ),
    *("simulation.simulate", "simulation.plan", "reporting.page", "evaluation.ask", "evaluation.evaluate"),
)
OF_UNIX_ALONE = {"fcntl", "grp", "pwd", "pty", "resource", "syslog", "termios", "tty"}
ATTRIBUTES_OF_UNIX_ALONE = {
    "os": {"fork", "geteuid", "getgid", "getuid", "killpg", "mkfifo", "pread", "setsid", "statvfs", "uname"},
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"},
    "socket": {"AF_UNIX"},
}


def test_what_runs_on_every_system_needs_nothing_of_unix():
    """The verbs of a deployment are imported when they are called; what the others import is followed from them."""
    deployment = ("cli.server", "cli.client", "cli.client_audit", "cli.client_check", "cli.client_models")
    seen, waiting = set(deployment), list(ON_EVERY_SYSTEM)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += own_imports(name) & set(modules()) - seen
    wrong = [f"{name}: {used}" for name in sorted(seen - set(deployment)) for used in _of_unix(modules()[name])]
    assert wrong == []
    at_import = [f"{name}: {used}" for name in deployment for used in modules()[name].imports & OF_UNIX_ALONE]
    assert at_import == []


def _of_unix(module: Module) -> Iterator[str]:
    yield from sorted(module.imports & OF_UNIX_ALONE)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES_OF_UNIX_ALONE.get(ast.unparse(node.value), ()):
            yield f"{ast.unparse(node.value)}.{node.attr}"


def test_every_text_file_is_opened_with_its_encoding():
    """Without one, Python takes that of the locale."""
    wrong = [
        f"fedrag/{name.replace('.', '/')}.py:{node.lineno}"
        for name, module in modules().items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _opens_text(node) and "encoding" not in {k.arg for k in node.keywords}
    ]
    assert wrong == []


def _opens_text(call: ast.Call) -> bool:
    """Whether a call opens a text file, as far as its words tell."""
    asked = [one.arg for one in call.keywords if isinstance(one.value, ast.Constant) and one.value.value is True]
    if {"text", "universal_newlines"} & set(asked):
        return True
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and re.fullmatch("[rwaxbt+]{1,3}", str(a.value))]
    if name in ("read_text", "write_text") and isinstance(function, ast.Attribute):
        return True
    if name == "fdopen":
        return "b" not in "".join(modes)
    if name == "open":
        builtin = isinstance(function, ast.Name)
        return "b" not in "".join(modes) if builtin or modes else not (call.args or call.keywords)
    return False
