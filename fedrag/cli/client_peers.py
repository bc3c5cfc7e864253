"""`fedrag client peers`: the other sites, and which of them were confirmed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines, print_rows


def peers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    confirm: Annotated[
        list[str] | None,
        typer.Option(
            "--confirm",
            metavar="NAME=FINGERPRINT",
            help="A site, and the fingerprint that its administrator read out: taken if the key has it; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the other sites and the fingerprints of their keys; this site hides its updates among confirmed ones alone.

    Example: fedrag client peers clinic --confirm harbour=SHA256:uCB0r0BEUM1LNZPwQ5SUkpNfOqKK0iOLROdp2Vv6yRM
    """
    from fedrag.site.peers import confirm_peers, read_peers, told_fingerprints
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    SiteConfig.from_file(folder / SITE_FILE)  # says what is no site's folder
    done = confirm_peers(folder, told_fingerprints(confirm)) if confirm else []
    found = read_peers(folder)
    if as_json:
        told = [asdict(peer) | {"fingerprint": peer.fingerprint, "state": peer.state} for peer in found]
        typer.echo(json.dumps(told, indent=2))
        return
    print_lines([f"{peer.name} is confirmed with the key {peer.fingerprint}" for peer in done])
    rows = [{"site": peer.name, "fingerprint": peer.fingerprint, "state": peer.state} for peer in found]
    print_rows(rows, empty="no other site is known yet; a run with federation.secure = true tells them")
    if waiting := [peer.name for peer in found if peer.state != "confirmed"]:
        options = " ".join(f"--confirm {name}=FINGERPRINT" for name in waiting)
        print_lines(
            [
                "let the administrator of each site read out its fingerprint on the telephone, and type what you hear: "
                f"fedrag client peers {folder} {options}"
            ]
        )
