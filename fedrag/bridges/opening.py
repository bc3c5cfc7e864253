"""Opens what the bridges put before other libraries: a run's models, or those that a site received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedrag.data.site_folder import load_site
from fedrag.evaluation.answerer import Answerer, Found
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.site.admin.evaluate_delivered import load_own_site
from fedrag.site.delivery import open_current
from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device


def open_run(run: Path | str, data: Path | str) -> Answerer:
    """Load a finished run's trained models, with the passages of a site's folder.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        DataError: The site is malformed.
        ModelError: A model is not fetched.
    """
    opened = RunFolder.open(Path(run))
    state = opened.load_result()
    require_same_models(opened)
    return Answerer(opened.config, state, load_site(Path(data)), indexes=shared_indexes())


def open_site(folder: Path | str) -> Answerer:
    """Load the models that are current at a site, with its own passages.

    Raises:
        ConfigError: Its site.toml is not valid.
        DataError: Its data is malformed.
        ModelError: No models were delivered, or one is not fetched.
    """
    config = SiteConfig.from_file(Path(folder) / SITE_FILE)
    delivered = open_current(Path(folder))
    choose_device(config)
    return Answerer(delivered.config, delivered.state, load_own_site(config), indexes=delivered.indexes)


def found_passages(answerer: Answerer, question: str, passages: int | None) -> tuple[Found, ...]:
    """Return the best passages; None: as many as the generator is given."""
    return answerer.search(question, passages or answerer.config.rag.passages)


def facts_of(found: Found) -> dict[str, Any]:
    """Return what a library keeps beside a passage's text."""
    return {"title": found.passage.title or "", "source": found.passage.source, "score": found.score}
