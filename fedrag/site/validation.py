"""A site's measure of the global state on its own validation questions: sums and counts leave, nothing else."""

from __future__ import annotations

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.work import Workbench
from fedrag.diagnosis.diagnose_site import diagnose_site
from fedrag.diagnosis.tally import tally_of
from fedrag.federation.messages import Reply, Request, diagnosis_metrics
from fedrag.models.resident import RoundModels
from fedrag.site.site_paths import DIAGNOSIS_ANSWERS
from fedrag.site.steps import begin_work


def validate_site(
    bench: Workbench, request: Request, components: Components = SHIPPED, *, tells_diagnosis: bool = True
) -> Reply:
    """Return of each component a sum over the site's validation questions, and what to divide it by.

    Args:
        bench: What the site works with.
        request: What is asked; without a component, why answers are wrong.
        components: What can be trained, by name.
        tells_diagnosis: Whether the site says that.
    """
    if not bench.site.validation:
        return Reply(refusal="no-examples")
    if not request.components:
        return Reply(metrics=_diagnosis(bench, request) if tells_diagnosis else {})
    work = begin_work(bench, request)
    metrics: dict[str, float] = {}
    for name in reversed(request.components):
        total, count = find_component(components, name).steps().validate(work)
        metrics |= {f"{name}.sum": total, f"{name}.count": count}
    return Reply(metrics=metrics)


def _diagnosis(bench: Workbench, request: Request) -> dict[str, float]:
    """Count the causes of wrong answers; a question without a right answer has none."""
    models = RoundModels(bench.config, request.state)
    answers = bench.cache / DIAGNOSIS_ANSWERS
    found = diagnose_site(bench.site, "validation", bench.config, models, answers, bench.on_progress, bench.indexes)
    return diagnosis_metrics(tally_of(found).to_json()) if found else {}
