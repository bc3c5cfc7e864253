"""`fedrag simulate`: run a federation on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedrag.cli.display import open_display
from fedrag.cli.tables import print_lines, print_table
from fedrag.errors import ConfigError


def simulate_command(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario file (TOML).", show_default=False)] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Folder of the run.")] = None,
    resume_run: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
) -> None:
    """Run a federation on this machine and show what it did.

    Example: fedrag simulate simulations/scenarios/xquad.toml --set federation.rounds=2
    """
    if (scenario is None) == (resume_run is None):
        raise ConfigError("expected a scenario file or --resume RUN, one of the two")
    if resume_run is not None and (overrides or out or dry_run):
        raise ConfigError("--resume takes its settings from the run folder; leave out --set, --out and --dry-run")
    from fedrag.config import Config

    config = Config.from_file(scenario, overrides or ()) if scenario is not None else None
    if dry_run:
        assert config is not None
        from fedrag.plan import plan_lines

        print_lines(plan_lines(config))
        return
    from fedrag.runs import read_json
    from fedrag.simulation import resume, simulate

    with open_display() as display:
        if config is not None:
            run = simulate(config, out=out, display=display)
        else:
            assert resume_run is not None
            run = resume(resume_run, display=display)
    results = read_json(run.path / "results.json")
    arms: dict[str, Any] = {
        arm: results[arm]["overall"] for arm in ("untouched", "local", "federated", "pooled") if arm in results
    }
    if arms:
        print_table(f"{run.config.name}: {run.config.evaluation.split} questions of all sites, in per cent", arms)
    print_lines([f"run folder: {run.path}"])
