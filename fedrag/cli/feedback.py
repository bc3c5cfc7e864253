"""`fedrag feedback`: what people said about a site's answers, reviewed and turned into training questions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.feedback_review import review_all
from fedrag.cli.tables import print_lines, print_rows
from fedrag.errors import DataError
from fedrag.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedrag.data.feedback_row import Feedback

NOTHING = "No feedback yet; fedrag serve and fedrag client serve take it from people."

app = typer.Typer(help="Review what people said about answers, and learn from it.", no_args_is_help=True)

SiteArgument = Annotated[
    Path, typer.Argument(metavar="SITE", help="The site's data folder, or its folder with site.toml.")
]


@app.command("list")
def list_command(
    site: SiteArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each, and nothing else.")] = False,
) -> None:
    """List what people said about answers, the newest last.

    Example: fedrag feedback list simulations/data/tiny/north
    """
    from fedrag.data.feedback_review import counts_text
    from fedrag.data.feedback_store import FeedbackStore

    rows = FeedbackStore(data_folder(site)).rows()
    if as_json:
        for row in rows:
            typer.echo(json.dumps(asdict(row), ensure_ascii=False))
        return
    print_rows([_shown(row) for row in rows], NOTHING)
    if rows:
        print_lines([f"{counts_text(rows)}."])


@app.command()
def review(
    site: SiteArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was reviewed before and is no training question yet.")
    ] = False,
) -> None:
    """Go through what is new: accept it, edit the answer, pick the right passage, or drop it.

    Example: fedrag feedback review simulations/data/tiny/north

    Each decision is written down at once; nothing is trained on before fedrag feedback export.
    """
    from fedrag.data.feedback_store import FeedbackStore
    from fedrag.data.site_folder import load_site

    folder = data_folder(site)
    store = FeedbackStore(folder)
    rows = [row for row in store.rows() if not row.exported and (everything or row.state == "new")]
    if not rows:
        print_lines([NOTHING if not store.rows() else "Nothing new to review; --all shows what was reviewed before."])
        return
    review_all(store, rows, {passage.id: passage for passage in load_site(folder).passages})
    taken = sum(row.state in ("accepted", "edited") and not row.exported for row in store.rows())
    if taken:
        print_lines([f"{plural(taken, 'question')} to learn from: fedrag feedback export {site}"])


@app.command()
def export(site: SiteArgument) -> None:
    """Add what was accepted to the site's train.jsonl; what was added before is not added again.

    Example: fedrag feedback export simulations/data/tiny/north
    """
    from fedrag.data.feedback_export import export_feedback

    done = export_feedback(data_folder(site))
    print_lines([f"{plural(len(done.added), 'question')} added to train.jsonl."])
    _tell("Known already, and not added", [question.question for question in done.known])
    _tell("In validation or test, and therefore not trained on", done.held_out)
    _tell("Without an answer, and their right passages are gone", done.lacking)
    _tell("Added beside another answer in train.jsonl; both count as right", [q.question for q in done.disputed])


def data_folder(site: Path) -> Path:
    """Return the data folder of a site that is named by it, or by the folder of its site.toml.

    Raises:
        ConfigError: The site.toml is not valid.
        DataError: There is no site, or there are several.
    """
    from fedrag.data.site_folder import site_folders
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    is_deployed = (site / SITE_FILE).is_file()
    folders = site_folders(Path(SiteConfig.from_file(site / SITE_FILE).data) if is_deployed else site)
    if len(folders) > 1:
        raise DataError(f"{site}: holds {len(folders)} sites; name one of them, such as {folders[0]}")
    return folders[0]


def _shown(row: Feedback) -> dict[str, str]:
    return {
        "day": row.day,
        "state": "exported" if row.exported else row.state,
        "question": row.question,
        "answered": row.answer or "(nothing)",
        "verdict": row.verdict,
        "right_answer": row.right_answer,
        "right_passages": ", ".join(row.right_ids),
    }


def _tell(what: str, questions: Sequence[str]) -> None:
    if questions:
        print_lines([f"{what}:", *(f"  {question}" for question in questions)])
