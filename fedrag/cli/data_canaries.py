"""`fedrag data canaries`: plant made-up questions at a site before a run, and take them out after it."""

from __future__ import annotations

from typing import Annotated

import typer

from fedrag.cli.data_augment import SiteArgument
from fedrag.cli.tables import print_lines
from fedrag.errors import ConfigError
from fedrag.text import plural


def canaries(
    folder: SiteArgument,
    number: Annotated[
        int | None, typer.Option("--number", min=2, help="How many; a fair coin plants about half of them.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of texts and coins; by default drawn anew.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the site's canaries out again.")] = False,
) -> None:
    """Plant made-up questions among a site's training questions, to see later whether models remember them.

    Example: fedrag data canaries data/hospital --number 250
    """
    if (number is None) != remove or (remove and seed is not None):
        raise ConfigError("expected --number N, the canaries to make, or --remove alone")
    import secrets

    from fedrag.data.planted_canaries import CANARIES_FILE, plant_canaries, remove_canaries
    from fedrag.data.writing import alone_at_site
    from fedrag.privacy.membership import FEWEST_OTHERS

    with alone_at_site(folder):
        if number is None:
            print_lines([f"{folder}: {plural(remove_canaries(folder), 'planted question')} taken out"])
            return
        made = plant_canaries(folder, number, secrets.randbelow(2**31) if seed is None else seed)
    print_lines(
        [
            f"{plural(len(made.planted), 'canary', 'canaries')} added to {folder / 'train.jsonl'}, "
            f"{len(made.held_back):,} held back; all are in {folder / CANARIES_FILE}",
            *_too_few(len(made.held_back), FEWEST_OTHERS),
            "after the run: fedrag audit RUN, or fedrag client audit-model DIR; then --remove takes them out",
        ]
    )


def _too_few(held_back: int, fewest: int) -> list[str]:
    if held_back >= fewest:
        return []
    return [f"Warning: a headline needs {fewest} that are held back, at all sites together; --number 250 has enough"]
