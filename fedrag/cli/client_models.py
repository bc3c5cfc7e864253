"""`fedrag client ask, export, models, rollback, evaluate, purge`: use the models that a site received."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.console import Console

from fedrag.cli.ask import JsonLines, Passages, Question, ask_all
from fedrag.cli.evaluate import SplitName
from fedrag.cli.export import Gguf, Merged, OpenaiJsonl, Out, Push, SiteNames
from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines, print_rows, print_table
from fedrag.errors import ConfigError

if TYPE_CHECKING:
    from fedrag.site.delivery import Delivery

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def ask(
    folder: Folder,
    question: Question = None,
    passages: Passages = None,
    as_json: JsonLines = False,
) -> None:
    """Answer a question with the untouched models and with the site's current ones.

    Example: fedrag client ask clinic "What does a late book cost?"
    """
    from fedrag.site.delivery import open_current
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    delivered = open_current(folder)
    choose_device(config)
    with Console(stderr=True).status("Loading the models and indexing the passages ..."):
        from fedrag.evaluation.ask import BeforeAndAfter
        from fedrag.site.admin.evaluate_delivered import load_own_site

        site = load_own_site(config)
        both = BeforeAndAfter(delivered.run, delivered.config, delivered.state, site, passages, delivered.indexes)
    ask_all(both, question, as_json)


def export(
    folder: Folder,
    out: Out,
    merged: Merged = False,
    gguf: Gguf = None,
    openai_jsonl: OpenaiJsonl = False,
    push: Push = None,
    site_names: SiteNames = False,
) -> None:
    """Write the site's current models for PEFT and sentence-transformers, with a model card and how to prompt them.

    Example: fedrag client export clinic --out exported
    """
    from fedrag.site.delivery import open_current
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    delivered = open_current(folder)
    choose_device(config)
    from fedrag.exporting.trained_system import TrainedSystem
    from fedrag.exporting.write_export import ExportOptions, export_system
    from fedrag.site.admin.evaluate_delivered import load_own_site

    options = ExportOptions(merged, gguf, openai_jsonl, push, site_names)
    print_lines(
        export_system(TrainedSystem.of_delivery(delivered), out, options, sites=lambda: [load_own_site(config)])
    )


def models(folder: Folder, as_json: AsJson = False) -> None:
    """List the models that the site received, and which of them are current.

    Example: fedrag client models clinic
    """
    from fedrag.site.adoption import state_of, verdict_line
    from fedrag.site.delivery import REPORT_FILE, current_delivery, deliveries, models_folder
    from fedrag.site.home_delivery import home_line
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    SiteConfig.from_file(folder / SITE_FILE)
    found = deliveries(folder)
    current = current_delivery(found)
    rows = [
        {
            "run": delivery.run,
            "delivered": delivery.time,
            "components": list(delivery.components),
            "state": state_of(delivery, current),
            "report": str(report) if (report := models_folder(folder, delivery.run) / REPORT_FILE).is_file() else None,
        }
        for delivery in found
    ]
    if as_json:
        told = [row | {"verdict": delivery.verdict or None} for row, delivery in zip(rows, found, strict=True)]
        typer.echo(json.dumps({"current": current.run if current else None, "models": told}, indent=2))
        return
    shown = [
        row
        | {
            "delivered": f"{datetime.fromisoformat(delivery.time):%Y-%m-%d %H:%M}",
            "components": ", ".join(delivery.components),
            "report": row["report"] or "none yet",
        }
        for row, delivery in zip(rows, found, strict=True)
    ]
    print_rows(shown, empty="no models were delivered yet")
    if found and all(delivery.taken_back for delivery in found):
        print_lines(["the untouched models are current: all that were delivered are taken back"])
    print_lines([line for one in found for line in (verdict_line(folder, one), home_line(one)) if line])


def rollback(folder: Folder) -> None:
    """Go back to the models that were delivered before, or to the untouched ones.

    Example: fedrag client rollback clinic
    """
    from fedrag.site.delivery import roll_back
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    SiteConfig.from_file(folder / SITE_FILE)
    taken_back, current = roll_back(folder)
    print_lines([f"{taken_back.run} is taken back; {_in_use(current)} now"])


def _in_use(current: Delivery | None) -> str:
    return f"{current.run} is current" if current else "the untouched models are current"


def evaluate(
    folder: Folder,
    split: Annotated[SplitName, typer.Option("--split", help="Questions to measure.")] = SplitName.TEST,
    background: Annotated[bool, typer.Option("--background", help="Run at the lowest priority.")] = False,
) -> None:
    """Measure the untouched models and the site's current ones on its own questions.

    Example: fedrag client evaluate clinic
    """
    if background:
        lower_priority()
    from fedrag.languages.reader import page_languages
    from fedrag.site.delivery import RESULTS_FILE, open_current
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    page_languages()  # told now, not when the report is written
    config = SiteConfig.from_file(folder / SITE_FILE)
    delivered = open_current(folder)
    choose_device(config)
    from fedrag.evaluation.records import cut_lines, summarise
    from fedrag.files import write_json
    from fedrag.reporting.site_page import write_site_report
    from fedrag.site.admin.evaluate_delivered import load_own_site, measure_delivered
    from fedrag.site.home_delivery import open_base

    site = load_own_site(config)
    with open_display() as display:
        measured = measure_delivered(site, config.policy, delivered, split.value, display, open_base(folder, delivered))
    means = {arm: summarise(found) for arm, found in measured.items()}
    report = write_site_report(folder, site, delivered, split.value, measured)
    write_json(
        delivered.folder / RESULTS_FILE, {"run": delivered.run, "site": site.name, "split": split.value, **means}
    )
    titles = {"untouched": "untouched", "federated": "delivered", "personalised": "trained on at home"}
    rows = {titles[arm]: means[arm] for arm in measured}
    print_table(f"{delivered.run} at {site.name}: {split.value} questions, in per cent", rows)
    print_lines(cut_lines(rows, delivered.config.rag))
    print_lines([f"report: {report} (it quotes this site's data and stays here)"])


def lower_priority() -> None:
    """Take the lowest priority, and be the first process to be killed if memory runs out."""
    os.nice(19)
    with suppress(OSError):  # only Linux has this file
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def purge(
    folder: Folder,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Remove the models of this run only, and caches and logs."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove what runs left at a site: the models it received, caches and logs.

    Example: fedrag client purge clinic
    """
    from fedrag.site.admin.purge import KEPT, find_leftovers, remove
    from fedrag.site.delivery import current_delivery, deliveries
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    SiteConfig.from_file(folder / SITE_FILE)
    leftovers = find_leftovers(folder, run)
    if not leftovers.lines:
        print_lines(["there is nothing to remove", *KEPT])
        return
    print_lines(["This removes for good:", *(f"  {line}" for line in leftovers.lines), *KEPT])
    if not yes:
        try:
            sure = typer.confirm("Remove it?")
        except click.Abort:
            typer.echo(err=True)
            raise ConfigError("nothing was removed: nobody answered; --yes skips the question") from None
        if not sure:
            print_lines(["nothing was removed"])
            return
    remove(folder, leftovers)
    print_lines([f"removed; {_in_use(current_delivery(deliveries(folder)))}"])
