"""A generator as one GGUF file, for llama.cpp and what is built on it.

No converter is kept on PyPI: llama.cpp's own script is, in llama.cpp's repository. So whoever wants the file names that
script, and fedrag gives it the merged model.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fedrag.errors import ConfigError
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.exporting.whole_model import write_merged_generator
from fedrag.service.environment import QUIET

GGUF_FILE = "generator.gguf"
SCRIPT = "convert_hf_to_gguf.py"


def check_converter(script: Path) -> None:
    """Refuse what is not the converter.

    Raises:
        ConfigError: There is no such file.
    """
    if script.name != SCRIPT or not script.is_file():
        raise ConfigError(
            f"--gguf {script}: expected the path of {SCRIPT} in a checkout of llama.cpp; no converter is kept on PyPI "
            "(without one, --merged writes a model that llama.cpp's script converts later)"
        )


def write_gguf(system: TrainedSystem, script: Path, out: Path) -> None:
    """Merge the generator and let llama.cpp's script convert it, in the number format in which the base is stored.

    Args:
        system: What is exported; its adapter can be merged.
        script: `convert_hf_to_gguf.py`, which finds the rest of llama.cpp beside it.
        out: The new file.

    Raises:
        ConfigError: The script fails, for example because llama.cpp does not know the architecture.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".merged-") as merged:
        write_merged_generator(system, Path(merged))
        done = subprocess.run(
            [sys.executable, script, merged, "--outfile", out],
            env={**os.environ, **QUIET, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if done.returncode or not out.is_file():
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it wrote no file")
        if missing := re.search(r"No module named '(\w+)", last):
            last = f"the script needs {missing[1]}: pip install {missing[1]}"
        raise ConfigError(f"--gguf {script}: the conversion of {system.base('generator').name} failed: {last.strip()}")
