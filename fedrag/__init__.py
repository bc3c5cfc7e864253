"""fedrag: organisations that may not pool their data fine-tune a RAG system together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from fedrag.api.rag_system import RagSystem
    from fedrag.api.run import Run
    from fedrag.api.simulations import compare, evaluate, resume, simulate
    from fedrag.api.sites import Site
    from fedrag.api.train import Trained, train
    from fedrag.config.scenario import Config
    from fedrag.diagnosis.diagnose import diagnose_run
    from fedrag.errors import FedragError
    from fedrag.evaluation.ask import ask
    from fedrag.exporting.write_export import export_run
    from fedrag.reporting.page import write_report
    from fedrag.training.losses import Losses
    from fedrag.types import Passage, Question

__all__ = [
    "Config",
    "FedragError",
    "Losses",
    "Passage",
    "Question",
    "RagSystem",
    "Run",
    "Site",
    "Trained",
    "__version__",
    "ask",
    "compare",
    "diagnose_run",
    "evaluate",
    "export_run",
    "resume",
    "simulate",
    "train",
    "write_report",
]

# Looked up on first use: `import fedrag` alone loads neither torch nor Flower.
_MODULES = {
    "Config": "fedrag.config.scenario",
    "FedragError": "fedrag.errors",
    "Losses": "fedrag.training.losses",
    "Passage": "fedrag.types",
    "Question": "fedrag.types",
    "RagSystem": "fedrag.api.rag_system",
    "Run": "fedrag.api.run",
    "Site": "fedrag.api.sites",
    "Trained": "fedrag.api.train",
    "ask": "fedrag.evaluation.ask",
    "compare": "fedrag.api.simulations",
    "diagnose_run": "fedrag.diagnosis.diagnose",
    "evaluate": "fedrag.api.simulations",
    "export_run": "fedrag.exporting.write_export",
    "resume": "fedrag.api.simulations",
    "simulate": "fedrag.api.simulations",
    "train": "fedrag.api.train",
    "write_report": "fedrag.reporting.page",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fedrag' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
