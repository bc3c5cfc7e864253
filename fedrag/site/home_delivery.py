"""Models that a site trained on at home, beside those that were delivered: `models/<run>.home/`.

They stand in the list of deliveries as one more, which this site made itself. So what asks, serves, measures, exports
or goes back works with them as with any other, and going back from them leads to what was delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from fedrag.runs.home_results import HomeScore, TrainedAtHome
from fedrag.site.delivery import (
    HOME,
    Delivered,
    Delivery,
    changing,
    current_delivery,
    deliveries,
    models_folder,
    open_delivery,
    write_models,
)
from fedrag.text import plural
from fedrag.types import State


def due_at_home(found: Sequence[Delivery]) -> Delivery | None:
    """Return the delivery in use that was not trained on at home yet; None where there is none."""
    current = current_delivery(found)
    return None if current is None or current.is_home or current.home else current


def record_home(folder: Path, base: Delivery, delivered: State, passes: int, trained: TrainedAtHome) -> bool:
    """Note how training at home went, and take into use what is kept; return whether anything is.

    Nothing is noted, or kept, if the delivery is not in use any more.

    Args:
        folder: The site's folder.
        base: The delivery from which it began.
        delivered: Its tensors by component.
        passes: How many it made over the site's questions.
        trained: What came of it.
    """
    with changing(folder) as found:
        if current_delivery(found) != base:
            return False
        scores = {component: asdict(score) for component, score in trained.scores.items()}
        told = replace(base, home={"passes": passes, "scores": scores, "why": trained.why})
        name = f"{base.run}{HOME}"
        found[:] = [told if one == base else one for one in found if one.run != name]
        if trained.kept:
            scenario = (models_folder(folder, base.run) / "scenario.toml").read_text(encoding="utf-8")
            digests = write_models(models_folder(folder, name), {**delivered, **trained.kept}, scenario)
            time = datetime.now().astimezone().isoformat(timespec="seconds")
            found.append(Delivery(name, time, digests, base.models, scenario=base.scenario))
        return bool(trained.kept)


def open_base(folder: Path, delivered: Delivered) -> Delivered | None:
    """Load the delivery from which models were trained on at home; None where they were delivered, or it is gone."""
    base = {one.run: one for one in deliveries(folder)}.get(delivered.run.removesuffix(HOME))
    return open_delivery(folder, base) if base and base.run != delivered.run else None


def home_line(delivery: Delivery) -> str:
    """Return how training on at home went; "" where there was none.

    >>> scores = {"retriever": {"before": 0.41, "after": 0.452, "count": 12, "kept": True}}
    >>> home_line(Delivery("tiny-1", "", {}, home={"passes": 1, "scores": scores, "why": ""}))
    'tiny-1: trained on at home for 1 pass: retriever 0.410 to 0.452, kept'
    """
    if not delivery.home:
        return ""
    scores = {component: HomeScore(**told) for component, told in delivery.home["scores"].items()}
    parts = [
        f"{component} {score.before:.3f} to {score.after:.3f}, {'kept' if score.kept else 'not kept'}"
        for component, score in scores.items()
    ]
    passes = plural(delivery.home["passes"], "pass", "passes")
    return f"{delivery.run}: trained on at home for {passes}: {'; '.join(parts) or delivery.home['why'] + ', not kept'}"
