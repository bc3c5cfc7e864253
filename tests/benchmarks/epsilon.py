"""What noise costs: a run for each epsilon on the same sites, measured on the same questions; 0 is no noise.

    fedrag data import squad xquad.en.json data/xquad-4 --site-by title --groups 4
    fedrag data import squad train.json data/policyqa-4 --site-by title --groups 4
    python tests/benchmarks/epsilon.py data/xquad-4 [--epsilons 0,8,4,2] [--audit] [--set SECTION.KEY=VALUE]

The settings are those of private.toml: all questions in each step, A of the adapter frozen. Without noise the same
questions train in `epochs` of the same number of passes over each question. The generator joins in with
`--set federation.schedule=joint --set evaluation.generate=true`. A run that is there is read; runs lie in
build/epsilon. With --audit the questions that each run learnt from are told from the others of its sites: how often
rightly, with a 95 % interval, and which share of them at one false accusation in a hundred.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trained_runs import SCENARIOS, print_table, trained_run

from fedrag.config.scenario import Config
from fedrag.privacy.audit import FOLDER as AUDIT
from fedrag.privacy.audit import RESULT, audit_run
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "epsilon"
METRICS = {"exact_match": "EM", "f1": "F1", "mrr": "MRR"}


def audited(run: RunFolder) -> dict[str, Any]:
    """Return how well what a run learnt from can be told, by component, from its audit; one that is there is read."""
    path = run.path / AUDIT / RESULT
    found = json.loads(path.read_text()) if path.is_file() else audit_run(run.path)
    return found["membership"]


def trained(sites: Path, epsilon: float, overrides: list[str]) -> RunFolder:
    """Return the finished run of one epsilon."""
    path = FOLDER / f"{sites.name}-{epsilon:g}"
    privacy = Config.from_file(SCENARIOS / "private.toml", overrides).privacy
    passes = max(1, round(privacy.steps * privacy.sample_rate))
    epochs = [f"generator.epochs={passes}", f"retriever.epochs={passes}"]
    settings = [f"data.sites={sites.resolve()}", f"privacy.epsilon={epsilon}", *epochs, *overrides]
    return trained_run(path, "private", settings)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as the runs end."""
    told = [f"{c}: told rightly | found" for c in COMPONENTS] if options.audit else []
    yield "| epsilon | " + " | ".join([*METRICS.values(), "s", *told]) + " |"
    yield "| --- " * (len(METRICS) + 2 + 2 * len(told)) + "|"
    for number, epsilon in enumerate(options.epsilons):
        run = trained(options.sites, epsilon, options.overrides)
        results = run.results()
        if not number:
            yield _line("untouched", results["untouched"]["overall"], "")
        seconds = sum(record["seconds"] for record in run.rounds())
        line = _line(f"{epsilon:g}" if epsilon else "no noise", results["federated"]["overall"], f"{seconds:.0f}")
        yield line + (_told(audited(run)) if options.audit else "")


def _line(name: str, measured: dict[str, float | None], seconds: str) -> str:
    figures = ["" if (value := measured.get(key)) is None else f"{100 * value:.1f}" for key in METRICS]
    return f"| {name} | " + " | ".join([*figures, seconds]) + " |"


def _told(membership: dict[str, Any]) -> str:
    cells = []
    for component in COMPONENTS:
        if found := membership.get(component):
            auc, low, high = (100 * found[key] for key in ("auc", "auc_low", "auc_high"))
            cells += [f"{auc:.0f} ({low:.0f} to {high:.0f})", f"{100 * found['found']:.1f}"]
        else:
            cells += ["", ""]
    return " " + " | ".join(cells) + " |"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=Path, help="a folder of sites")
    parser.add_argument("--epsilons", type=lambda text: [float(part) for part in text.split(",")], default="0,8,4,2")
    parser.add_argument("--audit", action="store_true", help="tell what was learnt from, too")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    print_table(lines(options))


if __name__ == "__main__":
    main()
