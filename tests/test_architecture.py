"""The rooms of fedrag and the directions in which they may import one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import fedrag

PACKAGE = Path(fedrag.__file__).parent

# A room may import every room of the rows below its own. The longest name that fits a module is its room.
ROWS = (
    ("cli",),
    ("plan", "simulation"),
    ("baselines", "preflight"),
    ("site.service",),
    ("site.node",),
    ("site.desk",),
    ("site.worker",),
    ("site.app", "coordinator", "reporting", "grids"),
    ("site", "federation.rounds", "federation.fold", "federation.exchange"),
    ("evaluation", "facts"),
    ("training", "rag"),
    ("models", "retrieval", "federation"),
    ("data", "rag.prompt", "evaluation.answers", "evaluation.ranking", "evaluation.significance", "runs"),
    ("reporting.rounds",),  # sums over the lines of a run's log, which the console shows as well as the report
    ("security", "supervision"),
    (
        *("types", "errors", "config", "config_section", "config_errors", "config_reference"),
        *("seeding", "display", "files", "memory", "schedule"),
    ),
)
WITHIN_A_ROW = {
    ("federation.rounds", "federation.fold"),
    ("federation.rounds", "federation.exchange"),
    ("federation.fold", "federation.exchange"),
    ("training", "rag"),
    ("config", "types"),
    ("schedule", "config"),
    ("schedule", "types"),
    ("files", "errors"),
    ("config", "errors"),
    ("config", "files"),
    ("config", "config_section"),
    ("config_section", "config_errors"),
    ("config_section", "errors"),
    ("config_reference", "config"),
    ("config_reference", "errors"),
}

# Libraries that are imported in some rooms only.
ONLY_IN = {
    "flwr": (
        "simulation",  # names the Grid that it hands to the rounds
        "site.app",
        "site.worker",
        "site.egress",
        "coordinator",
        "grids",
        "site.connection",
        "site.node",
        "site.desk",
        "site.inbox",
        "federation.messages",
        "federation.signing",
        "federation.rounds",
        "federation.fold",
        "federation.exchange",
    ),
    "ray": ("grids",),
    "peft": ("models",),
    "faiss": ("retrieval",),
}


def names() -> list[str]:
    """List the modules below fedrag, as `models.store`."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths if path.parts != ("__init__",))


@cache
def source(name: str) -> tuple[ast.Module, list[str]]:
    path = PACKAGE.joinpath(*name.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


@cache
def imports(name: str) -> frozenset[str]:
    """List what a module imports, with full names, wherever in it the import stands."""
    found = set()
    for node in ast.walk(source(name)[0]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            module = str(node.module)
            found |= {f"{module}.{alias.name}" if is_module(module, alias.name) else module for alias in node.names}
    return frozenset(found)


def is_module(package: str, name: str) -> bool:
    return package.split(".")[0] == "fedrag" and f"{package}.{name}".removeprefix("fedrag.") in names()


def own_imports(name: str) -> Iterator[str]:
    """List the modules of fedrag that a module imports."""
    yield from (other.removeprefix("fedrag.") for other in imports(name) if other.startswith("fedrag."))


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> tuple[int, str]:
    """Return a module's row, counted from the top, and its room."""
    fitting = [(row, room) for row, rooms in enumerate(ROWS) for room in rooms if is_in(name, room)]
    assert fitting, f"fedrag/{name.replace('.', '/')} stands in no room of ROWS"
    return max(fitting, key=lambda place: len(place[1]))


def test_imports_run_downwards():
    wrong = []
    for name in names():
        row, room = room_of(name)
        for other in own_imports(name):
            other_row, other_room = room_of(other)
            allowed = other_row > row or other_room == room or (room, other_room) in WITHIN_A_ROW
            if not allowed:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_imports_run_in_a_circle():
    graph = {name: set(own_imports(name)) - {name} for name in names()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_libraries_stay_in_their_rooms():
    wrong = [
        f"{name} imports {library}"
        for name in names()
        for library, rooms in ONLY_IN.items()
        if any(is_in(other, library) for other in imports(name)) and not any(is_in(name, room) for room in rooms)
    ]
    assert not wrong


def test_imports_inside_functions_stand_in_cli_or_give_their_reason():
    wrong = []
    for name in names():
        tree, lines = source(name)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = {node for function in functions for node in ast.walk(function)}
        for node in inside:
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            if is_import and not is_in(name, "cli") and "  # " not in lines[node.lineno - 1]:
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong
