"""`fedrag client`: run a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.audit import audit_model
from fedrag.cli.client_adopt import adopt
from fedrag.cli.client_audit import audit
from fedrag.cli.client_check import check
from fedrag.cli.client_diagnose import diagnose
from fedrag.cli.client_keys import accept_key, rotate
from fedrag.cli.client_models import ask, evaluate, export, models, purge, rollback
from fedrag.cli.client_peers import peers
from fedrag.cli.client_personalise import personalise
from fedrag.cli.serve import client_serve, say
from fedrag.security.permissions import private_files
from fedrag.service.environment import require_linux

app = typer.Typer(help="Take part in a federation as a site.", no_args_is_help=True)
app.command("audit")(audit)
app.command("accept-key")(accept_key)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]


@app.callback()
def _begin(context: typer.Context) -> None:
    require_linux("client")
    if context.invoked_subcommand != "export":  # what it writes is for other programs to read
        context.with_resource(private_files())


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="The site's name: small letters, digits and hyphens.")],
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of the coordinator.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the questions and passages; without it, data in the site's."),
    ] = None,
) -> None:
    """Create a site: its key pair and its site.toml.

    Example: fedrag client init clinic --name clinic --server rag.example.org:8443
    """
    from fedrag.security.keys import fingerprint, load_public_key
    from fedrag.site.client_folder import create_site, data_folder

    create_site(folder, name, server, "data" if data is None else data_folder(data))
    typer.echo(f"made {folder}; read {folder / 'site.toml'} and set what the site allows")
    typer.echo(f"send to the coordinator: {folder / 'site.pub'}")
    typer.echo(f"its fingerprint, to read out on the telephone: {fingerprint(load_public_key(folder / 'site.pub'))}")
    typer.echo(f"get from the coordinator: ca.crt and coordinator.pub, into {folder}")
    typer.echo(f"then: fedrag client check {folder}")
    typer.echo(f"and: fedrag client start {folder}")


@app.command()
def start(folder: Folder) -> None:
    """Run the site in the foreground until Ctrl-C or SIGTERM.

    Example: fedrag client start clinic
    """
    from fedrag.site.client_folder import open_site
    from fedrag.site.service.serve import serve
    from fedrag.site.source_passages import sync_passages

    config = open_site(folder)
    if synced := sync_passages(config):
        say(synced.text)
    serve(folder.absolute(), config, say)


@app.command()
def sync(folder: Folder) -> None:
    """Take the passages of the store that site.toml names under [source]; at its start a site does so by itself.

    Example: fedrag client sync clinic
    """
    from fedrag.cli.tables import print_lines
    from fedrag.site.site_config import SITE_FILE, SiteConfig
    from fedrag.site.source_passages import sync_passages

    synced = sync_passages(SiteConfig.from_file(folder / SITE_FILE))
    if synced is None:
        print_lines([f"{folder / SITE_FILE} names no store under [source]: passages.jsonl is this site's own"])
        return
    places = [(one, ", ".join(one.labels) or "no passage") for one in synced.relabelled]
    lost = [f"{one.id}: {'is dropped' if one.is_dropped else f'its answer stands in {place}'}" for one, place in places]
    print_lines([synced.text, *lost])


app.command("serve")(client_serve)
for verb in (
    check,
    ask,
    models,
    adopt,
    personalise,
    export,
    rollback,
    evaluate,
    diagnose,
    audit_model,
    purge,
    rotate,
    peers,
):
    app.command()(verb)
