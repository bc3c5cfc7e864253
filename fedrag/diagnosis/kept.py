"""What a run's folder keeps of its diagnoses, and what of a generator's losses, in words. No torch here.

```
RUN/diagnosis/
  trained.json  untouched.json   the diagnoses of the run's own sites, which its report shows
  answers/                       the answers that were generated: nothing is generated twice
  told.json                      in a deployment, the counts that sites told
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedrag.files import read_json
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.runs.run_folder import RunFolder

FOLDER = "diagnosis"
ANSWERS = "answers"

NOTICEABLE = 0.1
"""Least rise of the loss, in nats per token, that is worth a word: each token is a tenth less likely."""


def read_diagnoses(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the diagnoses that a run folder holds, `untouched` first.

    Raises:
        RunError: One cannot be read.
    """
    paths = {name: run.path / FOLDER / f"{name}.json" for name in ("untouched", "trained")}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def forgetting_text(losses: Mapping[str, Mapping[str, float]], words: Words = ENGLISH) -> str:
    """Return in a sentence what training did to the loss on general text.

    >>> forgetting_text({"before": {"all": 3.0}, "after": {"all": 3.5}})
    'Loss on general text: 3.00 before training, 3.50 after, in nats per token; it forgot some of its language'
    """
    before, after = losses["before"]["all"], losses["after"]["all"]
    verdict = words("forgetting.some" if after - before >= NOTICEABLE else "forgetting.nothing")
    figures = {"before": words.number(f"{before:.2f}"), "after": words.number(f"{after:.2f}")}
    return words("forgetting.losses", **figures, verdict=verdict)
