"""A small real federation for tests: the whole engine, random tiny models, sites of a few questions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from fedrag.config.scenario import Config
from fedrag.data.site_folder import chosen_folders, load_site, site_name
from fedrag.data.writing import write_site
from fedrag.federation.exchange import Federation
from fedrag.federation.messages import TRAIN
from fedrag.federation.rounds import run_rounds
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.run_folder import RunFolder
from fedrag.site.client_app import make_client_app
from fedrag.site.secure_round import simulated_agreement_key
from fedrag.types import Site, State

SHIPPED = Path(__file__).parents[1] / "simulations" / "data" / "tiny"

ClientFunction = Callable[..., Message]

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "models": {
        "generator": "fedrag/tiny-causal",
        "retriever": "fedrag/tiny-encoder",
        "generator_dtype": "float32",
        "retriever_dtype": "float32",
    },
    "rag": {"passages": 2, "prompt_tokens": 192, "answer_tokens": 8},
    "generator": {"lora": {"rank": 2}, "batch_size": 4, "warmup": 0.0},
    "retriever": {"lora": {"rank": 2}, "batch_size": 4, "warmup": 0.0},
    "federation": {"greeting_timeout_s": 20.0, "wire": "float32"},
    "evaluation": {"split": "none"},
    "simulation": {"threads": 1},
}


class Lines:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def progress(self, task: str, done: int, total: int) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(self.said)


def tiny_config(sites: Path = SHIPPED, **settings: Any) -> Config:
    """Return a scenario on the tiny models; keyword arguments are sections, laid over `SETTINGS`."""
    return Config.from_dict(_merged({**SETTINGS, "data": {"sites": str(sites)}}, settings))


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], over[k]) for k in base.keys() & over.keys() if isinstance(over[k], dict)}
    return {**base, **over, **both}


def small_site(name: str, like: str = "north", train: int = 4, validation: int = 2, test: int = 2) -> Site:
    """Return the first questions of a shipped site, under another name."""
    whole = load_site(SHIPPED / like)
    return Site(name, whole.passages, whole.train[:train], whole.validation[:validation], whole.test[:test])


def write_small_sites(root: Path, **train: int) -> Path:
    """Write sites with so many training questions each, on the shipped sites' data in turn."""
    for (name, count), like in zip(train.items(), ("north", "south", "east") * 2, strict=False):
        write_site(root / name, small_site(name, like, count))
    return root


def client_folders(config: Config) -> list[Path]:
    return chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)


def node_configs(folders: Sequence[Path], caches: Path) -> list[dict[str, str]]:
    return [
        {
            "site-name": site_name(folder),
            "site-folder": str(folder),
            "site-cache": str(caches / site_name(folder)),
            "agreement-key": simulated_agreement_key(site_name(folder)),
        }
        for folder in folders
    ]


def federate(
    config: Config,
    path: Path,
    *,
    app: ClientFunction | None = None,
    grid: Callable[..., InProcessGrid] = InProcessGrid,
    nodes: list[dict[str, str]] | None = None,
    display: Any = None,
    **options: Any,
) -> tuple[State, RunFolder]:
    """Run all rounds of a scenario in a run folder that is new, or was interrupted."""
    run = RunFolder.open(path) if path.exists() else RunFolder.create(config, path)
    nodes = nodes or node_configs(client_folders(config), path / "sites")
    opened = grid(app or make_client_app(), nodes)
    return run_rounds(Federation(opened, run, display=display or Lines(), **options)), run


def with_faults(faults: dict[str, ClientFunction], kind: str = TRAIN) -> ClientFunction:
    """Return the real client app, in which some sites answer one kind of message in their own way.

    A fault is called with the message, the context and the real app.
    """
    real = make_client_app()

    def answer(message: Message, context: Context) -> Message:
        fault = faults.get(str(context.node_config["site-name"]))
        if fault is not None and message.metadata.message_type == kind:
            return fault(message, context, real)
        return real(message, context)

    return answer


def fresh_copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def assert_same_state(state: State, other: State) -> None:
    """Compare bit for bit."""
    assert list(state) == list(other)
    for component, tensors in state.items():
        assert list(tensors) == list(other[component])
        for name, tensor in tensors.items():
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, other[component][name], err_msg=f"{component} {name}")


def largest_difference(state: State, other: State) -> float:
    return max(float(np.abs(t - other[c][n]).max()) for c, tensors in state.items() for n, t in tensors.items())


def is_changed(state: State, before: State, component: str) -> bool:
    return any((t != before[component][n]).any() for n, t in state[component].items())
