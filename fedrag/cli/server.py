"""`fedrag server`: run a coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.serve import say
from fedrag.cli.server_audit import audit
from fedrag.cli.server_check import check
from fedrag.cli.server_diagnose import diagnose
from fedrag.cli.server_dry_run import show_dry_run
from fedrag.cli.server_keys import accept_key, rotate
from fedrag.security.permissions import private_files
from fedrag.service.environment import require_linux, this_machine_spared
from fedrag.text import plural

app = typer.Typer(help="Coordinate a federation of sites.", no_args_is_help=True)
app.command()(audit)
app.command()(diagnose)
app.command()(check)
app.command()(rotate)
app.command("accept-key")(accept_key)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def _begin(context: typer.Context) -> None:
    require_linux("server")
    context.with_resource(private_files())
    context.with_resource(this_machine_spared())


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Host name or address under which the sites reach this machine.")],
    port: Annotated[int, typer.Option(help="Port that the sites connect to.")] = 8443,
    superlink_port: Annotated[int, typer.Option(help="Port of Flower's SuperLink, on loopback only.")] = 8444,
    listen: Annotated[str, typer.Option(help="Address of this machine to listen on.")] = "0.0.0.0",
    readers: Annotated[
        str, typer.Option(metavar="GROUP", help="Group of this machine that may read all but keys and database.")
    ] = "",
) -> None:
    """Create a coordinator: its keys, certificates and register of sites.

    Example: fedrag server init coordinator --name rag.example.org
    """
    from fedrag.coordinator.server_folder import ServerConfig, ServerFolder

    config = ServerConfig(name=name, listen=listen, port=port, superlink_port=superlink_port, readers=readers)
    made = ServerFolder.create(folder, config)
    typer.echo(f"made {folder}")
    typer.echo(f"give every site the files in {made.for_sites}: they are not secret, but must arrive unchanged")
    typer.echo(f"fingerprint of the signing key, to read out on the telephone: {made.signing_fingerprint}")
    typer.echo(f"register each site's public key with: fedrag server add-site {folder} SITE.pub --name SITE")
    typer.echo(f"then: fedrag server start {folder}")


@app.command()
def start(folder: Folder) -> None:
    """Run the coordinator in the foreground until Ctrl-C or SIGTERM.

    Example: fedrag server start coordinator
    """
    from fedrag.coordinator.server_folder import ServerFolder
    from fedrag.coordinator.service import serve

    serve(ServerFolder.open(folder), say)


@app.command("add-site")
def add_site(
    folder: Folder,
    key: Annotated[Path, typer.Argument(metavar="SITE.pub", help="The site's public key.")],
    name: Annotated[str, typer.Option(help="The site's name, as in its site.toml.")],
    questions: Annotated[
        int, typer.Option(min=0, metavar="N", help="It counts for at most N training questions; 0: for what it claims.")
    ] = 0,
) -> None:
    """Register a site by its public key, or change how many questions one that is registered counts for.

    Example: fedrag server add-site coordinator north.pub --name north --questions 1200
    """
    from fedrag.coordinator.enrolment import enrol_site
    from fedrag.coordinator.server_folder import ServerFolder
    from fedrag.security.keys import fingerprint

    site = enrol_site(ServerFolder.open(folder), name, key, questions)
    counts = f"; it counts for at most {plural(site.questions, 'training question')}" if site.questions else ""
    typer.echo(f"{name} is registered with the key {fingerprint(site.public_key)}{counts}")


@app.command("remove-site")
def remove_site(folder: Folder, name: Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]) -> None:
    """Remove a site at once; its key can never be registered again.

    Example: fedrag server remove-site coordinator north
    """
    from fedrag.coordinator.enrolment import remove_site as remove_by_name
    from fedrag.coordinator.server_folder import ServerFolder

    remove_by_name(ServerFolder.open(folder), name)
    typer.echo(f"{name} is removed; its key can never be registered again")


@app.command("let-in")
def let_in(folder: Folder, name: Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]) -> None:
    """Let a site in again that was set aside for its bad replies; it takes part from the next run on.

    Example: fedrag server let-in coordinator north
    """
    from fedrag.coordinator import enrolment
    from fedrag.coordinator.server_folder import ServerFolder

    enrolment.let_in(ServerFolder.open(folder), name)
    typer.echo(f"{name} is let in again, and takes part from the next run on")


@app.command()
def sites(folder: Folder, as_json: AsJson = False) -> None:
    """Show the registered sites, and which of them are online.

    Example: fedrag server sites coordinator
    """
    from fedrag.cli.tables import print_rows
    from fedrag.coordinator.overview import site_rows
    from fedrag.coordinator.server_folder import ServerFolder

    rows = site_rows(ServerFolder.open(folder))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:  # a policy is too long for a table; the console shows it
        short = [{name: told for name, told in row.items() if name not in ("policy", "since")} for row in rows]
        print_rows(short, empty="no site is registered")


@app.command()
def run(
    folder: Folder,
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (TOML).")],
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would run; start and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run; the coordinator works on it in the background.

    Example: fedrag server run coordinator scenario.toml
    """
    from fedrag.config.scenario import Config, read_scenario
    from fedrag.coordinator.jobs import begin_run
    from fedrag.coordinator.server_folder import ServerFolder

    config = Config.from_toml(read_scenario(scenario), str(scenario), change or ())
    opened = ServerFolder.open(folder)
    if dry:
        show_dry_run(opened, config, as_json)
        return
    name = begin_run(opened, config)
    _tell(name, f"starts; to see its progress: fedrag server status {folder}", as_json)


