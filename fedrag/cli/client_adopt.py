"""`fedrag client adopt`: take delivered models into use."""

from __future__ import annotations

from typing import Annotated

import typer

from fedrag.cli.client_models import Folder, lower_priority
from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines


def adopt(
    folder: Folder,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Run whose models to adopt; by default, the latest that wait, or with --by-policy all."
        ),
    ] = None,
    by_policy: Annotated[
        bool,
        typer.Option(
            "--by-policy",
            help="Measure what waits on this site's validation questions, and do what policy.adopt says; a running "
            "site does so by itself.",
        ),
    ] = False,
    background: Annotated[bool, typer.Option("--background", help="Run at the lowest priority.")] = False,
) -> None:
    """Take delivered models into use that wait, or go back to ones that were taken back.

    Example: fedrag client adopt clinic
    """
    if background:
        lower_priority()
    from fedrag.site.adoption import adopt as take_into_use
    from fedrag.site.adoption import verdict_line
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    if not by_policy:
        print_lines([f"{take_into_use(folder, run).run} is current now"])
        return
    choose_device(config)
    from fedrag.site.admin.delivery_trial import try_waiting

    with open_display() as display:
        judged = try_waiting(folder, config, display, run)
    print_lines([verdict_line(folder, delivery) for delivery in judged] or ["nothing waits to be measured"])
