"""`fedrag audit` and `fedrag client audit-model`: what models remember of the data that they were trained on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="File for all figures.")]


def audit(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="SITES", help="Folder of the sites that took part, if it is another now."),
    ] = None,
    attack: Annotated[
        bool, typer.Option("--attack", help="Look for words of questions in an update, too, which takes minutes.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Measure what a run's models remember of their training data.

    Example: fedrag audit runs/tiny-1
    """
    from fedrag.languages.reader import page_languages

    page_languages()  # told now, not when the page is written
    from fedrag.privacy.audit import FOLDER, audit_run

    with open_display() as display:
        result = audit_run(run, data, attack=attack, display=display)
    _show(run.resolve().name, run / FOLDER, result, json_file)


def audit_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    json_file: JsonFile = None,
) -> None:
    """Measure what the site's current models remember of its own questions and passages; nothing leaves the site.

    Example: fedrag client audit-model clinic
    """
    from fedrag.data.planted_canaries import read_canaries
    from fedrag.languages.reader import page_languages
    from fedrag.site.delivery import current_delivery, deliveries, open_current
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    page_languages()
    config = SiteConfig.from_file(folder / SITE_FILE)
    delivered = open_current(folder)
    choose_device(config)
    from fedrag.dp.ledger import LEDGER_FILE
    from fedrag.privacy.audit import FOLDER, KEPT, add_allowed, audit_of
    from fedrag.site.admin.evaluate_delivered import load_own_site

    with open_display() as display:
        site, came = load_own_site(config), current_delivery(deliveries(folder))
        canaries = {site.name: read_canaries(Path(config.data), until=came.time if came else "")}
        result = audit_of(
            [site],
            delivered.config,
            delivered.state,
            canaries,
            display=display,
            indexes=delivered.indexes,
            kept=delivered.folder / FOLDER / KEPT,
        )
    add_allowed(result, [folder / LEDGER_FILE])
    _show(f"{delivered.run} at {site.name}", delivered.folder / FOLDER, {"run": delivered.run, **result}, json_file)
    shutil.rmtree(delivered.folder / FOLDER / KEPT, ignore_errors=True)


def _show(name: str, folder: Path, result: Mapping[str, Any], json_file: Path | None) -> None:
    from fedrag.files import write_json
    from fedrag.privacy.findings import headline, sentences
    from fedrag.reporting.audit_page import write_audit_page

    folder.mkdir(exist_ok=True)
    page = write_audit_page(folder, name, result)
    if json_file is not None:
        write_json(json_file, result)
    print_lines(["", headline(result), "", *sentences(result), "", f"page: {page}"])
