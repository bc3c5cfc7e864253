"""`fedrag client personalise`: train the models in use on, at home."""

from __future__ import annotations

from typing import Annotated

import typer

from fedrag.cli.client_models import Folder, lower_priority
from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines


def personalise(
    folder: Folder,
    background: Annotated[bool, typer.Option("--background", help="Run at the lowest priority.")] = False,
) -> None:
    """Train the models in use on, on this site's own questions, and use what gains on its validation questions.

    Example: fedrag client personalise clinic
    """
    if background:
        lower_priority()
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    choose_device(config)
    from fedrag.site.admin.home_trial import personalise as train_on
    from fedrag.site.delivery import current_delivery, deliveries
    from fedrag.site.home_delivery import home_line

    with open_display() as display:
        base = train_on(folder, config, display)
    current = current_delivery(deliveries(folder))
    print_lines([home_line(base), *([f"{current.run} is current now"] if current else [])])
