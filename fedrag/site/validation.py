"""A site's measure of the global state on its own validation questions: sums and counts leave, nothing else."""

from __future__ import annotations

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.work import Workbench
from fedrag.federation.messages import Reply, Request
from fedrag.site.steps import begin_work


def validate_site(bench: Workbench, request: Request, components: Components = SHIPPED) -> Reply:
    """Return of each component a sum over the site's validation questions, and what to divide it by."""
    if not bench.site.validation:
        return Reply(refusal="no-examples")
    work = begin_work(bench, request)
    metrics: dict[str, float] = {}
    for name in reversed(request.components):
        total, count = find_component(components, name).steps().validate(work)
        metrics |= {f"{name}.sum": total, f"{name}.count": count}
    return Reply(metrics=metrics)
