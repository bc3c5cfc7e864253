"""`fedrag simulate`: run a federation on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines, print_table
from fedrag.errors import ConfigError

if TYPE_CHECKING:
    from fedrag.config.scenario import Config
    from fedrag.grids.ray_pool import RayPool
    from fedrag.runs.run_folder import RunFolder


def simulate_command(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario file (TOML).", show_default=False)] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; repeat it for others."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder of the run; by default, runs/<scenario>-<n>.")
    ] = None,
    resume_run: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Resume an interrupted run.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="With --resume: rounds in all, of a finished run too."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, and show what would run.")] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="Use a running Ray cluster that this machine belongs to, such as 10.0.0.5:6379. With --set "
            "simulation.grid=ray; every node needs the sites' folders, the run folder, the models and the same fedrag.",
        ),
    ] = None,
) -> None:
    """Run a federation on this machine and show its results.

    Example: fedrag simulate simulations/scenarios/tiny.toml --set federation.rounds=1
    """
    if (scenario is None) == (resume_run is None):
        raise ConfigError("expected a scenario file or --resume RUN, one of the two")
    if resume_run is not None and (overrides or out or dry_run):
        raise ConfigError("--resume takes its settings from the run folder; leave out --set, --out and --dry-run")
    if rounds is not None and resume_run is None:
        raise ConfigError("--rounds goes with --resume; a new run has --set federation.rounds=N")
    if dry_run and ray_address:
        raise ConfigError("--dry-run looks at this machine alone; leave out --ray-address")
    from fedrag.config.scenario import Config
    from fedrag.languages.reader import page_languages

    page_languages()  # told now, not when the report is written
    config = Config.from_file(scenario, overrides or ()) if scenario is not None else None
    if dry_run:
        assert config is not None
        from fedrag.simulation.plan import plan_lines

        print_lines(plan_lines(config))
        return
    with open_display() as display, _early_pool(config, ray_address) as pool:
        from fedrag.simulation.simulate import resume, simulate  # takes seconds, while the pool starts

        if config is not None:
            run = simulate(config, out=out, display=display, ray_address=ray_address, ray_pool=pool)
        else:
            assert resume_run is not None
            run = resume(resume_run, rounds=rounds, display=display, ray_address=ray_address)
    _print_results(run)


@contextmanager
def _early_pool(config: Config | None, ray_address: str | None) -> Iterator[RayPool | None]:
    """Start the Ray processes of a new run's clients, before the slow imports."""
    if config is None or config.simulation.grid != "ray":
        yield None
        return
    from fedrag.data.site_folder import chosen_folders
    from fedrag.grids.ray_pool import pool_for

    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    with pool_for(config.simulation, len(folders), ray_address) as pool:
        yield pool


def _print_results(run: RunFolder) -> None:
    """Print the table of a run, what must be known to read it, and where its report lies."""
    from fedrag.data.origins import origins_text
    from fedrag.data.questions import distinct_lines
    from fedrag.diagnosis.kept import forgetting_text
    from fedrag.evaluation.records import ARMS, cut_lines
    from fedrag.reporting.page import write_report
    from fedrag.runs.home_results import home_scores, kept_text

    results = run.results()
    arms: dict[str, Any] = {arm: results[arm]["overall"] for arm in ARMS if arm in results}
    if arms:
        print_table(_title(run.config), arms)
        print_lines(distinct_lines(arms["federated"]["n_questions"], results.get("question_lines", 0)))
        print_lines(cut_lines(arms, run.config.rag))
        if kept := kept_text(home_scores(run.path)):
            print_lines([f"personalised: {kept}"])
        if losses := results.get("forgetting"):
            print_lines([f"{forgetting_text(losses)}."])
        if origins := origins_text(run.facts.get("origins", {}), "training_questions"):
            print_lines([origins])
        if seen := results.get("seen_elsewhere"):
            _print_unseen(seen, arms["federated"]["n_questions"])
    else:
        print_lines([f"nothing was measured; to do so: fedrag evaluate {run.path} --data SITES"])
    print_lines([f"why answers are wrong: fedrag diagnose {run.path}"] if run.config.evaluation.generate else [])
    print_lines([f"report: {write_report(run)}", f"run folder: {run.path}"])


def _title(config: Config) -> str:
    split = config.evaluation.split
    sites = "held-out" if config.evaluation.sites == "held-out" else "all"
    return f"{config.name}: {'' if split == 'all' else split + ' '}questions of {sites} sites, in per cent"


def _print_unseen(seen: Mapping[str, Any], n_questions: int) -> None:
    """Print the figures without the questions that another site trains on."""
    if seen["n_questions"] == n_questions:
        print_lines([f"the text of each of the {n_questions:,} questions is trained on at another site: none is new"])
        return
    title = f"without the {seen['n_questions']:,} of {n_questions:,} questions whose text another site trains on"
    print_table(title, seen["without"])
