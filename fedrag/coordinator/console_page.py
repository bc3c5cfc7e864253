"""The console's page as HTML, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.coordinator.console_state import page_state
from fedrag.coordinator.dry_run import DryRun, summary_lines
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.reporting.what_ran import duration
from fedrag.text import printable, size_text

SECTIONS = ("state", "sites", "run", "settings", "runs")


def render_page(folder: ServerFolder, run: str, scenarios: Sequence[str]) -> str:
    """Return the page as HTML.

    Args:
        folder: The coordinator's folder.
        run: Name of the run to show; "" for the newest.
        scenarios: The names of the scenarios of which one can be started.
    """
    return (
        _environment()
        .get_template("console.html.jinja")
        .render(
            name=folder.config.address,
            sections=render_sections(folder, run),
            folder=str(folder.path),
            scenarios=scenarios,
        )
    )


def render_sections(folder: ServerFolder, run: str) -> dict[str, str]:
    """Return each section of the page as HTML, by name. The first one names what cannot be read.

    Args:
        folder: The coordinator's folder.
        run: Name of the run to show; "" for the newest.
    """
    state = page_state(folder, run)
    return {name: _environment().get_template(f"{name}.html.jinja").render(state) for name in SECTIONS}


def render_dry_run(found: DryRun) -> str:
    """Return what a run would do as HTML."""
    return _environment().get_template("dry_run.html.jinja").render(found=found, lines=summary_lines(found))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedrag.coordinator"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # made safe once more, as HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size_text
    environment.filters["duration"] = duration
    environment.filters["time"] = lambda text: text[:19].replace("T", " ")
    return environment
