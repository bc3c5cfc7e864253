"""The result of a run, kept at the site: the sites are the ones who use it."""

from __future__ import annotations

import os

from safetensors.numpy import save_file

from fedrag.federation.messages import Reply, Request
from fedrag.site.steps import Workbench


def keep_delivered(bench: Workbench, request: Request) -> Reply:
    """Write the delivered tensors and the scenario to `<cache>/models/<run, or scenario>/`."""
    folder = bench.cache / "models" / (bench.run or bench.config.name)
    folder.mkdir(parents=True, exist_ok=True)
    for component, tensors in request.state.items():
        path = folder / f"{component}.safetensors"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(tensors, partial)
        partial.replace(path)
    (folder / "scenario.toml").write_text(request.scenario, encoding="utf-8")
    return Reply(metrics={"delivered": len(request.state)})
