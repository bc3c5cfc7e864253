"""The code that an exported model's README.md shows, run as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def run_block(folder: Path, title: str, **replaced: str) -> dict[str, Any]:
    """Run the block under a title of a folder's README.md, from the current folder, and return what it names."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^{title}[^\n]*:\n\n```python\n(.*?)^```$", card, re.M | re.S)
    for old, new in replaced.items():
        assert old in block
        block = block.replace(old, new)
    names: dict[str, Any] = {"__name__": "shown"}
    exec(block, names)
    return names
