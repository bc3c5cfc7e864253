"""The result of a run, kept at the site: the sites are the ones who use it."""

from __future__ import annotations

from fedrag.federation.messages import Reply, Request
from fedrag.site.delivered import keep
from fedrag.site.steps import Workbench


def keep_delivered(bench: Workbench, request: Request) -> Reply:
    """Keep the delivered tensors and the scenario in `<cache>/models/<run, or scenario>/`; they are current then."""
    keep(bench.cache, bench.run or bench.config.name, request.state, request.scenario)
    return Reply(metrics={"delivered": len(request.state)})
