"""Adds up what sites told of why their answers are wrong."""

from __future__ import annotations

from typing import Any

from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.diagnosis.advice import advise
from fedrag.diagnosis.scenario_lines import Situation
from fedrag.diagnosis.tally import Tally
from fedrag.errors import ConfigError
from fedrag.runs.run_folder import RunFolder

NOTHING_TOLD = (
    "no site told why its answers are wrong; a run asks for it with federation.diagnose = true, and a site tells it "
    "with tell_diagnosis = true in its policy"
)


def added_up(folder: ServerFolder, name: str | None = None) -> dict[str, Any] | None:
    """Return the counts of all sites together, before and after training, and what they advise.

    A site whose policy keeps its number of questions tells shares, and counts as one question.

    Args:
        folder: The coordinator's folder.
        name: The run; None: the latest one in which a site told something.

    Returns:
        `run`, `before` and `after` where they were told (each `sites`, their names, and `counts`), and `advice`, which
        looks at the last of them; None: no site told anything.

    Raises:
        ConfigError: There is no such run.
    """
    known = run_names(folder)
    if name is not None and name not in known:
        raise ConfigError(f"{name}: there is no such run; there are: {', '.join(known) or 'none'}")
    for run in (RunFolder.open(folder.runs / one) for one in ([name] if name else reversed(known))):
        told = {moment: sites for moment, sites in run.told_diagnoses.items() if sites}
        if told:
            sums: dict[str, dict[str, Any]] = {
                moment: {
                    "sites": sorted(sites),
                    "counts": sum(map(Tally.from_counts, sites.values()), Tally()).to_json(),
                }
                for moment, sites in told.items()
            }
            last = "after" if "after" in sums else "before"
            labelled = [site["counts"].get("labelled_questions", 0) for site in run.told_by_sites.values()]
            situation = Situation.of(run.config, base=last == "before", has_labels=any(labelled) if labelled else None)
            advice = advise(Tally.from_counts(sums[last]["counts"]), situation)
            return {"run": run.path.name, **sums, "advice": advice.to_json()}
    return None
