"""`fedrag client check`: check whether a site is ready to take part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.findings import AsJson, tell_findings


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check what a site needs before it takes part, and say what to do.

    Example: fedrag client check clinic
    """
    from fedrag.site.admin.client_check import check_site

    tell_findings(check_site(folder), as_json)
