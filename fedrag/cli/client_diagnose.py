"""`fedrag client diagnose`: why answers at a site are wrong, and what would mend them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.diagnose import Base, JsonFile, Split, show_diagnosis
from fedrag.cli.evaluate import SplitName
from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines
from fedrag.errors import ConfigError


def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    base: Base = False,
    split: Split = SplitName.VALIDATION,
    json_file: JsonFile = None,
) -> None:
    """Say why answers to the site's own questions are wrong, with its current models; nothing of it leaves the site.

    Example: fedrag client diagnose clinic
    """
    from fedrag.site.delivery import open_current, open_latest
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    delivered = open_latest(folder) if base else open_current(folder)
    choose_device(config)
    from fedrag.diagnosis.diagnose import diagnosis_of
    from fedrag.diagnosis.kept import ANSWERS, FOLDER
    from fedrag.files import write_json
    from fedrag.site.admin.evaluate_delivered import can_answer, load_own_site

    site = load_own_site(config)
    with open_display() as display:
        if not can_answer(delivered, config.policy, display):
            raise ConfigError("a diagnosis looks at answers, and the generator may not answer here")
        result = diagnosis_of(
            [site],
            split.value,
            delivered.config,
            delivered.state,
            delivered.folder / FOLDER / ANSWERS,
            base=base,
            display=display,
            indexes=delivered.indexes,
        )
    if json_file is not None:
        write_json(json_file, {"run": delivered.run, **result})
    show_diagnosis(f"{delivered.run} at {site.name}", result)
    if result["advice"]["scenario"]:
        print_lines(["", "The scenario is the coordinator's: these lines are for it to set."])
