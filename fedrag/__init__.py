"""fedrag: organisations that may not pool their data fine-tune a RAG system together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from fedrag.components.export import export_run
    from fedrag.config.scenario import Config
    from fedrag.errors import FedragError
    from fedrag.evaluation.ask import ask
    from fedrag.evaluation.evaluate import evaluate_run
    from fedrag.reporting.page import write_report
    from fedrag.simulation.simulate import resume, simulate
    from fedrag.training.losses import Losses

__all__ = [
    "Config",
    "FedragError",
    "Losses",
    "__version__",
    "ask",
    "evaluate_run",
    "export_run",
    "resume",
    "simulate",
    "write_report",
]

# Looked up on first use: `import fedrag` alone loads neither torch nor Flower.
_MODULES = {
    "Config": "fedrag.config.scenario",
    "FedragError": "fedrag.errors",
    "Losses": "fedrag.training.losses",
    "ask": "fedrag.evaluation.ask",
    "evaluate_run": "fedrag.evaluation.evaluate",
    "export_run": "fedrag.components.export",
    "resume": "fedrag.simulation.simulate",
    "simulate": "fedrag.simulation.simulate",
    "write_report": "fedrag.reporting.page",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fedrag' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