@app.command()
def resume(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")],
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds in all, of a finished run too.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Resume a run after its last checkpoint; with --rounds it goes on for longer than it was to.

    Example: fedrag server resume coordinator tiny-1
    """
    from fedrag.coordinator.jobs import resume_run
    from fedrag.coordinator.server_folder import ServerFolder

    for line in resume_run(ServerFolder.open(folder), name, rounds):
        typer.echo(line, err=as_json)
    _tell(name, "resumes", as_json)


@app.command()
def stop(folder: Folder, as_json: AsJson = False) -> None:
    """Stop the current run; it can be resumed.

    Example: fedrag server stop coordinator
    """
    from fedrag.coordinator.jobs import stop_run
    from fedrag.coordinator.server_folder import ServerFolder

    name = stop_run(ServerFolder.open(folder))
    _tell(name, f"stops; to resume it: fedrag server resume {folder} {name}", as_json)


def _tell(run: str, what: str, as_json: bool) -> None:
    typer.echo(json.dumps({"run": run}) if as_json else f"{run} {what}")


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show the coordinator, its runs and their progress.

    Example: fedrag server status coordinator
    """
    from fedrag.cli.tables import print_rows
    from fedrag.coordinator.overview import overview
    from fedrag.coordinator.server_folder import ServerFolder

    found = overview(ServerFolder.open(folder))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    running = "running" if found["running"] else "not running"
    days, disk = found["certificate_days"], found["disk"]
    typer.echo(f"coordinator {found['name']}: {running}; certificate expires in {days} days; {disk} on disk")
    for notice in found["notices"]:
        typer.echo(f"attention: {notice['text']}")
    for site in found["sites"]:
        if site["state"] == "set aside":
            name = site["name"]
            typer.echo(
                f"{name} is set aside for its bad replies; to let it in again: fedrag server let-in {folder} {name}"
            )
    print_rows(found["runs"], empty="no run yet")


@app.command()
def backup(
    folder: Folder, file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; it will hold private keys.")]
) -> None:
    """Write keys, register, state and runs to one file, even while the coordinator runs.

    Example: fedrag server backup coordinator coordinator.tar.gz
    """
    from fedrag.coordinator.backup import back_up
    from fedrag.coordinator.server_folder import ServerFolder

    back_up(ServerFolder.open(folder), file)
    typer.echo(f"{file} holds private keys: protect it as you protect them")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    folder: Folder,
) -> None:
    """Restore a coordinator's folder from a backup.

    Example: fedrag server restore coordinator.tar.gz coordinator-again
    """
    from fedrag.coordinator.backup import restore as restore_backup

    restore_backup(file, folder)
    typer.echo(f"made {folder}; start it with: fedrag server start {folder}")


@app.command()
def console(
    folder: Folder,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Port of 127.0.0.1.")] = 8090,
) -> None:
    """Show sites, runs and curves in a browser on this machine until Ctrl-C; with the token, change them there.

    Example: fedrag server console coordinator --port 8090
    """
    from fedrag.coordinator.console import serve_console
    from fedrag.coordinator.server_folder import ServerFolder

    serve_console(ServerFolder.open(folder), port, say)


@app.command()
def token(folder: Folder) -> None:
    """Show the token with which the console lets a person change things; each start of the coordinator makes a new one.

    Example: fedrag server token coordinator
    """
    from fedrag.coordinator.console_token import read_token
    from fedrag.coordinator.server_folder import ServerFolder

    typer.echo(read_token(ServerFolder.open(folder)))
