"""What one bad site of six does to the others, by its attack and by how the server averages.

    python tests/benchmarks/poisoning.py [--attacks none,labels,reversed,trigger] [--ways none,clipping] [--out FOLDER]
        [--tiny] [--set SECTION.KEY=VALUE]

Each pair is a run of its own of `poisoned.toml`, measured on the test questions of the sites that are honest. With the
backdoor they are asked once more, each with the trigger at its end: how often does the wanted answer come? A run that
is there is read, one that was interrupted goes on. One seed each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trained_runs import SCENARIOS, print_table, some_of, tiny_models, trained_run

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_sites
from fedrag.display import Quiet
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.records import Measured, mean, read_measured
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.poison import with_trigger
from fedrag.types import Site

ROOT = Path(__file__).parents[2]

ATTACKS: dict[str, tuple[str, ...]] = {
    "none": ("simulation.poison.sites=[]",),
    **{how: (f"simulation.poison.how={how}",) for how in ("labels", "reversed", "trigger")},
}
WAYS: dict[str, tuple[str, ...]] = {
    **{name: (f"federation.robust={name}",) for name in ("none", "clipping", "geometric-median", "mixing")},
    "norm limit": ("federation.robust=none", "federation.max_norm_of_median=4"),
}
METRICS = ("exact_match", "f1", "recall_at_1", "mrr")


def trained(attack: str, way: str, options: argparse.Namespace) -> RunFolder:
    """Return the finished run of a line."""
    path = options.out / "-".join((attack, way.replace(" ", "-"), *(("tiny",) if options.tiny else ())))
    settings = [
        f"data.sites={ROOT / 'simulations' / 'data' / 'space'}",
        *("evaluation.untouched=false", "evaluation.baselines=[]", "federation.deliver=false"),
        *(tiny_models() if options.tiny else ()),
        *ATTACKS[attack],
        *WAYS[way],
        *options.overrides,
    ]
    return trained_run(path, "poisoned", settings)


def with_triggers(sites: Sequence[Site], config: Config) -> list[Site]:
    """Return sites whose test questions carry the trigger, and whose right answer is the wanted one."""
    poison = config.simulation.poison
    return [replace(site, test=tuple(with_trigger(question, poison) for question in site.test)) for site in sites]


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as the runs end."""
    bad = Config.from_file(SCENARIOS / "poisoned.toml").simulation.poison.sites
    yield "| attack | averaging | exact match | F1 | recall@1 | MRR | wanted answer |"
    yield "| --- " * 7 + "|"
    for attack in options.attacks:
        for way in options.ways:
            run = trained(attack, way, options)
            measured = read_measured(run.path / "evaluation" / "federated.jsonl")
            honest = [one for one in measured if one.site not in bad]
            asked: list[Measured] = []
            if attack == "trigger" or (attack, way) == ("none", "none"):
                sites = [site for site in load_sites(Path(run.config.data.sites)) if site.name not in bad]
                config, state = run.config, run.load_result()
                asked = measure_sites(with_triggers(sites, config), "test", config, state, True, Quiet())
            cells = [_per_cent(mean(honest, metric)) for metric in METRICS]
            yield f"| {attack} | {way} | {' | '.join(cells)} | {_per_cent(mean(asked, 'exact_match'))} |"


def _per_cent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, known in (("attacks", ATTACKS), ("ways", WAYS)):
        parser.add_argument(f"--{name}", type=some_of(known), default=[*known])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "poisoning", help="the folder of the runs")
    parser.add_argument("--tiny", action="store_true", help="random models: the figures mean nothing")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    print_table(lines(options))


if __name__ == "__main__":
    main()
