"""Writes the sites that an importer made, and says what was written and what was left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedrag.errors import ConfigError
from fedrag.types import SPLITS, Passage, Site

if TYPE_CHECKING:
    from fedrag.data.importers.draft import Imported
    from fedrag.data.splitting import Fractions


def import_sites(out: Path, split: str, read: Callable[[Fractions], Imported]) -> None:
    """Read the data, write the sites, and print what was written and left out."""
    from fedrag.data.splitting import parse_split
    from fedrag.data.writing import require_free, write_sites

    fractions = parse_split(split)
    require_free(out)
    imported = read(fractions)
    write_sites(out, imported.sites)
    typer.echo(written_sites(imported.sites, out))
    print_left_out(imported)


def read_corpus(path: Path | None) -> list[Passage]:
    """Return the passages that every site gets; none where no file of them is named."""
    from fedrag.data.site_folder import read_passages

    if path is None:
        return []
    passages = list(read_passages(path).values())
    if not passages:
        raise ConfigError(f"--passages {path}: holds no passage")
    return passages


def print_left_out(imported: Imported) -> None:
    """Print what was left out, read otherwise than one might expect, or is lacking."""
    for reason, count in imported.skipped.items():
        typer.echo(f"Left out: {count:,} {reason}.")
    for note in imported.notes:
        typer.echo(f"Note: {note}")
    for warning in imported.warnings:
        typer.echo(f"Warning: {warning}.")


def written_sites(sites: list[Site], out: Path) -> str:
    """Return a line about the written sites, and how many questions are distinct where some recur."""
    from fedrag.data.origins import count_origins, origins_text
    from fedrag.data.questions import count_distinct

    n_questions = {split: sum(len(site.split(split)) for site in sites) for split in SPLITS}
    splits = ", ".join(f"{count:,} {split}" for split, count in n_questions.items())
    n_passages = sum(len(site.passages) for site in sites)
    n_all = sum(n_questions.values())
    noun = "site" if len(sites) == 1 else "sites"
    n_distinct = sum(count_distinct(site.questions) for site in sites)
    distinct = f", {n_distinct:,} of them distinct at their site" if n_distinct < n_all else ""
    told = origins_text(count_origins(question for site in sites for question in site.questions))
    origins = f" Of the {told}." if told else ""
    return f"{out}: {len(sites)} {noun}, {n_passages:,} passages, {n_all:,} questions{distinct} ({splits}).{origins}"
