"""`fedrag client rotate` and `accept-key`: a new key of the site, or of its coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]


def rotate(folder: Folder) -> None:
    """Make a new key for this site; it is used once the coordinator has accepted it.

    Example: fedrag client rotate clinic
    """
    from fedrag.security.succession import SITE, read_succession
    from fedrag.site.client_folder import open_site
    from fedrag.site.site_keys import rotate_site_key

    line = rotate_site_key(open_site(folder))
    said = read_succession(line, SITE)
    typer.echo(f"{said.old} hands over to {said.new}")
    typer.echo("send this line, which is not secret, to the coordinator:")
    typer.echo(line)
    typer.echo("its operator types: fedrag server accept-key DIR LINE")
    typer.echo("a running site then goes over to the new key by itself, and any other at its next start")


def accept_key(
    folder: Folder,
    line: Annotated[
        str, typer.Argument(metavar="LINE", help="The line that the coordinator gave, or a file with several.")
    ],
) -> None:
    """Trust the coordinator's new signing key, which the trusted one has signed; the one of before is burnt.

    Example: fedrag client accept-key clinic coordinator-keys.txt
    """
    from fedrag.errors import ConfigError
    from fedrag.files import read_text_file
    from fedrag.site.site_config import SITE_FILE, SiteConfig
    from fedrag.site.site_keys import accept_coordinator_key

    lines = line if line.startswith("fedrag-key.") else read_text_file(line, ConfigError)
    keys = accept_coordinator_key(SiteConfig.from_file(folder / SITE_FILE), lines)
    for old, new in zip(keys, keys[1:], strict=False):
        typer.echo(f"{old} hands over to {new}")
    now = "is trusted already" if len(keys) == 1 else "alone is trusted from now on, also by a site that runs"
    typer.echo(f"the coordinator's key {keys[-1]} {now}")
