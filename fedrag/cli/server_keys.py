"""`fedrag server rotate` and `accept-key`: new certificates and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]


def rotate(
    folder: Folder,
    signing: Annotated[
        bool, typer.Option("--signing", help="Replace the signing key; every site must follow.")
    ] = False,
) -> None:
    """Renew the TLS certificate, which the sites do not notice, or with --signing replace the signing key.

    Example: fedrag server rotate coordinator
    """
    from fedrag.coordinator.key_rotation import ROTATED, rotate_signing_key
    from fedrag.coordinator.server_folder import ServerFolder

    opened = ServerFolder.open(folder)
    if not signing:
        opened.renew_certificate()
        typer.echo("the certificate is renewed; a running coordinator uses it at once")
        return
    handover = rotate_signing_key(opened)
    typer.echo(f"{handover}, which signs all requests from now on")
    typer.echo(f"give every site this line, which is not secret; it stands in {opened.for_sites / ROTATED} too:")
    typer.echo(handover.line)
    typer.echo("its administrator types: fedrag client accept-key DIR LINE")
    typer.echo("make a new backup: an earlier one holds the key of before")


def accept_key(
    folder: Folder,
    line: Annotated[str, typer.Argument(metavar="LINE", help="The line that fedrag client rotate printed.")],
) -> None:
    """Accept a site's new key, which its registered one has signed; the registered one is burnt.

    Example: fedrag server accept-key coordinator LINE
    """
    from fedrag.coordinator.key_rotation import accept_site_key
    from fedrag.coordinator.server_folder import ServerFolder

    handover = accept_site_key(ServerFolder.open(folder), line)
    typer.echo(f"{handover}; the key of before is never accepted again")
