"""A module of functions of one's own, as every party of a federation installs it."""

from __future__ import annotations

from importlib import invalidate_caches
from pathlib import Path

NAME = "hospital_rules"

TEXT = '''"""Losses and a rule of the hospitals."""

from fedrag.training.losses import answer_loss


def half(logits, labels):
    return answer_loss(logits, labels) / 2


def first(differences, weights):
    return differences[0]
'''


def install(folder: Path) -> Path:
    """Write the module into a folder, from which it is imported where that is on the path."""
    file = folder / f"{NAME}.py"
    file.write_text(TEXT, encoding="utf-8")
    invalidate_caches()
    return file
