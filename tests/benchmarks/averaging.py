"""Each rule of averaging on the same sites: what it reaches, what it costs, how far its factors are off.

For each data set, each number of passes a round and each deal of the questions, every way of averaging trains a run of
its own in build/averaging and is measured on the same questions. Deals: `own`, the sites as they are; `iid`, all
questions dealt at random to as many sites; `dirichlet`, each site's mix of sources drawn with alpha = 0.1. A run that
is there is read, one that was interrupted goes on: the script may be stopped and started again. One seed each; the
learning rates are those of the scenario for all. Hours on two cores; `--tiny` tries all of it with random models.

    python tests/benchmarks/averaging.py [--sets demo,xquad,policyqa] [--ways fedavg,svd] [--epochs 1,4]
        [--deals own,iid,dirichlet] [--rounds N] [--tiny] [--set SECTION.KEY=VALUE]

The data sets other than `demo` lie in data/, as simulations/README.md says.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trained_runs import SCENARIOS, print_table, some_of, tiny_models, trained_run

from fedrag.config.scenario import Config
from fedrag.data.partition import partition
from fedrag.data.site_folder import load_sites
from fedrag.data.writing import write_sites
from fedrag.runs.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "averaging"
DEALS = ("own", "iid", "dirichlet")
ALPHA = 0.1

WAYS: dict[str, tuple[str, ...]] = {
    **{rule: (f"federation.rule={rule}",) for rule in ("fedavg", "ffa", "rolora", "svd", "exact")},
    **{name: (f"federation.server_optimizer={name}",) for name in ("momentum", "adam", "yogi", "adagrad")},
    **{
        name: ("federation.weighting=equal", f"federation.robust={name}")
        for name in ("none", "clipping", "geometric-median", "mixing")
    },
}
"""Settings by the name of a way; "none" is the mean with equal weights, with which the robust ones compare."""


@dataclass(frozen=True)
class DataSet:
    """A scenario, and the sites that it is measured on where these train nothing."""

    scenario: str
    held_out: tuple[str, ...] = ()
    settings: tuple[str, ...] = field(default=())


SETS = {
    "demo": DataSet("demo"),
    "xquad": DataSet("xquad"),
    "policyqa": DataSet(
        "policyqa",
        ("fool.com", "ted.com", "walmart.com", "style.com", "yahoo.com"),
        ("evaluation.split=all", "evaluation.sites=held-out"),
    ),
}


def dealt(data: DataSet, deal: str, seed: int) -> Path:
    """Return the folder of a data set's sites in a deal; it is written once."""
    config = Config.from_file(SCENARIOS / f"{data.scenario}.toml")
    sites = Path(config.data.sites)
    sites = sites if sites.is_absolute() or sites.is_dir() else ROOT / sites
    if deal == "own":
        return sites
    folder = FOLDER / "data" / f"{data.scenario}-{deal}"
    if not folder.is_dir():
        found = load_sites(sites)
        kept = [site for site in found if site.name in data.held_out]
        source = [site for site in found if site.name not in data.held_out]
        by = "iid" if deal == "iid" else "dirichlet"
        write_sites(folder, [*partition(source, len(source), by, ALPHA, seed), *kept])
    return folder


def trained(data: DataSet, way: str, epochs: int, deal: str, options: argparse.Namespace) -> RunFolder:
    """Return the finished run of one cell of the table."""
    path = FOLDER / "-".join((data.scenario, deal, str(epochs), way, *(("tiny",) if options.tiny else ())))
    settings = [
        *(f"data.hold_out={list(data.held_out)}".replace("'", '"'),) * bool(data.held_out),
        f"data.sites={dealt(data, deal, options.seed)}",
        f"seed={options.seed}",
        f"generator.epochs={epochs}",
        f"retriever.epochs={epochs}",
        "evaluation.untouched=true",
        "evaluation.baselines=[]",
        *data.settings,
        *((f"federation.rounds={options.rounds}",) if options.rounds else ()),
        *(tiny_models() if options.tiny else ()),
        *WAYS[way],
        *options.overrides,
    ]
    return trained_run(path, data.scenario, settings)


def line(run: RunFolder) -> dict[str, str]:
    """Return the figures of a run, as they stand in the table."""
    records, results = run.rounds(), run.results()["federated"]["overall"]
    last: dict[str, Any] = records[-1]
    errors = " ".join(f"{name[:3]} {error:.2%}" for name, error in last["aggregation_error"].items())
    back = sum(told["bytes"] for record in records for told in record["sites"].values()) / 1e6
    there = sum(record["bytes_to_each_site"] * len(record["asked"]) for record in records) / 1e6
    measured = {name: results.get(name) for name in ("exact_match", "f1", "recall_at_1", "mrr")}
    figures = {name: f"{100 * value:.1f}" for name, value in measured.items() if value is not None}
    return {
        **figures,
        "aggregation error": errors or "none",
        "MB back": f"{back:.1f}",
        "MB to": f"{there:.1f}",
        "s": f"{sum(record['seconds'] for record in records):.0f}",
    }


def table(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as the runs end."""
    header: list[str] = []
    cells = itertools.product(options.sets, options.deals, options.epochs, options.ways)
    for name, deal, epochs, way in cells:
        figures = {"data": name, "deal": deal, "passes": str(epochs), "way": way}
        figures |= line(trained(SETS[name], way, epochs, deal, options))
        if list(figures) != header:
            header = list(figures)
            yield "\n| " + " | ".join(header) + " |\n| " + " | ".join(["---"] * len(header)) + " |"
        yield "| " + " | ".join(figures.values()) + " |"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, known in (("sets", SETS), ("ways", WAYS), ("deals", DEALS)):
        parser.add_argument(f"--{name}", type=some_of(known), default=[*known])
    parser.add_argument("--epochs", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4])
    parser.add_argument("--rounds", type=int, default=0, help="0: those of the scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="random models: the figures mean nothing")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    print_table(table(options))


if __name__ == "__main__":
    main()
